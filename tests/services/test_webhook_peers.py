"""No connection leads inside: judged by every connect of the process, as the interpreter reports it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from poller.errors import SinkBroken
from poller.secrets import Secret
from poller.sinks.peers import PeerRefused, Peers, parse_network
from poller.sinks.webhook import WebhookSink, _Resolver
from poller.sinks.webhook_options import WebhookOptions
from poller.testing.sink_contract import make_records
from tests.exchange.raw_server import answering, reply
from tests.services.receiver import make_sink, posting
from tests.sinks.test_peers import INSIDE

pytestmark = pytest.mark.real_time

_watching: list[list[Any]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        for seen in _watching:
            seen.append(arguments[1])


sys.addaudithook(_hook)  # for ever: there is no way to take one away


@contextmanager
def connects() -> Iterator[list[Any]]:
    seen: list[Any] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


class Names(AbstractResolver):
    """Every name leads to the next of the given addresses, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


async def broken(sink: WebhookSink) -> str:
    await sink.open()
    try:
        with pytest.raises(SinkBroken) as caught:
            await sink.write(make_records(1))
    finally:
        await sink.close()
    return str(caught.value)


async def test_the_hook_sees_connects() -> None:
    async with answering(reply()) as server, posting(server.url) as sink:
        with connects() as seen:
            await sink.write(make_records(1))
    assert seen == [("127.0.0.1", server.port)]


@pytest.mark.parametrize("address", INSIDE)
async def test_a_name_that_leads_inside_is_not_connected_to(address: str) -> None:
    with connects() as seen:
        text = await broken(make_sink("https://hooks.example/", resolver=Names([address])))
    assert seen == []
    assert "its address is not one to connect to" in text
    assert address in text


@pytest.mark.parametrize(
    "address", [each for each in INSIDE if each not in {"127.0.0.1", "127.1.2.3", "::1"}]
)
async def test_the_connection_judges_for_itself(address: str) -> None:
    """Also what no option check has seen."""
    host = f"[{address.replace('%', '%25')}]" if ":" in address else address
    unchecked = WebhookOptions.model_construct(
        **{**dict(make_sink("https://example.com")._options), "url": Secret(f"https://{host}/")}
    )
    with connects() as seen:
        await broken(WebhookSink(unchecked))
    assert seen == []


@pytest.mark.parametrize("host", ["0x7f000001", "0x7f.1", "017700000001", "2130706433", "127.1", "localhost"])
async def test_names_that_the_system_takes_for_loopback_are_not_resolved(host: str) -> None:
    """Its resolver reads numbers in every notation."""
    resolver = _Resolver(Peers("hooks.example"), None)
    with pytest.raises(PeerRefused):
        await resolver.resolve(host, 9)


async def test_a_name_that_leads_to_several_places_inside_has_to_be_repaired() -> None:
    with connects() as seen:
        text = await broken(make_sink("https://hooks.example/", resolver=Names(["10.0.0.1", "fd00::1"])))
    assert seen == []
    assert "its address is not one to connect to" in text


async def test_a_name_that_is_bound_anew_between_two_connections() -> None:
    """The first answer is public; the one that the connection would be made with is not."""
    async with answering(reply()) as canary:
        url = f"https://hooks.example:{canary.port}/"
        with connects() as seen:
            names = Names(["127.0.0.1"], ["10.0.0.1"], ["::1"])
            sink = make_sink(url, resolver=names)
            await broken(sink)
            await broken(sink)
            await broken(sink)
    assert names.asked == 3
    assert seen == []
    assert canary.connections == []


async def test_of_several_addresses_only_those_outside_and_listed_are_left() -> None:
    names = Names(["10.0.0.1", "192.0.2.1", "127.0.0.1", "10.9.9.9", "8.8.8.8"])
    resolver = _Resolver(Peers("hooks.example", [parse_network("10.9.0.0/16")]), names)
    assert [found["host"] for found in await resolver.resolve("hooks.example")] == ["10.9.9.9", "8.8.8.8"]
