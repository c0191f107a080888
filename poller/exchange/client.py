"""The exchange as the poller sees it: one method for each question, answers as values.

It knows of no budget: whoever calls has paid for the request, and repeats none without paying again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from poller.clock import NS_PER_S, Clock
from poller.errors import BadAnswer, KeyExchanged, NoKey, NoResponse, PollError, Scope, StaleConnection
from poller.exchange import payload
from poller.exchange.normalise import normalise
from poller.exchange.request import (
    API_RESTRICTIONS,
    SERVER_TIME,
    SUB_ACCOUNTS,
    SYSTEM_STATUS,
    USER_ASSETS,
    Endpoint,
    Request,
    sign,
    unsigned,
)
from poller.exchange.response import Response, error_in, sanitized, used_weight
from poller.exchange.server_time import MS_PER_S, Sample, ServerTime
from poller.exchange.signing import Credentials
from poller.exchange.transport import Transport
from poller.exchange.unreachable import Unreachable
from poller.metrics import Metrics
from poller.model import Account, Snapshot

TIME_SAMPLES: Final = 4  # the first opens the connection, and the quickest of the others is likely good
PAGE_ROWS: Final = 200  # sub-accounts on one page: the most that the exchange gives
_EMAIL_CHARACTERS: Final = 320
_EARLIEST_MS: Final = 1_500_000_000_000  # 2017, when the exchange began
_LATEST_MS: Final = 10_000_000_000_000  # 2286


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one poll.

    Attributes:
        outcome: the account's holdings, or why they are not known.
        used_weight: of the endpoint's weight on this address, as the exchange said; ``None`` if it did not.
        sent_s: monotonic seconds when the request went out, or, of one that failed, was begun.
        answered_s: monotonic seconds at the end of the answer, or of the attempt.
    """

    outcome: Snapshot | PollError
    used_weight: int | None
    sent_s: float
    answered_s: float


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """How the exchange says it is doing. ``message`` is its own word, fit for a log."""

    normal: bool
    message: str


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What a key may do.

    Attributes:
        reading: it may read, which is all the poller needs.
        ip_restricted: it works from listed addresses only.
        beyond_reading: names of the permissions that it has and should not, unknown ones included; sorted.
    """

    reading: bool
    ip_restricted: bool
    beyond_reading: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubAccount:
    """One sub-account, as its master sees it. ``email`` is what the exchange knows it by."""

    email: str = field(repr=False)  # of a person
    is_frozen: bool


class ExchangeClient:
    """Asks the exchange on behalf of all accounts.

    Args:
        transports: by name of the egress address.
        credentials: by name of the account.
        masters: keys of master accounts, by name of the ``discover`` entry.
        server_time: stamps requests; ``synchronise`` keeps it right.
        clock: time.
        recv_window_ms: for how long the exchange may accept a request.
        metrics: counts fields that answers have too many or too few.
    """

    def __init__(
        self,
        transports: Mapping[str, Transport],
        credentials: Mapping[str, Credentials],
        server_time: ServerTime,
        clock: Clock,
        *,
        recv_window_ms: int,
        metrics: Metrics,
        masters: Mapping[str, Credentials] | None = None,
    ) -> None:
        self._transports = dict(transports)
        self._credentials = dict(credentials)
        self._masters = dict(masters or {})
        self._server_time = server_time
        self._clock = clock
        self._recv_window_ms = recv_window_ms
        self._metrics = metrics

    async def user_assets(self, account: Account) -> Answer:
        """Ask for an account's balances; never raises for a poll that failed."""
        begun_s = self._clock.monotonic_s()
        parameters: dict[str, str] = {}
        if account.asset is not None:
            parameters["asset"] = account.asset
        if account.btc_valuation:
            parameters["needBtcValuation"] = "true"
        credentials = self._credentials.get(account.name)
        try:
            request = self._signed(credentials, USER_ASSETS, parameters)
            response = await self._transport(account.egress).send(request)
        except PollError as error:
            return Answer(error, None, begun_s, self._clock.monotonic_s())
        outcome: Snapshot | PollError
        try:
            outcome = self._snapshot(account, response)
        except PollError as error:
            outcome = error
            if error.scope is Scope.ACCOUNT and self._credentials.get(account.name) is not credentials:
                outcome = KeyExchanged("the key was exchanged while it was refused", code=error.code)
        return Answer(outcome, used_weight(response.headers), response.sent_s, response.answered_s)

    def exchange_keys(
        self, credentials: Mapping[str, Credentials], masters: Mapping[str, Credentials]
    ) -> None:
        """Sign with these from now on; requests under way end as they were signed."""
        self._credentials, self._masters = dict(credentials), dict(masters)

    def is_reachable(self, egress: str) -> bool:
        """Say whether an address can be sent from at all."""
        return not isinstance(self._transports.get(egress), Unreachable | None)

    def put_transport(self, egress: str, transport: Transport) -> Transport | None:
        """Send through this one from now on; return what it replaces, for the caller to close."""
        replaced = self._transports.get(egress)
        self._transports[egress] = transport
        return replaced

    def take_transport(self, egress: str) -> Transport:
        """Forget an address, and return its transport for the caller to close."""
        return self._transports.pop(egress)

    def set_recv_window(self, recv_window_ms: int) -> None:
        """Let requests be accepted for so long from now on."""
        self._recv_window_ms = recv_window_ms

    async def synchronise(self, egress: str, permit: Callable[[], Awaitable[None]]) -> None:
        """Measure the exchange's clock through one address.

        Args:
            egress: name of the address.
            permit: awaited before each of several requests, each of weight 1; to raise stops it.

        Raises:
            PollError: the clock is not known afresh.
        """
        samples: list[Sample] = []
        stale: StaleConnection | None = None
        for _ in range(TIME_SAMPLES):
            await permit()
            try:
                response = await self._ask(egress, unsigned(SERVER_TIME))
            except StaleConnection as error:
                stale = error  # the next one goes over another connection
                continue
            server_ms = _server_ms(response)
            samples.append(Sample(response.sent_s, server_ms, response.answered_s))
        if not samples and stale is not None:
            raise stale
        if not self._server_time.update(samples):
            raise NoResponse("every answer was too slow to tell the exchange's time", cause="timeout")
        ahead_ns = self._server_time.now_ns() - self._clock.utc_ns()
        self._metrics.clock_offset.set(ahead_ns / NS_PER_S)

    async def system_status(self, egress: str) -> SystemStatus:
        """Ask whether the exchange is under maintenance. Weight 1, no key.

        Raises:
            PollError: it did not say.
        """
        response = await self._ask(egress, unsigned(SYSTEM_STATUS))
        document = payload.fields(response.body)
        status, message = document.get("status"), document.get("msg")
        if status not in {"0", "1"} or not isinstance(status, payload.Number):
            raise BadAnswer("the system's status is neither 0 nor 1", reason="system_status")
        return SystemStatus(status == "0", sanitized(message) if isinstance(message, str) else "")

    async def api_restrictions(self, account: Account) -> Restrictions:
        """Ask what an account's key may do. Weight 1.

        Raises:
            PollError: it is not known.
        """
        response = await self._ask(
            account.egress, self._signed(self._credentials.get(account.name), API_RESTRICTIONS, {})
        )
        document = payload.fields(response.body)
        reading, ip_restricted = document.get("enableReading"), document.get("ipRestrict")
        if not isinstance(reading, bool) or not isinstance(ip_restricted, bool):
            raise BadAnswer("the key's restrictions are not as documented", reason="api_restrictions")
        beyond = (
            sanitized(name)
            for name, value in document.items()
            # What is not known today is a permission all the same.
            if value is True and name.startswith(("enable", "permits")) and name not in _HARMLESS
        )
        return Restrictions(reading, ip_restricted, tuple(sorted(beyond)))

    async def sub_accounts(self, master: str, egress: str, page: int) -> list[SubAccount]:
        """Ask a master account for one page of its sub-accounts: ``PAGE_ROWS``, the last page fewer. Weight 1.

        Args:
            master: name of the ``discover`` entry.
            egress: name of the address to ask from.
            page: counted from 1.

        Raises:
            PollError: they are not known.
        """
        parameters = {"page": str(page), "limit": str(PAGE_ROWS)}
        response = await self._ask(egress, self._signed(self._masters.get(master), SUB_ACCOUNTS, parameters))
        document = payload.fields(response.body)
        return [_sub_account(row) for row in payload.rows_of(document.get("subAccounts"), most=PAGE_ROWS)]

    async def close(self) -> None:
        """Let go of all connections. Harmless when called twice."""
        await asyncio.gather(*(transport.close() for transport in self._transports.values()))

    def _signed(
        self, credentials: Credentials | None, endpoint: Endpoint, parameters: Mapping[str, str]
    ) -> Request:
        if credentials is None:
            raise NoKey("the key is not at hand")
        return sign(
            credentials,
            endpoint,
            parameters,
            exchange_ms=self._server_time.now_ms(),
            recv_window_ms=self._recv_window_ms,
        )

    def _transport(self, egress: str) -> Transport:
        try:
            return self._transports[egress]
        except KeyError:  # somebody was in the middle of several questions when it was removed
            raise NoResponse("this address is not sent from any more", cause="removed") from None

    async def _ask(self, egress: str, request: Request) -> Response:
        response = await self._transport(egress).send(request)
        if (error := error_in(response)) is not None:
            raise error
        return response

    def _snapshot(self, account: Account, response: Response) -> Snapshot:
        if (error := error_in(response)) is not None:
            raise error
        holdings = normalise(payload.rows(response.body), btc_valuation=account.btc_valuation)
        self._metrics.unknown_fields.inc(holdings.unknown_fields)
        for name, count in holdings.missing_fields.items():
            self._metrics.missing_fields.labels(name).inc(count)
        took_s = response.answered_s - response.sent_s
        return Snapshot(
            account.name,
            holdings.balances,
            observed_ns=self._server_time.at_ns(response.sent_s + took_s / 2),
            uncertainty_ms=took_s / 2 * MS_PER_S + self._server_time.uncertainty_ms,
            latency_ms=took_s * MS_PER_S,
        )


_HARMLESS: Final = frozenset({"enableReading", "enableFixReadOnly"})


def _sub_account(row: payload.Row) -> SubAccount:
    email, is_frozen = row.get("email"), row.get("isFreeze")
    # A number is kept as a text, and is none.
    if not isinstance(email, str) or isinstance(email, payload.Number) or not isinstance(is_frozen, bool):
        raise BadAnswer("a sub-account is not as documented", reason="sub_accounts")
    if "@" not in email or len(email) > _EMAIL_CHARACTERS or not email.isprintable() or " " in email:
        raise BadAnswer("a sub-account's e-mail is none", reason="sub_accounts")
    return SubAccount(email, is_frozen)


def _server_ms(response: Response) -> int:
    server_ms = payload.fields(response.body).get("serverTime")
    if not isinstance(server_ms, payload.Number) or not server_ms.isdecimal() or len(server_ms) > 15:
        raise BadAnswer("the exchange's time is not a whole number", reason="server_time")
    if not _EARLIEST_MS <= int(server_ms) <= _LATEST_MS:
        raise BadAnswer("the exchange's time is not in milliseconds of our age", reason="server_time")
    return int(server_ms)
