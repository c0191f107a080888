"""Options of the postgres sink, what it makes of its URL, and the SQL that it writes. Without a server."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from poller.errors import SinkBroken
from poller.model import Kind, Record
from poller.secrets import Secret
from poller.sinks import Channel
from poller.sinks.postgres import PostgresOptions, PostgresSink
from poller.sinks.postgres_rows import NO_NUL, rows
from poller.sinks.postgres_tables import NAME_BYTES, literal, quoted, script
from poller.sinks.postgres_url import Address, encryption, parse
from poller.sinks.tls import TlsOptions
from poller.testing.sink_contract import hostile_records, ids, make_records

CANARY = "canary-9f3b7c2e81d4"


def options(**given: Any) -> PostgresOptions:
    url = given.pop("url", "postgresql://db.example/history")
    return PostgresOptions.model_validate({"url": Secret(url), **given})


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://db.example/history", Address((("db.example", 5432),), database="history")),
        ("postgres://db.example:6432", Address((("db.example", 6432),))),
        (
            "postgresql://us%65r:p%40ss%2Fword@[::1]:5433/h%20y?sslmode=verify-full&application_name=desk",
            Address((("::1", 5433),), "user", "p@ss/word", "h y", "verify-full", application="desk"),
        ),
        ("postgresql://user@db/x", Address((("db", 5432),), "user", None, "x")),
        ("postgresql://user:@db/x", Address((("db", 5432),), "user", "", "x")),
        ("postgresql://u:p@ss@db/x", Address((("db", 5432),), "u", "p@ss", "x")),
        (
            "postgresql://a:1,b:2,c/x",
            Address((("a", 1), ("b", 2), ("c", 5432)), database="x", attributes="read-write"),
        ),
        (
            "postgresql://a,b/x?target_session_attrs=any",
            Address((("a", 5432), ("b", 5432)), database="x", attributes="any"),
        ),
        ("postgresql:///x?host=/run/postgresql", Address((("/run/postgresql", 5432),), database="x")),
        ("postgresql://%2Frun%2Fpostgresql/x", Address((("/run/postgresql", 5432),), database="x")),
        ("postgresql:///x?host=db&port=7", Address((("db", 7),), database="x")),
    ],
)
def test_urls_are_understood(url: str, address: Address) -> None:
    assert parse(Secret(url)) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"{CANARY}", "begin with postgresql://"),
        (f"mysql://u:{CANARY}@db/x", "begin with postgresql://"),
        (f"postgresql://u:{CANARY}#@db/x", "write # as %23"),
        (f"postgresql://u:{CANARY}/@db/x", "cannot be read; write HOST:5432"),
        (f"postgresql://u:{CANARY}?@db/x", "cannot be read"),
        ("postgresql://u:123/4@db/x", "cannot be read"),
        (f"postgresql://u:{CANARY}@[db/x", "cannot be read"),
        (f"postgresql://u:{CANARY}@db:99999/x", "cannot be read"),
        (f"postgresql://u:{CANARY}@db:0/x", "cannot be read"),
        (f"postgresql://u:{CANARY}@a,,b/x", "cannot be read"),
        (f"postgresql://u:{CANARY}@/x", "names no host"),
        (f"postgresql://u:{CANARY}@db/x?sslmode=full", "sslmode in it has to be one of disable, allow"),
        (
            f"postgresql://u:{CANARY}@db/x?target_session_attrs=standby",
            "has to be one of any, primary, read-write",
        ),
        (f"postgresql://u@db/x?password={CANARY}", "'password' cannot stand in it; write it before the host"),
        (f"postgresql://u:{CANARY}@db/x?sslrootcert=ca.pem", "write it as the option 'ca'"),
        (f"postgresql://u@db/x?{CANARY}=1", "only sslmode, host, port"),
    ],
)
def test_urls_that_cannot_be_used_are_refused_without_being_repeated(url: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as failed:
        options(url=url)
    for problem in failed.value.errors(include_input=False):
        assert CANARY not in str(problem)


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8")))
def test_no_password_is_ever_shown(user: str, password: str) -> None:
    url = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@db.example/x"
    address = parse(Secret(url))
    assert (address.user, address.password) == (user, password)
    assert str(address) == "db.example:5432/x"
    assert repr(address) == repr(Address(address.servers, user, "other", "x"))


def test_encryption_means_what_sslmode_means(tmp_path: Path) -> None:
    def found(mode: str | None, given: TlsOptions) -> ssl.SSLContext | str | bool:
        return encryption(Address((("db", 1),), sslmode=mode), given)

    none = TlsOptions()
    assert found("disable", none) is False
    assert found(None, none) == "prefer"
    assert found("allow", none) == "allow"
    for mode, checks_name, mode_of_check in (
        ("require", False, ssl.CERT_NONE),
        ("verify-ca", False, ssl.CERT_REQUIRED),
        ("verify-full", True, ssl.CERT_REQUIRED),
    ):
        context = found(mode, none)
        assert isinstance(context, ssl.SSLContext)
        assert (context.check_hostname, context.verify_mode) == (checks_name, mode_of_check)
    with pytest.raises(SinkBroken, match="there is no such file"):
        found(None, TlsOptions(ca=tmp_path / "gone.pem"))


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_files_for_tls_and_a_url_without_it_contradict_each_other(mode: str) -> None:
    with pytest.raises(ValidationError, match=f"sslmode={mode} in 'url' does not; write sslmode=verify-full"):
        options(url=f"postgresql://db/x?sslmode={mode}", ca="ca.pem")


def test_a_stand_in_for_the_url_is_taken() -> None:
    sink = PostgresSink(options(url="", ca="ca.pem"))
    assert sink.channel() == Channel("postgresql", "", "poller.snapshots")


def test_the_channel_names_the_servers_and_no_user() -> None:
    sink = PostgresSink(options(url=f"postgresql://u:{CANARY}@a,[::1]:6432/x", schema="desk"))
    assert sink.channel() == Channel("postgresql", "a:5432,[::1]:6432", "desk.snapshots")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("", "at least one character"),
        ("a\0b", "NUL"),
        ("é" * 32, "63 bytes"),
        ("pg_catalog", "belong to PostgreSQL"),
    ],
)
def test_schemas_that_cannot_be_are_refused(schema: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        options(schema=schema)
    with pytest.raises(ValueError, match=words):
        script(schema)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=NAME_BYTES // 4))
def test_quoting_can_be_undone(text: str) -> None:
    name, value = quoted(text), literal(text)
    assert name[0] == name[-1] == '"'
    assert name[1:-1].replace('""', "") == text.replace('"', "")
    assert name[1:-1].replace('""', '"') == text
    assert value.startswith("E'")
    assert value.endswith("'")
    assert value[2:-1].replace("''", "'").replace("\\\\", "\\") == text


def test_records_go_as_they_are_and_each_once() -> None:
    batch = [*make_records(3), *make_records(2)]
    found = rows(batch)
    assert not found.rejected
    sent = orjson.loads(found.snapshots)
    assert [row["record"] for row in sent] == [record.document for record in batch[:3]]
    assert [row["position"] for row in sent] == [1, 2, 3]
    assert found.statuses == "[]"


def test_only_nul_is_replaced() -> None:
    batch = hostile_records()
    found = rows(batch)
    assert not found.rejected
    sent = [row["record"] for text in (found.snapshots, found.statuses) for row in orjson.loads(text)]
    assert [row["id"] for row in sent] == ids(batch)
    for record, row in zip(batch, sent, strict=True):
        assert orjson.dumps(row).replace(NO_NUL.encode(), b"\\u0000") == record.payload


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
)
def test_whatever_is_no_record_is_refused_by_its_id(document: object) -> None:
    for kind in Kind:
        payload = orjson.dumps(document) if _fits(document) else b"{"
        bad = Record("an-id", kind, "treasury", 1, "changed", payload)
        found = rows([*make_records(1), bad])
        assert found.rejected.keys() == {"an-id"}
        assert len(orjson.loads(found.snapshots)) == 1


def _fits(document: object) -> bool:
    try:
        orjson.dumps(document)
    except TypeError:  # integers and texts that JSON cannot have here
        return False
    return True
