"""The formats of messages: the record's own bytes, wherever they travel."""

from __future__ import annotations

import orjson
import pytest
from pydantic import ValidationError

from poller.records import read_record
from poller.sinks.messages import MessageOptions, message
from poller.testing.sink_contract import hostile_records, make_records


def test_json_is_the_record_and_its_identity() -> None:
    [record] = make_records(1)
    sent = message(record, MessageOptions())
    assert sent.body == record.payload
    assert sent.content_type == "application/json"
    assert sent.attributes == {
        "id": record.id,
        "schema": "poller.snapshot/1",
        "account": "treasury",
        "sequence": "1",
    }


def test_a_structured_event_holds_the_record_byte_for_byte() -> None:
    for record in [*make_records(1), *hostile_records()]:
        sent = message(record, MessageOptions(format="cloudevents", source="/desk"))
        assert sent.content_type == "application/cloudevents+json"
        assert record.payload in sent.body
        event = orjson.loads(sent.body)
        read_record(orjson.dumps(event.pop("data")))
        time = record.document.get("observed_at") or record.document["since"]
        assert event == {
            "specversion": "1.0",
            "id": record.id,
            "source": "/desk",
            "type": record.kind.schema,
            "subject": record.account,
            "time": time,
            "sequence": str(record.sequence),
            "partitionkey": record.account,
            "datacontenttype": "application/json",
        }


def test_a_binary_event_is_the_record_with_attributes_beside_it() -> None:
    for record in hostile_records():
        sent = message(record, MessageOptions(format="cloudevents-binary"))
        assert (sent.body, sent.content_type) == (record.payload, "application/json")
        assert {"specversion", "id", "source", "type"} <= sent.attributes.keys()  # what the standard requires
        assert all(name.isalnum() and name.islower() for name in sent.attributes)
        assert all(value.isascii() and value.isprintable() for value in sent.attributes.values())


def test_a_source_is_a_reference() -> None:
    with pytest.raises(ValidationError):
        MessageOptions(source="a b")
    with pytest.raises(ValidationError):
        MessageOptions(source="line\nbreak")
