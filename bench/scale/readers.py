"""Browsers with the page open, and a scraper, in a process of their own: `python -m bench.scale.readers URL N`.

Says `ready` when every stream has been told everything; ends, with what was read, when its input ends.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp

SCRAPE_EVERY_S = 1.0
SETTLED_S = 1.5  # without a chunk on any stream but those of each second


class Reading:
    """What was read so far."""

    def __init__(self) -> None:
        self.greeted = asyncio.Semaphore(0)
        self.event_bytes = 0
        self.scrapes = 0
        self.scraped_bytes = 0


async def listen(session: aiohttp.ClientSession, url: str, reading: Reading) -> None:
    """Read events for ever, as a browser does."""
    async with session.get(f"{url}/api/events") as response:
        response.raise_for_status()
        is_new = True
        async for chunk in response.content.iter_any():
            reading.event_bytes += len(chunk)
            if is_new:
                is_new = False
                reading.greeted.release()
    raise SystemExit("a stream ended")


async def scrape(session: aiohttp.ClientSession, url: str, reading: Reading) -> None:
    """Scrape once a second, for ever."""
    while True:
        async with session.get(f"{url}/metrics") as response:
            response.raise_for_status()
            reading.scraped_bytes += len(await response.read())
        reading.scrapes += 1
        await asyncio.sleep(SCRAPE_EVERY_S)


async def main(url: str, browsers: int) -> None:
    reading = Reading()
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        jobs = [tasks.create_task(listen(session, url, reading)) for _ in range(browsers)]
        jobs.append(tasks.create_task(scrape(session, url, reading)))
        for _ in range(browsers):
            await reading.greeted.acquire()
        await asyncio.sleep(SETTLED_S)
        before = reading.event_bytes
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for job in jobs:
            job.cancel()
    print(reading.event_bytes - before, reading.scrapes, reading.scraped_bytes, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
