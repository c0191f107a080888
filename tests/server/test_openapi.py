"""The API's description is valid, names every path, and every real answer is of the shape that it says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from poller.metrics import Metrics
from poller.overview import Check, HistoryPoint
from poller.secrets import Secret
from poller.server.answers import Refused
from poller.server.openapi import OPERATIONS, openapi_document
from poller.server.serving import Server
from poller.server.settings import ServerSettings
from poller.testing.overview import InMemoryOverview
from poller.testing.virtual_time import VirtualClock
from tests.server.conftest import DATA, TOKEN, Answer, Client

Serve = Callable[..., Awaitable[Client]]
NOT_FOR_PROGRAMS = {"/", "/account/{name}", "/static/{file}", "/favicon.ico"}


def closed(schema: Any) -> Any:
    """Return the schema without room for what it does not name."""
    if isinstance(schema, list):
        return [closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    return {**found, "additionalProperties": False} if "properties" in found else found


def test_it_is_a_valid_openapi_document() -> None:
    OpenAPIV31SpecValidator(openapi_document()).validate()


async def test_it_describes_every_path(clock: VirtualClock) -> None:
    server = Server(InMemoryOverview(), Metrics(), clock, ServerSettings(listen_port=0), token=Secret(TOKEN))
    assert {operation.path for operation in OPERATIONS} == set(server._routes.paths) - NOT_FOR_PROGRAMS


def test_everything_is_described_in_words() -> None:
    document = openapi_document()
    for path, item in document["paths"].items():
        operation = item["get"]
        assert operation["summary"].endswith("."), path
        assert len(operation["responses"]) >= 5
        for parameter in operation.get("parameters", ()):
            assert parameter["description"].endswith("."), (path, parameter["name"])
        assert [name for name in ("name",) if "{name}" in path] == [
            parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"
        ]
    identifiers = [
        operation["operationId"] for item in document["paths"].values() for operation in item.values()
    ]
    assert len(set(identifiers)) == len(identifiers)
    for schema in document["components"]["schemas"].values():
        assert schema["description"]


class Held:
    """Answers held against the description that the same server gives."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = closed(document)
        self.tried: set[tuple[str, str, str]] = set()

    def check(self, path: str, answer: Answer, method: str = "get") -> None:
        described = self._document["paths"][path][method]["responses"][str(answer.status)]
        if answer.status == 303:
            assert (answer.body, "content" in described) == (b"", False)
            self.tried.add((path, method, "303"))
            return
        content = described["content"][answer.headers["Content-Type"].partition(";")[0]]
        schema = {**content["schema"], "components": self._document["components"]}
        is_json = answer.headers["Content-Type"] == "application/json"
        jsonschema.Draft202012Validator(schema).validate(answer.json() if is_json else answer.body.decode())
        self.tried.add((path, method, str(answer.status)))


@pytest.mark.real_time
async def test_every_answer_is_of_the_shape_that_is_described(
    serve: Serve, overview: InMemoryOverview
) -> None:
    async def history(name: str, asset: str | None, since_s: float) -> list[HistoryPoint] | None:
        if asset == "BUSY":
            raise TimeoutError
        if asset == "LOST":
            raise Refused(503, "history.db: not a database")
        return None if name != DATA else [HistoryPoint("2026-01-01T00:00:00Z", None, "1.5", 7)]

    wrong = ""
    client = await serve(overview, history=history, is_alive=lambda: wrong)
    held = Held((await client.get("/api/openapi.json")).json())
    targets = {
        operation.path: operation.path.replace("{name}", DATA)
        for operation in OPERATIONS
        if operation.path != "/api/events"
    }
    for path, target in targets.items():
        held.check(path, await client.get(target))
        held.check(path, await client.ask("GET", target, host="evil.example"))
        held.check(path, await client.ask("POST", target))
        held.check(path, await client.get(target, Origin="http://evil.example"))
        if path.startswith("/api/") and path != "/api/openapi.json":
            held.check(path, await client.get(f"{target}?nothing=1"))
    for path in ("/api/accounts/{name}", "/api/accounts/{name}/history"):
        held.check(path, await client.get(path.replace("{name}", "nobody")))
    for asset in ("BUSY", "LOST"):
        target = f"/api/accounts/{DATA}/history?asset={asset}"
        held.check("/api/accounts/{name}/history", await client.get(target))
    wrong = "stuck"
    overview.set_status(ready=[Check("outbox", ok=False, text="full")])
    held.check("/livez", await client.get("/livez"))
    held.check("/readyz", await client.get("/readyz"))
    closed_client = await serve(overview, token=TOKEN)
    for path, target in targets.items():
        held.check(path, await closed_client.get(target))
    held.check("/login", await client.get("/login"))
    held.check("/login", await closed_client.get("/login"))
    held.check("/login", await client.get("/login", Origin="null"))
    held.check("/login", await client.ask("GET", "/login", host="evil.example"))
    held.check("/login", await client.ask("PUT", "/login"))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for headers, body in [
        (form, f"token={TOKEN}".encode()),
        ({}, b"{}"),
        (form, b"x" * 1_025),
        (form, b"x"),
        ({**form, "Origin": "null"}, b"x"),
        ({**form, "Accept": "text/html"}, b"token=wrong"),
        *[(form, b"token=wrong")] * 10,
    ]:
        answer = await closed_client.ask("POST", "/login", headers=headers, body=body)
        held.check("/login", answer, "post")
    held.check("/login", await closed_client.ask("POST", "/login", host="evil.example"), "post")
    expected = {
        (path, method, status)
        for path, item in openapi_document()["paths"].items()
        if path != "/api/events"
        for method in item
        for status in item[method]["responses"]
    }
    # 400 is also said of what is no request at all, which no path is tried for; 408 has a test of its own.
    assert {(method, status) for _, method, status in expected - held.tried} == {
        ("get", "400"),
        ("post", "408"),
    }


def test_a_wrong_answer_would_be_found() -> None:
    held = Held(openapi_document())
    for body in (b'[{"at": "now"}]', b'[{"at":"now","total":1.5,"total_btc":null,"sequence":1}]', b"{}"):
        with pytest.raises(jsonschema.ValidationError):
            held.check(
                "/api/accounts/{name}/history", Answer(200, {"Content-Type": "application/json"}, body)
            )
