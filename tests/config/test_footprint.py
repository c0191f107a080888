"""A footprint differs when a file of the configuration does, and only then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poller.config import Config, load
from poller.config.footprint import Footprints
from tests.config.conftest import Write

WHOLE = """\
include: [conf.d/*.yaml]
accounts:
  alice: {api_key: file:secrets/alice.key, secret: file:secrets/alice.secret}
egress: {default: {}, far: {proxy: file:secrets/proxy}}
sinks: {log: {kind: probe, path: log, token: file:secrets/sink}}
server: {token: file:secrets/server}
tracing: {endpoint: 'http://127.0.0.1:4318', headers: file:secrets/headers}
discover: {master: {api_key: file:secrets/master.key, private_key: file:secrets/master.pem}}
"""
SECRETS = ("alice.key", "alice.secret", "proxy", "sink", "server", "headers", "master.key", "master.pem")


@pytest.fixture
def config(write: Write) -> Config:
    """Everything that can be in a file is in one, under the working directory."""
    others = {f"secrets/{name}": "x" for name in SECRETS}
    return load(write(WHOLE, **others, **{"conf.d/one.yaml": "accounts: {}\n"}))


def test_it_stays_the_same_while_nothing_is_touched(config: Config) -> None:
    prints = Footprints(config.path)
    assert prints.take(config) == prints.take(config) == Footprints(config.path).take(config)


@pytest.mark.parametrize(
    "name", ["accounts.yaml", "conf.d/one.yaml", *(f"secrets/{name}" for name in SECRETS)]
)
def test_every_file_counts_however_it_is_changed(config: Config, name: str) -> None:
    prints, path = Footprints(config.path), Path(name)
    seen = {prints.take(config)}
    text = path.read_text()
    path.write_text(text + "# more\n")
    seen.add(prints.take(config))
    other = path.with_name("other")
    other.write_text(text)
    other.rename(path)
    seen.add(prints.take(config))
    path.unlink()
    seen.add(prints.take(config))
    path.symlink_to(path.absolute().with_name("elsewhere"))
    path.with_name("elsewhere").write_text(text)
    seen.add(prints.take(config))
    assert len(seen) == 5


def test_a_content_of_the_same_size_and_age_counts(config: Config) -> None:
    prints, path = Footprints(config.path), Path("secrets/sink")
    before, status = prints.take(config), path.stat()
    path.write_text("y")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert prints.take(config) != before


def test_a_file_that_an_include_begins_to_match_counts(config: Config) -> None:
    prints = Footprints(config.path)
    before = prints.take(config)
    Path("conf.d/two.yaml").write_text("accounts: {}\n")
    with_two = prints.take(config)
    assert with_two != before
    Path("conf.d/two.yaml").unlink()
    assert prints.take(config) == before
    Path("elsewhere.yaml").write_text("accounts: {}\n")
    Path("accounts.yaml").write_text(WHOLE.replace("conf.d/*", "elsewhere"))
    assert str(Path("elsewhere.yaml")) in dict(prints.take(config))


def test_a_main_file_that_is_gone_or_broken_is_a_footprint_as_well(config: Config) -> None:
    prints, main = Footprints(config.path), Path("accounts.yaml")
    whole = prints.take(config)
    main.unlink()
    gone = prints.take(config)
    main.write_text("a: [")
    broken = prints.take(config)
    assert len({whole, gone, broken}) == 3
    main.write_text(WHOLE)
    assert {path for path, _ in prints.take(config)} == {path for path, _ in whole}
