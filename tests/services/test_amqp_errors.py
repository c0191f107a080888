"""What only a RabbitMQ of one's own can be put through: users, virtual hosts, limits, alarms, certificates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poller.errors import SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.model import Account, Record, State
from poller.records import record_id, status_record
from poller.secrets import Secret
from poller.sinks import amqp
from poller.sinks.amqp import AmqpSink
from poller.sinks.amqp_options import AmqpOptions
from poller.testing.sink_contract import ids, make_records
from tests.exchange.certificates import Authority
from tests.services.rabbitmq import LARGEST_BYTES, Node, Place, rabbitmq_node

pytestmark = pytest.mark.real_time

CANARY = "canary-4711-password"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with rabbitmq_node(tmp_path_factory.mktemp("rabbitmq")) as node:
        node.ctl("add_user", "writer", CANARY)
        node.ctl("add_vhost", "theirs")
        yield node


@pytest.fixture
def place(node: Node) -> Iterator[Place]:
    place = Place(node.url)
    place.create()
    yield place
    place.remove()


def sink_at(url: str, exchange: str = "amq.topic", **options: Any) -> AmqpSink:
    return AmqpSink(AmqpOptions.model_validate({"url": Secret(url), "exchange": exchange, **options}))


def said(error: BaseException | None) -> str:
    """Everything that a log could show of an error and of what it came from."""
    texts, todo, seen = [], [error], set()  # the client's chains go round in circles
    while todo:
        error = todo.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            texts += [str(error), repr(error), repr(vars(error))]
            todo += [error.__cause__, error.__context__]
    return "\n".join(texts)


def status(number: int, reason: str) -> Record:
    return status_record(
        Account("treasury", 60.0),
        id=record_id(number, bytes(10)),
        sequence=1,
        state=State.STALE,
        reason=reason,
        since_ns=number,
    )


@pytest.mark.parametrize(
    ("user", "virtual_host", "permissions", "options", "message"),
    [
        (
            f"writer:not-{CANARY}",
            "",
            ".*",
            {},
            r"ACCESS_REFUSED - Login was refused.*check user and password",
        ),
        (f"{CANARY}:guest", "", ".*", {}, r"Login was refused"),
        (f"writer:{CANARY}", "nowhere", ".*", {}, r"refused virtual host 'nowhere': it is missing"),
        (f"writer:{CANARY}", "theirs", ".*", {}, r"refused virtual host 'theirs'.*not for this user"),
        (f"writer:{CANARY}", "", "", {}, r"access to exchange 'amq\.topic' .* refused.*set_permissions"),
        (
            f"writer:{CANARY}",
            "",
            "",
            {"exchange": "new", "create": True},
            r"access to exchange 'new' .*refused",
        ),
    ],
    ids=["password", "user", "no virtual host", "another's virtual host", "may not write", "may not create"],
)
async def test_what_the_broker_refuses_breaks_the_sink_and_shows_no_password(
    node: Node, user: str, virtual_host: str, permissions: str, options: dict[str, Any], message: str
) -> None:
    node.ctl("set_permissions", "writer", permissions, permissions, permissions)
    sink = sink_at(f"amqp://{user}@127.0.0.1:{node.port}/{virtual_host}", **options)
    with pytest.raises(SinkBroken, match=message) as caught:
        await _open_and_write(sink)
    await sink.close()
    assert CANARY not in said(caught.value)


async def _open_and_write(sink: AmqpSink) -> None:
    await sink.open()
    await sink.write(make_records(1))


async def test_no_error_of_a_connection_shows_the_password(node: Node) -> None:
    errors: list[SinkError] = []
    for address in ("127.0.0.1:1", "nowhere.invalid", f"127.0.0.1:{node.tls_port}"):
        sink = sink_at(f"amqp://writer:{CANARY}@{address}/")
        with pytest.raises(SinkUnavailable) as caught:
            await sink.open()
        errors.append(caught.value)
        await sink.close()
    assert CANARY not in "".join(map(said, errors))


@pytest.mark.parametrize("where", [0, 2, 4])
async def test_a_message_too_large_is_refused_and_the_others_are_written(place: Place, where: int) -> None:
    batch = [status(number, "short") for number in range(1, 5)]
    batch.insert(where, status(9, "x" * LARGEST_BYTES))
    sink = sink_at(place.url, place.name)
    for _ in range(2):  # a limit that was raised meanwhile would be seen
        with pytest.raises(SinkRejected) as caught:
            await sink.write(batch)
        reason = f"{len(batch[where].payload)} bytes; the broker takes {LARGEST_BYTES} (its max_message_size)"
        assert caught.value.rejected == {batch[where].id: reason}
    await sink.write(others := [record for record in batch if record is not batch[where]])
    await sink.close()
    # Those before it may have been taken before the broker closed the channel, and come again.
    found = place.ids()
    assert found[-4:] == ids(others)
    assert set(found) == set(ids(others))


async def test_an_alarm_of_the_broker_is_waited_for_with_a_bound(
    node: Node, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_records(3)
    sink = sink_at(place.url, place.name)
    await sink.open()
    node.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        monkeypatch.setattr(amqp, "CONFIRM_TIMEOUT_S", 0.5)
        for _ in range(2):
            with pytest.raises(SinkUnavailable, match="blocks publishers: it is short of memory or disk"):
                await sink.write(batch)
    finally:
        monkeypatch.undo()
        node.ctl("set_vm_memory_high_watermark", "0.4")
    await sink.write(batch)
    await sink.close()
    found = place.ids()
    assert found[-3:] == ids(batch)
    assert set(found) == set(ids(batch))


async def test_connections_closed_by_an_operator_come_back(node: Node, place: Place) -> None:
    records = make_records(4)
    sink = sink_at(place.url, place.name)
    await sink.write(records[:2])
    node.ctl("close_all_connections", "maintenance")
    try:
        await sink.write(records[2:])
    except SinkUnavailable:
        await sink.write(records[2:])
    await sink.close()
    assert place.ids() == ids(records)


async def test_over_tls_with_an_authority_of_ones_own(node: Node, place: Place) -> None:
    batch = make_records(3)
    sink = sink_at(f"amqps://guest:guest@127.0.0.1:{node.tls_port}/", place.name, ca=node.ca)
    await sink.open()
    await sink.write(batch)
    await sink.close()
    assert place.ids() == ids(batch)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_certificate_that_is_not_to_be_trusted_is_refused(
    node: Node, tmp_path: Path, host: str
) -> None:
    (tmp_path / "other.pem").write_text(Authority(tmp_path)._pem)
    ca = tmp_path / "other.pem" if host == "127.0.0.1" else node.ca  # it is not for the name localhost
    sink = sink_at(f"amqps://guest:guest@{host}:{node.tls_port}/", ca=ca)
    with pytest.raises(SinkBroken, match="the broker's certificate is refused"):
        await sink.open()
    await sink.close()
