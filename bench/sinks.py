"""What each network sink makes of its client: records a second through `write`, against the client by itself.

The floor is the same client on the same server in the same run, sending the same bytes the way its own
documentation shows for many messages at once, and waiting for every acknowledgement. Records have about
1 kB and come from 200 accounts. `python -m bench sinks --sink redis --batch 500`. A row is left out, with
the reason, where its server or client is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from poller import sinks
from poller.model import Record
from poller.secrets import Secret
from poller.testing.sink_contract import make_records

Write = Callable[[Sequence[Record]], Awaitable[object]]
ACCOUNTS = 200
ROUNDS = 5
NAME = f"poller-bench-{os.getpid()}"

REDIS = os.environ.get("POLLER_TEST_REDIS", "redis://127.0.0.1:6379/0")
NATS = os.environ.get("POLLER_TEST_NATS", "nats://127.0.0.1:4222")
AMQP = os.environ.get("POLLER_TEST_AMQP", "amqp://guest:guest@127.0.0.1:5672/")
POSTGRES = os.environ.get("POLLER_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test")


def records(count: int) -> list[Record]:
    each = -(-count // ACCOUNTS)
    rows = [make_records(each, account=f"account-{n}", first=1 + n * each) for n in range(ACCOUNTS)]
    return [record for together in zip(*rows, strict=True) for record in together][:count]


@asynccontextmanager
async def through(kind: str, options: dict[str, Any]) -> AsyncIterator[Write]:
    """Our sink."""
    sink_class = sinks.load(kind)
    sink = sink_class(sink_class.Options.model_validate(options))
    await sink.open()
    try:
        yield sink.write
    finally:
        await sink.close()


# The floors. --------------------------------------------------------------------------------------


@asynccontextmanager
async def redis_floor() -> AsyncIterator[Write]:
    from redis.asyncio import Redis

    async with Redis.from_url(REDIS) as client:

        async def write(batch: Sequence[Record]) -> object:
            pipeline = client.pipeline(transaction=False)
            for record in batch:
                pipeline.xadd(NAME, {"id": record.id, "record": record.payload})
            return await pipeline.execute()

        yield write
        await client.delete(NAME)


@asynccontextmanager
async def nats_floor() -> AsyncIterator[Write]:
    import nats
    from nats.js.api import StreamConfig

    client = await nats.connect(NATS)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name=NAME, subjects=[f"{NAME}.>"]))

    async def write(batch: Sequence[Record]) -> object:
        return await asyncio.gather(
            *(stream.publish(f"{NAME}.{record.account}", record.payload) for record in batch)
        )

    try:
        yield write
    finally:
        await stream.delete_stream(NAME)
        await client.close()


@asynccontextmanager
async def amqp_floor() -> AsyncIterator[Write]:
    import aio_pika

    async with await aio_pika.connect(AMQP) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(NAME, durable=True)

        async def write(batch: Sequence[Record]) -> object:
            return await asyncio.gather(
                *(
                    channel.default_exchange.publish(
                        aio_pika.Message(record.payload, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), NAME
                    )
                    for record in batch
                )
            )

        try:
            yield write
        finally:
            await queue.delete(if_unused=False, if_empty=False)


@asynccontextmanager
async def postgres_floor() -> AsyncIterator[Write]:
    import asyncpg

    connection = await asyncpg.connect(POSTGRES)
    table = NAME.replace("-", "_")
    await connection.execute(f'CREATE TABLE "{table}" (id text, account text, payload jsonb)')

    async def write(batch: Sequence[Record]) -> object:
        rows = [(record.id, record.account, record.payload.decode()) for record in batch]
        return await connection.copy_records_to_table(table, records=rows)

    try:
        yield write
    finally:
        await connection.execute(f'DROP TABLE "{table}"')
        await connection.close()


@asynccontextmanager
async def mqtt_floor() -> AsyncIterator[Write]:
    import aiomqtt

    async with aiomqtt.Client("127.0.0.1", protocol=aiomqtt.ProtocolVersion.V5) as client:
        client.pending_calls_threshold = 1 << 20  # or it would log a line for every call under way

        async def write(batch: Sequence[Record]) -> object:
            return await asyncio.gather(
                *(client.publish(f"{NAME}/{record.account}", record.payload, qos=1) for record in batch)
            )

        yield write


@asynccontextmanager
async def webhook_floor(url: str) -> AsyncIterator[Write]:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=8)) as session:

        async def post(record: Record) -> None:
            async with session.post(url, data=record.payload) as answer:
                await answer.read()

        async def write(batch: Sequence[Record]) -> object:
            return await asyncio.gather(*map(post, batch))

        yield write


@asynccontextmanager
async def receiving() -> AsyncIterator[str]:
    from aiohttp import web

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/", take)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def both(kind: str) -> AsyncIterator[tuple[Write, Write]]:
    """Our sink and the floor under it."""
    secret = Secret
    options: dict[str, dict[str, Any]] = {
        "redis": {"url": secret(REDIS), "stream": NAME},
        "nats": {"servers": [NATS], "subject": f"{NAME}.{{account}}"},
        "amqp": {"url": secret(AMQP), "exchange": "", "routing_key": NAME},
        "postgres": {"url": secret(POSTGRES), "schema": NAME.replace("-", "_")},
        "mqtt": {"host": "127.0.0.1", "topic": f"{NAME}/{{account}}"},
    }
    if kind == "webhook":
        async with (
            receiving() as url,
            webhook_floor(url) as floor,
            through(kind, {"url": secret(url), "secret": secret("whsec_" + "A" * 43 + "=")}) as ours,
        ):
            yield ours, floor
        return
    floors = {
        "redis": redis_floor,
        "nats": nats_floor,
        "amqp": amqp_floor,
        "postgres": postgres_floor,
        "mqtt": mqtt_floor,
    }
    async with floors[kind]() as floor, through(kind, options[kind]) as ours:
        yield ours, floor
    if kind == "postgres":
        import asyncpg

        connection = await asyncpg.connect(POSTGRES)
        await connection.execute(f'DROP SCHEMA "{NAME.replace("-", "_")}" CASCADE')
        await connection.close()


async def rate(write: Write, batches: Sequence[Sequence[Record]]) -> float:
    """Records a second."""
    begin = time.perf_counter()
    for batch in batches:
        await write(batch)
    return sum(map(len, batches)) / (time.perf_counter() - begin)


async def measure(kind: str, batch: int, count: int) -> tuple[float, float]:
    """The median rate of our sink, and of the floor; the two take turns."""
    ours: list[float] = []
    floors: list[float] = []
    everything = records(count * (ROUNDS + 1))
    async with both(kind) as (write, floor):
        for number in range(ROUNDS + 1):
            part = everything[number * count : (number + 1) * count]
            batches = [part[first : first + batch] for first in range(0, count, batch)]
            rates = await rate(write, batches), await rate(floor, batches)
            if number:  # the first round warms up
                ours.append(rates[0])
                floors.append(rates[1])
    return statistics.median(ours), statistics.median(floors)


KINDS = ("redis", "nats", "amqp", "postgres", "mqtt", "webhook")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sink", choices=KINDS, action="append", help="only this one; repeatable")
    parser.add_argument("--batch", type=int, action="append", help="records a write; repeatable")
    return parser


def run(chosen: argparse.Namespace) -> None:
    print(f"{'sink':9} {'batch':>5} {'ours /s':>9} {'floor /s':>9} {'ours/floor':>10}")
    for kind in chosen.sink or KINDS:
        for batch in chosen.batch or (1, 100, 500):
            try:
                ours, floor = asyncio.run(measure(kind, batch, 200 if batch == 1 else 1000))
            except (OSError, ImportError, LookupError) as error:
                print(f"{kind:9} left out: {error}")
                break
            print(f"{kind:9} {batch:5d} {ours:9.0f} {floor:9.0f} {ours / floor:10.2f}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    run(parser().parse_args(arguments or []))


if __name__ == "__main__":
    main(sys.argv[1:])
