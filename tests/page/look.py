"""Serve the page over a made-up desk that lives, to look at by hand: ``python -m tests.page.look``."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from datetime import UTC, datetime

from tests.page.made_up import text_of
from tests.page.scenes import desk
from tests.page.served import ServedFleet


def main() -> None:
    fleet = desk()
    server = ServedFleet(fleet)
    server.start()
    print(f"{server.url}/  (Ctrl-C ends it)", flush=True)
    chance = random.Random(1)
    while True:
        time.sleep(1)
        accounts = fleet.accounts()
        polled = [
            replace(one, good_at=text_of(datetime.now(UTC)))
            for one in chance.sample(accounts, 80)
            if one.state == "ok"
        ]
        fleet.put(*polled)
        fleet.happen(polled[0].account, ("BTC", "free", "1.2", f"1.{chance.randint(2, 99)}"))


if __name__ == "__main__":
    main()
