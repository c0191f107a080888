"""One poller for each egress address: what counts as one, and what the second is told."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from poller.addresses import address_key, claim
from poller.errors import EgressLocked

EXCHANGE = "https://api.binance.com"
KEY = address_key(EXCHANGE)


def test_an_address_is_told_apart_by_exchange_local_address_and_proxy() -> None:
    keys = [
        KEY,
        address_key("http://127.0.0.1:8099"),
        address_key("http://127.0.0.1:8100"),
        address_key(EXCHANGE, local_address="10.0.0.2"),
        address_key(EXCHANGE, proxy="http://proxy.example:3128"),
        address_key(EXCHANGE, proxy="http://proxy.example:3129"),
    ]
    assert len(set(keys)) == len(keys)


def test_a_proxy_is_one_address_whoever_uses_it_and_its_password_is_not_kept() -> None:
    key = address_key(EXCHANGE, proxy="http://somebody:hunter2@proxy.example:3128")
    assert key == address_key(EXCHANGE, proxy="http://proxy.example:3128")
    assert "hunter2" not in key


def test_the_second_poller_is_told_which_address_who_has_it_and_what_to_do(tmp_path: Path) -> None:
    held = claim("nat-b", KEY, directory=tmp_path / "locks")
    assert held is not None
    with pytest.raises(EgressLocked) as caught:
        claim("default", KEY, directory=tmp_path / "locks")
    assert caught.value.pid == os.getpid()
    assert str(caught.value) == (
        f"egress 'default': process {os.getpid()} sends from this address already, and both would spend its"
        " whole weight; stop that one, use another egress, or give each a smaller budget.share and set"
        " egress.default.shared: true in both"
    )
    held.release()
    again = claim("default", KEY, directory=tmp_path / "locks")
    assert again is not None
    again.release()
    assert list((tmp_path / "locks").iterdir()) == []


def test_those_who_say_that_they_share_an_address_do(tmp_path: Path) -> None:
    first = claim("default", KEY, shared=True, directory=tmp_path / "locks")
    second = claim("default", KEY, shared=True, directory=tmp_path / "locks")
    assert first is not None
    assert second is not None
    first.release()
    with pytest.raises(EgressLocked):
        claim("default", KEY, directory=tmp_path / "locks")
    second.release()


def test_two_addresses_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    first = claim("default", KEY, directory=tmp_path / "locks")
    other = claim("nat-b", address_key(EXCHANGE, local_address="10.0.0.2"), directory=tmp_path / "locks")
    assert first is not None
    assert other is not None
    first.release()
    other.release()


@pytest.mark.parametrize("spoil", ["open", "link", "file", "missing"])
def test_where_locks_cannot_be_kept_that_is_said_and_polls_go_on(
    spoil: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "locks"
    if spoil == "open":
        directory.mkdir()
        directory.chmod(0o777)
    elif spoil == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        directory.symlink_to(tmp_path / "elsewhere")
    elif spoil == "file":
        directory.touch()
    else:
        directory = tmp_path / "nowhere" / "locks"
    with caplog.at_level(logging.WARNING):
        assert claim("default", KEY, directory=directory) is None
    assert caplog.messages == ["nobody watches that this egress address is used by one poller only"]


def test_the_directory_is_its_users_alone(tmp_path: Path) -> None:
    held = claim("default", KEY, directory=tmp_path / "locks")
    assert held is not None
    assert (tmp_path / "locks").stat().st_mode & 0o777 == 0o700
    held.release()
