"""The page of the webhook sink: its configuration posts to its receiver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.processes import PATIENCE_S
from tests.exchange.raw_server import free_port
from tests.services.pages import blocks, replaced, running_page
from tests.services.receiver import SECRET

pytestmark = pytest.mark.real_time


@pytest.mark.parametrize("secret", [SECRET, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oE"], ids=["right", "wrong"])
def test_the_receiver_prints_what_the_poller_posts(secret: str, tmp_path: Path) -> None:
    port = free_port()
    snippet = replaced(blocks("webhook", "python")[0], {"8081": str(port)})
    receiver = subprocess.Popen(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", snippet],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "WEBHOOK_SECRET": secret, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert receiver.stdout is not None
    lines: list[list[str]] = []
    url = f"http://127.0.0.1:{port}/hooks"
    try:
        environment = {"WEBHOOK_URL": url, "WEBHOOK_SECRET": SECRET}
        # What nobody takes need not be waited for at the end.
        quick = {"sinks:\n": "shutdown: {drain: 1s}\nsinks:\n"} if secret != SECRET else {}
        with running_page("webhook", tmp_path, environment, replace=quick) as page:
            accounts = set(page.exchange.accounts)
            if secret != SECRET:
                page.exchange.wait_until_all_polled(2)
            else:
                while {account for _, account, _ in lines} != accounts:
                    lines.append(receiver.stdout.readline().split())
    finally:
        receiver.terminate()
        rest, _ = receiver.communicate(timeout=PATIENCE_S)
    lines += [line.split() for line in rest.splitlines()]
    if secret != SECRET:
        assert lines == []
        assert "answered 401: none of the signatures is of one of the secrets" in page.log
        return
    assert len({webhook_id for webhook_id, _, _ in lines}) == len(lines) >= len(accounts)
    for account in accounts:
        sequences = [int(sequence) for _, name, sequence in lines if name == account]
        assert sequences == sorted(sequences)
