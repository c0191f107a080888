"""The structure that docs/architecture.md promises: imports point down, one reader of time, one HTTP seam."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "poller"

# A module may import from its own part and from the lines below its own.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"demo"},
    {"app", "rounds"},
    {"doors", "following"},
    {"reloading"},
    {"preparing", "report", "running"},
    {"sampling"},
    {"assembly"},
    {"parts"},
    {"config", "egress", "observations", "simulator", "testing"},
    {"polling", "scrape"},
    {"checking", "delivery", "discovery", "outcomes", "stretching", "timekeeping"},
    {
        "acceptance",
        "asyncapi",
        "control",
        "explaining",
        "history",
        "loop_lag",
        "maintenance",
        "readiness",
        "server",
    },
    {
        "addresses",
        "budget",
        "changes",
        "exchange",
        "health",
        "outbox",
        "plan",
        "records",
        "schedule",
        "service_manager",
        "sinks",
        "spells",
        "turning",
        "under_way",
    },
    {"otlp"},
    {"locks", "secrets", "units"},
    {
        "beat",
        "clock",
        "errors",
        "garbage",
        "hardening",
        "logs",
        "metrics",
        "model",
        "overview",
        "signals",
        "tracing",
        "webhooks",
    },
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
# Bottom modules that lean on one another, each for the reason given.
ALLOWED_SIDEWAYS = {
    ("logs", "clock"),  # a line carries its time
    ("logs", "metrics"),  # dropped lines are counted
    ("logs", "secrets"),  # every line is redacted
}
AIOHTTP_USERS = re.compile(r"^(exchange/transport\.py|server/.*|simulator/.*|sinks/webhook\.py|demo\.py)$")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Parts of this package that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "poller":
            inner = node.module.split(".")[1:]
            yield from inner[:1] or [alias.name for alias in node.names if alias.name != "__version__"]
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "poller" and len(parts) > 1:
                    yield parts[1]


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_part_has_its_layer() -> None:
    assert {part_of(path) for path in modules()} - {"__init__"} <= LEVEL.keys()


def test_imports_point_down() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {imported}"
        for path in modules()
        for imported in imports(path)
        if (importer := part_of(path)) not in {"__init__", imported}
        and (importer, imported) not in ALLOWED_SIDEWAYS
        and LEVEL[imported] <= LEVEL[importer]
    ]
    assert wrong == []


def test_only_the_composition_root_and_above_know_the_configuration() -> None:
    knowing = {part_of(path) for path in modules() if "config" in imports(path)}
    assert knowing <= {
        "app",
        "assembly",
        "cli",
        "commands",
        "config",
        "demo",
        "following",
        "preparing",
        "reloading",
        "report",
        "rounds",
        "doors",
    }


def test_only_the_clock_reads_time() -> None:
    reading = re.compile(
        r"\btime\.(time|monotonic|perf_counter|clock_gettime|process_time)(_ns)?\(|datetime\.(now|utcnow|today)\("
    )
    readers = {str(path.relative_to(PACKAGE)) for path in modules() if reading.search(path.read_text())}
    assert readers == {"clock.py"}


def test_http_is_spoken_at_the_seams_only() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if re.search(r"^\s*(import|from) aiohttp", path.read_text(), re.MULTILINE)
    }
    assert [user for user in users if not AIOHTTP_USERS.match(user)] == []


def test_the_simulator_shares_none_of_the_code_it_tests() -> None:
    shared = {imported for path in (PACKAGE / "simulator").glob("*.py") for imported in imports(path)}
    assert shared <= {"simulator", "clock"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_it_is_in_its_first_sentence(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert re.search(r"[.:?]$", docstring.splitlines()[0]), docstring.splitlines()[0]
    assert path.stem not in {"utils", "helpers", "common", "base", "core", "manager"}


def test_running_without_extras_imports_no_sinks_client() -> None:
    for path in modules():
        if "sinks" not in path.parts:
            assert not re.search(
                r"^\s*(import|from) (redis|nats|aio_pika|aiokafka|asyncpg|pyarrow)\b",
                path.read_text(),
                re.MULTILINE,
            )


def test_only_where_traces_are_wanted_their_client_is_imported() -> None:
    users = {
        path.name
        for path in modules()
        if re.search(r"^\s*(import|from) opentelemetry", path.read_text(), re.MULTILINE)
    }
    assert users == {"otlp.py"}
    code = "import sys, poller.app, poller.cli; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "[]\n"
