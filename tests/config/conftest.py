"""Configurations as texts, what is wrong with them as texts, and a kind of sink to configure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field, field_validator

from poller import sinks
from poller.config import Config, load
from poller.errors import ConfigError
from poller.model import Record
from poller.secrets import Secret
from poller.sinks import SinkOptions
from poller.units import Duration

# Enough to be valid; `accounts` comes first so that tests can add to it.
ACCOUNT = "{api_key: env:A_KEY, secret: env:A_SECRET}"

Write = Callable[..., Path]
Problems = Callable[..., list[str]]
Loaded = Callable[..., Config]


class ProbeOptions(SinkOptions):
    """One option of each kind that is treated in a way of its own."""

    path: Path
    second: Path | None = None
    token: Secret | None = None
    size: int = Field(default=1, ge=1)
    every: Duration = 60.0
    mode: Literal["a", "b"] = "a"
    nested: dict[str, int] = Field(default_factory=dict)

    @field_validator("token")
    @classmethod
    def _long_enough(cls, token: Secret | None) -> Secret | None:
        if token is not None and len(token.reveal()) < 4:
            raise ValueError(f"{token.reveal()} is too short a token")
        return token


class ProbeSink:
    """Writes nowhere."""

    Options: ClassVar[type[SinkOptions]] = ProbeOptions

    def __init__(self, options: Any) -> None:
        self.options = options

    async def open(self) -> None: ...

    async def write(self, batch: Sequence[Record]) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture(autouse=True)
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the kinds ``probe`` and ``broken``, whose client is missing, and no others."""
    module = ModuleType("a_plugin")
    module.ProbeSink = ProbeSink  # type: ignore[attr-defined]  # made here
    monkeypatch.setitem(sys.modules, "a_plugin", module)
    found = {
        "probe": EntryPoint("probe", "a_plugin:ProbeSink", sinks.GROUP),
        "broken": EntryPoint("broken", "a_missing_client:Sink", sinks.GROUP),
    }
    monkeypatch.setattr(sinks, "installed", lambda: found)


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test makes a secret is none to the next."""
    monkeypatch.setattr("poller.secrets.redaction._pieces", set())
    monkeypatch.setattr("poller.secrets.redaction._words", set())


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write ``accounts.yaml``, and other files by their paths, into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, **others: str) -> Path:
        for name, content in {"accounts.yaml": text, **others}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(content))
        return Path("accounts.yaml")

    return write


@pytest.fixture
def loaded(write: Write) -> Loaded:
    """Load a text, and other files by their paths, as a configuration."""
    return lambda text, **others: load(write(text, **others))


@pytest.fixture
def problems(write: Write) -> Problems:
    """Load a text and return what is wrong with it, a line each."""

    def problems(text: str, **others: str) -> list[str]:
        path = write(text, **others)
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value) == "\n".join(map(str, caught.value.problems))
        return [str(problem) for problem in caught.value.problems]

    return problems
