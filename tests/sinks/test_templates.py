"""Names with fields of the record: exact values, and nothing in a record that breaks out."""

from __future__ import annotations

import re
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from poller.model import Account, Record, State
from poller.records import status_record
from poller.sinks.templates import Template, spelled
from poller.testing.sink_contract import START_NS, hostile_records, make_records


def labelled(**labels: str) -> Record:
    [record] = make_records(1)
    return replace(record, payload=orjson.dumps({**record.document, "labels": labels}))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("balances", "balances"),
        ("balances.{account}", "balances.treasury"),
        ("{kind}/{account}/{reason}", "snapshot/treasury/changed"),
        ("{labels.desk}.{date}", "mm.2026-01-01"),
        ("{labels.nobody}", "_"),
    ],
)
def test_fields_become_what_the_record_says(text: str, name: str) -> None:
    [record] = make_records(1)
    assert Template(text).render(record) == name


def test_a_status_has_the_same_fields() -> None:
    record = status_record(
        Account("sub-1", 60.0), id="i", sequence=1, state=State.STALE, reason="a b", since_ns=START_NS
    )
    assert Template("{kind}.{account}.{reason}.{date}").render(record) == "status.sub-1.stale.2026-01-01"


@pytest.mark.parametrize(
    "label", ["a.b", "a/b", "a b", "a*", "#", "+", ">", '"', "'", "\n", "\0", "é", "../x", "$"]
)
def test_what_could_break_out_becomes_an_underscore(label: str) -> None:
    name = Template("{labels.desk}").render(labelled(desk=label))
    assert re.fullmatch(r"[A-Za-z0-9_-]+", name)
    assert "_" in name


@given(st.text())
def test_no_label_adds_a_part_to_a_name(label: str) -> None:
    name = Template("x.{labels.desk}.y").render(labelled(desk=label))
    assert re.fullmatch(r"x\.[A-Za-z0-9_-]{1,64}\.y", name)


def test_hostile_records_have_names_too() -> None:
    for record in hostile_records():
        assert re.fullmatch(r"[a-z]+\.[A-Za-z0-9_-]+", Template("{kind}.{labels.label}").render(record))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{acount}", "there is no field {acount}; write {account}, {kind}, {reason}, {date}, {labels.NAME}"),
        ("{labels.}", "there is no field {labels.}"),
        ("{account.__class__}", "there is no field {account.__class__}"),
        ("{}", "there is no field {}"),
        ("a{", "a brace without its counterpart in 'a{'"),
        ("a}b", "a brace without its counterpart in 'a}b'"),
        ("{{account}}", "a brace without its counterpart in '{'"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Template(text)


class _Options(BaseModel):
    name: Template = Template("x")


def test_it_is_an_options_type() -> None:
    assert _Options.model_validate({"name": "a.{kind}"}).name == Template("a.{kind}")
    with pytest.raises(ValidationError, match="there is no field"):
        _Options.model_validate({"name": "{x}"})
    with pytest.raises(ValidationError):
        _Options.model_validate({"name": ""})
    with pytest.raises(ValidationError):
        _Options.model_validate({"name": 5})


def test_literals_are_held_against_a_spelling() -> None:
    check = spelled(r"[a-z.]*", "a subject", longest_bytes=80)
    assert check(Template("a.{account}")) == Template("a.{account}")
    with pytest.raises(ValueError, match=re.escape("'a b' cannot be a subject")):
        check(Template("a b"))
    with pytest.raises(ValueError, match=re.escape("can have 80 bytes; '{account}{kind}' may have 128")):
        check(Template("{account}{kind}"))
