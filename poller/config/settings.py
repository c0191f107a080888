"""The configuration as the rest of the poller takes it: frozen values, every unit in its name.

No secret is in here, only where each is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from poller.checking import KeyPolicy
from poller.delivery import DeliverySettings
from poller.model import Account
from poller.outbox import WhenFull
from poller.secrets import Secret, SecretReference
from poller.server.settings import ServerSettings
from poller.sinks import Sink
from poller.sinks.tls import TlsOptions


class Place(NamedTuple):
    """Where something is written: the file as the operator named it, the line from 1 (0: unknown)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class SecretSetting:
    """A key of the configuration whose value is kept elsewhere.

    Attributes:
        reference: where the secret is kept.
        directory: of the file that names it; what a relative path is relative to.
        key: dotted path of the key, such as ``accounts.treasury.api_key``.
        place: where the reference is written. Two are equal wherever in their files they stand.
    """

    reference: SecretReference
    directory: Path
    key: str
    place: Place = field(compare=False)

    def read(self) -> Secret:
        """Return the secret.

        Raises:
            SecretUnreadable: it is not there, is empty, or is not kept safely.
            SecretUnavailable: it cannot be had now.
        """
        return self.reference.read(self.directory)


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """Where the keys of one account, or of a master account, are kept: with either ``secret`` or ``private_key``."""

    api_key: SecretSetting
    secret: SecretSetting | None = None
    private_key: SecretSetting | None = None
    passphrase: SecretSetting | None = None


@dataclass(frozen=True, slots=True)
class DiscoverSettings:
    """One master account that is asked which sub-accounts exist.

    Attributes:
        keys: where its keys are kept.
        egress: name of the address it is asked from, and whose budget pays.
        interval_s: seconds between two questions.
    """

    keys: AccountKeys
    egress: str = "default"
    interval_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """How to talk to the exchange.

    Attributes:
        base_url: scheme, host and port, without a slash at the end.
        recv_window_ms: how old a request may be when the exchange looks at it.
        timeout_s: for a whole request; it holds ``connect_timeout_s``.
        time_sync_s: seconds between two measurements of the exchange's clock.
    """

    base_url: str = "https://api.binance.com"
    recv_window_ms: int = 10_000
    connect_timeout_s: float = 5.0
    timeout_s: float = 15.0
    time_sync_s: float = 600.0


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """What one egress address may spend.

    Attributes:
        weight_limit: what the exchange grants an address in one window.
        share: the fraction of it that is for us, more than 0 and at most 1.
        window_s: length of the exchange's window.
    """

    weight_limit: int = 12_000
    share: float = 0.9
    window_s: float = 60.0


@dataclass(frozen=True, slots=True)
class EgressSettings:
    """One address that requests leave from: this machine's own unless one of the two is given.

    Attributes:
        local_address: address of this machine to send from.
        proxy: where the URL of a proxy is kept.
        shared: other pollers on this host send from it too, each with a share of its weight.
    """

    local_address: str | None = None
    proxy: SecretSetting | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """One destination.

    Attributes:
        kind: name of its kind, as installed.
        sink: the class of that kind.
        delivery: what every sink can be given.
        options: the kind's own options as they are written, paths resolved, secrets left out. They are
            valid as far as this can be told without the secrets.
        secrets: the options that are secrets, by name.
    """

    kind: str
    sink: type[Sink]
    delivery: DeliverySettings
    options: Mapping[str, Any]
    secrets: Mapping[str, SecretSetting]

    def files(self) -> list[Path]:
        """Return the files that the sink reads for TLS; what is in them may become another."""
        options = self.sink.Options
        return options.files(self.options) if issubclass(options, TlsOptions) else []


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """The durable store.

    Attributes:
        path: of the database file, absolute.
        retain_s: seconds that delivered records are kept.
        max_size_bytes: from this size on nothing is accepted.
        when_full: what happens then: polls wait (``block``), or records that are not delivered go.
    """

    path: Path
    retain_s: float = 86_400.0
    max_size_bytes: int = 1024**3
    when_full: WhenFull = "block"


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """What becomes a metric beside what always does.

    Attributes:
        balances: one gauge for each account and asset.
        max_series: so many of those at most.
    """

    balances: bool = False
    max_series: int = 5_000


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where traces go.

    Attributes:
        endpoint: of an OTLP/HTTP collector, without ``/v1/traces`` and without a slash at the end.
        headers: where further headers for it are kept.
        sample: the share of polls and deliveries that is traced, more than 0 and at most 1.
    """

    endpoint: str
    headers: SecretSetting | None = None
    sample: float = 0.01


@dataclass(frozen=True, slots=True)
class ShutdownSettings:
    """How to stop. ``drain_s``: seconds at most that the sinks get for what was accepted."""

    drain_s: float = 20.0


@dataclass(frozen=True, slots=True)
class ReloadSettings:
    """When to read the configuration anew. ``is_watching``: also when a file of it changes, unasked."""

    is_watching: bool = True


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """What to log. ``auto`` is text on a terminal, JSON otherwise."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the operator configured, checked, without any secret.

    Attributes:
        path: of the main file, as the operator named it.
        directory: the main file's, absolute.
        egress: always with ``default``.
        accounts: in the order of the files.
        keys: where each account's keys are kept, by the account's name.
        discover: master accounts, by name.
        sub_accounts: e-mails of those accounts that say which sub-account they are, by the account's name.
        key_policy: what follows from keys that can do more than read; see ``poller.checking.KeyWatch``.
        server: the daemon's own HTTP server; ``None`` if there is to be none.
        server_token: what its clients have to show; ``None`` if nothing.
        tracing: ``None`` if nothing is traced.
        places: where each key stands, by its dotted path; see ``place``.
    """

    path: Path
    directory: Path
    exchange: ExchangeSettings
    budget: BudgetSettings
    egress: Mapping[str, EgressSettings]
    accounts: Mapping[str, Account]
    keys: Mapping[str, AccountKeys]
    sinks: Mapping[str, SinkSettings]
    outbox: OutboxSettings
    shutdown: ShutdownSettings
    logging: LoggingSettings
    reload: ReloadSettings = ReloadSettings()
    key_policy: KeyPolicy = "warn"
    discover: Mapping[str, DiscoverSettings] = field(default_factory=dict)
    sub_accounts: Mapping[str, str] = field(default_factory=dict, repr=False)
    server: ServerSettings | None = None
    server_token: SecretSetting | None = None
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings | None = None
    places: Mapping[str, Place] = field(default_factory=dict, repr=False)

    def place(self, key: str) -> Place:
        """Return where a key such as ``sinks.history.path`` stands.

        Of a key that was left out it is the place of what it belongs to, at last the file as a whole.
        """
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, Place(str(self.path), 0))
