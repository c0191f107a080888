"""Options of the webhook sink, and what answers mean: all that needs no connection."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest
from pydantic import ValidationError

from poller.errors import SinkBroken, SinkUnavailable
from poller.secrets import Secret
from poller.sinks.webhook import WebhookSink
from poller.sinks.webhook_answers import Answer, Failed, Refused, judge
from poller.sinks.webhook_options import WebhookOptions
from tests.sinks.test_peers import INSIDE
from tests.test_webhooks import ED25519_SECRET, SECRET

NOW_S = 1_767_225_600


def options(url: str = "https://example.com/hook", **others: Any) -> WebhookOptions:
    return WebhookOptions(**{"url": Secret(url), "secret": Secret(SECRET), **others})


def wrong(**others: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        options(**others)
    return str(caught.value)


def test_options_are_checked_without_their_secrets() -> None:
    nothing = Secret("")
    unread = WebhookOptions(url=nothing, secret=nothing, previous_secret=nothing, credential=nothing)
    assert WebhookSink(unread).channel().protocol == "https"


def test_the_channel_shows_no_token() -> None:
    channel = WebhookSink(options("https://example.com/hook/T0ken?key=T0ken")).channel()
    assert (channel.protocol, channel.host, channel.address) == ("https", "example.com:443", "/")
    assert "T0ken" not in repr(channel)


def test_either_kind_of_key_signs() -> None:
    options(secret=Secret(ED25519_SECRET), previous_secret=Secret(SECRET))


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ({"secret": Secret("canary")}, "begins with whsec_"),
        ({"previous_secret": Secret("whsec_canary")}, "not Base64"),
        ({"credential": Secret("canary\r\nX: 1")}, "one line of ASCII"),
        ({"credential_header": "Webhook-Id"}, "cannot be the header of a credential"),
        ({"credential_header": "content-type"}, "cannot be the header of a credential"),
        ({"credential_header": "X: 1"}, "cannot be the header of a credential"),
        ({"allow_private": ["10.1.2.3/8"]}, "is not a network"),
        ({"url": "http://localhost/", "ca": "ca.pem"}, "are for https"),
        ({"url": "https://10.0.0.1/"}, "list its network in 'allow_private'"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"timeout": "10"}, "is not a duration"),
    ],
)
def test_what_is_wrong_is_said_at_load(others: dict[str, Any], says: str) -> None:
    text = wrong(**others)
    assert says in text
    assert "canary" not in text


@pytest.mark.parametrize(
    "address", [each for each in INSIDE if each not in {"127.0.0.1", "127.1.2.3", "::1"}]
)
def test_private_addresses_are_refused_at_load(address: str) -> None:
    host = f"[{address.replace('%', '%25')}]" if ":" in address else address
    assert "Value error" in wrong(url=f"https://{host}/")


def test_a_listed_network_is_not() -> None:
    options("https://10.1.2.3/", allow_private=["10.1.0.0/16"])


# Answers


def failed(status: int, **headers: str) -> Failed:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    outcome = judge(Answer(status, names, "no"), "example.com", NOW_S * 10**9)
    assert isinstance(outcome, Failed)
    return outcome


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_success_is_delivered(status: int) -> None:
    assert judge(Answer(status, {}), "example.com", 0) is None


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_wrong_record_is_refused(status: int) -> None:
    assert judge(Answer(status, {}, "no"), "example.com", 0) == Refused(f"example.com answered {status}: no")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 401, 403, 404, 405, 410])
def test_what_somebody_has_to_repair_ends_everything(status: int) -> None:
    outcome = failed(status)
    assert isinstance(outcome.error, SinkBroken)
    assert (outcome.is_for_all, outcome.is_gone) == (True, status == 410)


@pytest.mark.parametrize("status", [100, 402, 408, 409, 418, 425, 429, 451, 500, 502, 503, 504, 599, 999])
def test_what_is_not_known_passes(status: int) -> None:
    outcome = failed(status)
    assert isinstance(outcome.error, SinkUnavailable)
    assert outcome.error.retry_after_s is None
    assert outcome.is_for_all is (status in {425, 429})


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999999", 999_999_999.0),
        (formatdate(NOW_S + 90, usegmt=True), 90.0),
        (formatdate(NOW_S - 90, usegmt=True), 0.0),
        ("-1", None),
        ("1e9", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, wait_s: float | None) -> None:
    outcome = failed(503, retry_after=value)
    assert isinstance(outcome.error, SinkUnavailable)
    assert outcome.error.retry_after_s == wait_s
    assert outcome.is_for_all is (wait_s is not None)


def test_a_date_counts_from_the_answers_own() -> None:
    at = {"retry_after": formatdate(1090, usegmt=True), "date": formatdate(1000, usegmt=True)}
    outcome = failed(503, **at)
    assert isinstance(outcome.error, SinkUnavailable)
    assert outcome.error.retry_after_s == 90.0


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("https://elsewhere.example/canary?canary", "to elsewhere.example"),
        ("https://canary@elsewhere.example/", "to elsewhere.example"),
        ("/canary", "to another place of its own"),
        ("https://[canary", "to another place of its own"),
    ],
)
def test_a_redirect_names_the_host_and_no_more(location: str, named: str) -> None:
    text = str(failed(308, location=location).error)
    assert f"a redirect {named}; none is followed" in text
    assert "canary" not in text
