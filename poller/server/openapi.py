"""The API described, as an OpenAPI 3.1 document; its schemas come from the documents' own types."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, get_args

from pydantic import TypeAdapter

from poller import __version__
from poller.overview import (
    AccountDetail,
    AccountState,
    AccountSummary,
    Check,
    EgressSeen,
    Happening,
    HistoryPoint,
    SinkSeen,
    Status,
)
from poller.server.queries import (
    AGE,
    DEFAULT_ACCOUNTS,
    MOST_ACCOUNTS,
    MOST_CHARACTERS,
    MOST_SINCE_S,
    SORTS,
    WEEK_S,
)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Some of the accounts.

    Attributes:
        at: when this was written.
        total: how many match, of which these are a part.
    """

    at: str
    total: int
    accounts: Sequence[AccountSummary]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the daemon does what it is there for. ``ready`` is true if all checks are ok."""

    ready: bool
    checks: Sequence[Check]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer."""

    error: str


_SEEN: Final[tuple[Any, ...]] = (
    Accounts,
    AccountSummary,
    AccountDetail,
    EgressSeen,
    SinkSeen,
    Happening,
    HistoryPoint,
    Status,
    Readiness,
    Failure,
)
_NAME: Final = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The account's name.",
    "schema": {"type": "string"},
}
_REFUSED: Final = {
    "400": "The request makes no sense; the text says what to write.",
    "401": "A token is wanted: as 'Authorization: Bearer TOKEN', or the cookie that /login gives.",
    "403": "The request comes from the page of another site.",
    "405": "Only GET and HEAD are known.",
    "421": "The server is not known under the name in Host.",
}


def _of(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _of(name)}


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_TEXT: Final = {"type": "string", "maxLength": MOST_CHARACTERS}
_ACCOUNT_PARAMETERS: Final = [
    _query("state", "Only accounts in this state.", {"type": "string", "enum": list(get_args(AccountState))}),
    _query("egress", "Only accounts that are polled from this address.", _TEXT),
    _query(
        "label",
        "Only accounts with this label, as NAME=TEXT; may be repeated.",
        {"type": "array", "items": {"type": "string"}},
    ),
    _query("q", "Only accounts with this in their name or in a label, in upper or lower case.", _TEXT),
    _query(
        "sort",
        "What to sort by, descending with a '-' before it; the configuration's order if it is left out. "
        "What is not known comes last.",
        {"type": "string", "enum": [sign + name for name in (*SORTS, AGE) for sign in ("", "-")]},
    ),
    _query(
        "limit",
        "How many at most.",
        {"type": "integer", "minimum": 1, "maximum": MOST_ACCOUNTS, "default": DEFAULT_ACCOUNTS},
    ),
    _query("offset", "How many to leave out first.", {"type": "integer", "minimum": 0, "default": 0}),
]
_HISTORY_PARAMETERS: Final = [
    _query("asset", "The asset, such as BTC; the account's whole value if it is left out.", _TEXT),
    _query(
        "since_s",
        "How many seconds to go back.",
        {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_SINCE_S, "default": WEEK_S},
    ),
]


@dataclass(frozen=True, slots=True)
class _Operation:
    """One path with what it answers. Paths that are not for programs are left out."""

    path: str
    summary: str
    schema: dict[str, Any]
    content_type: str = "application/json"
    parameters: Sequence[dict[str, Any]] = ()
    errors: tuple[tuple[str, str], ...] = ()
    is_open: bool = False


_NO_ACCOUNT: Final = ("404", "There is no account of that name.")
_STRING: Final = {"type": "string"}
OPERATIONS: Final = (
    _Operation(
        "/livez",
        "Whether the daemon's loop turns.",
        _STRING,
        "text/plain",
        errors=(("503", "It does not do its work; the text says why to those who may know."),),
        is_open=True,
    ),
    _Operation(
        "/readyz",
        "Whether the daemon does what it is there for; to those without the token one word of text.",
        _of("Readiness"),
        errors=(("503", "Some check is not ok."),),
        is_open=True,
    ),
    _Operation(
        "/metrics", "The metrics, for Prometheus; as OpenMetrics if that is accepted.", _STRING, "text/plain"
    ),
    _Operation("/api/status", "The whole daemon at a glance.", _of("Status")),
    _Operation("/api/accounts", "Accounts at a glance.", _of("Accounts"), parameters=_ACCOUNT_PARAMETERS),
    _Operation(
        "/api/accounts/{name}",
        "One account, whole.",
        _of("AccountDetail"),
        parameters=[_NAME],
        errors=(_NO_ACCOUNT,),
    ),
    _Operation(
        "/api/accounts/{name}/history",
        "What an account held over time, oldest first.",
        _list_of("HistoryPoint"),
        parameters=[_NAME, *_HISTORY_PARAMETERS],
        errors=(
            ("404", "There is no account of that name, or no history is kept."),
            ("503", "The history cannot be read now."),
            ("504", "It could not be read in time."),
        ),
    ),
    _Operation("/api/egress", "Every egress address.", _list_of("EgressSeen")),
    _Operation("/api/sinks", "Every sink.", _list_of("SinkSeen")),
    _Operation(
        "/api/happenings",
        "What happened, oldest first; at most the last 500.",
        _list_of("Happening"),
        parameters=[
            _query(
                "after", "The number of the last one known.", {"type": "integer", "minimum": 0, "default": 0}
            )
        ],
    ),
    _Operation(
        "/api/events",
        "All of this as server-sent events: 'hello', then 'egress', 'sinks', 'status' and 'fleet' with "
        "everything, then each with what changed; and each 'happening' under its number as id.",
        _STRING,
        "text/event-stream",
        parameters=[
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "The number of the last happening known: those after it come first.",
                "schema": {"type": "integer", "minimum": 0},
            }
        ],
        errors=(
            ("503", "As many as there may be are listening already; Retry-After says when to try again."),
        ),
    ),
    _Operation("/api/openapi.json", "This document.", {"type": "object"}),
)


_HTML: Final = {"text/html": {"schema": _STRING}}
_FAILURE: Final = {"application/json": {"schema": _of("Failure")}}
_IN: Final = {"description": "Go to the page: a cookie says who you are, or no token is wanted."}
# The one path that is not only read: it begins a session, and changes nothing else.
_LOGIN: Final = {
    "get": {
        "operationId": "login",
        "summary": "A form that takes the token, for browsers.",
        "security": [],
        "responses": {
            "200": {"description": "The form.", "content": _HTML},
            "303": _IN,
            **{
                status: {"description": _REFUSED[status], "content": _FAILURE}
                for status in ("400", "403", "405", "421")
            },
        },
    },
    "post": {
        "operationId": "log_in",
        "summary": "Begin a session of twelve hours.",
        "security": [],
        "requestBody": {
            "required": True,
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "properties": {"token": _STRING},
                        "required": ["token"],
                    }
                }
            },
        },
        "responses": {
            "303": _IN,
            "401": {"description": "This is not the token.", "content": {**_FAILURE, **_HTML}},
            **{
                status: {"description": description, "content": _FAILURE}
                for status, description in (
                    ("400", "This is no form with one token."),
                    ("403", _REFUSED["403"]),
                    ("408", "The form did not come in time."),
                    ("413", "The form is too long."),
                    ("415", "This is no form."),
                    ("421", _REFUSED["421"]),
                    ("429", "Too many wrong tokens; Retry-After says when to try again."),
                )
            },
        },
    },
}


@cache
def openapi_document() -> dict[str, Any]:
    """Return the document. The first call takes some ten milliseconds."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "poller",
            "version": __version__,
            "description": "What there is to see of a running poller. Nothing can be changed here. "
            "Times are UTC in RFC 3339, amounts are text in plain notation.",
        },
        "security": [{"token": []}, {"session": []}, {}],
        "paths": {
            **{operation.path: {"get": _described(operation)} for operation in OPERATIONS},
            "/login": _LOGIN,
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "poller_session"},
            },
        },
    }


def _described(operation: _Operation) -> dict[str, Any]:
    errors = {**_REFUSED, **dict(operation.errors)}
    if operation.is_open:
        del errors["401"]
    responses: dict[str, Any] = {
        "200": {
            "description": operation.summary,
            "content": {operation.content_type: {"schema": operation.schema}},
        }
    }
    for status, description in sorted(errors.items()):
        responses[status] = {
            "description": description,
            "content": {"application/json": {"schema": _of("Failure")}},
        }
    if operation.is_open:
        # What is wrong has the same form as what is right, and one word for those without the token.
        responses["503"]["content"] = {
            operation.content_type: {"schema": operation.schema},
            "text/plain": {"schema": _STRING},
        }
        responses["200"]["content"]["text/plain"] = {"schema": _STRING}
    words = [word for word in operation.path.removesuffix(".json").replace("/api", "").split("/") if word]
    described: dict[str, Any] = {
        "operationId": "_".join(word.strip("{}") for word in words),
        "summary": operation.summary,
        "responses": responses,
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    return described


def _schemas() -> dict[str, Any]:
    template = "#/components/schemas/{model}"
    _, document = TypeAdapter.json_schemas(
        [(seen, "serialization", TypeAdapter(seen)) for seen in _SEEN], ref_template=template
    )
    schemas: dict[str, Any] = dict(document["$defs"])
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return schemas
