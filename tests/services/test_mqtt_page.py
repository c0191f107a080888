"""What ``docs/sinks/mqtt.md`` shows, with a daemon and the consumer of the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.mosquittos import mosquitto, password_file
from tests.services.pages import running_page

pytestmark = pytest.mark.real_time

PASSWORD = "the-password-of-this-page"


def test_the_consumer_prints_what_the_daemon_delivers(tmp_path: Path) -> None:
    lines = ("allow_anonymous false", password_file(tmp_path, poller=PASSWORD))
    with mosquitto(tmp_path / "broker", *lines) as broker:
        replace = {"1883": str(broker.port)}
        with running_page("mqtt", tmp_path, {"MQTT_PASSWORD": PASSWORD}, replace=replace) as page:
            accounts = page.exchange.accounts
            printed = [line.split() for line in page.consume().splitlines()]
        assert len(printed) == len({record for record, _, _ in printed}) == 20
        assert {account for _, account, _ in printed} <= set(accounts)
        for account in accounts:
            sequences = [int(number) for _, name, number in printed if name == account]
            assert sequences == sorted(sequences)
        assert PASSWORD not in page.log
