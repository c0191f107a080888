"""The shape of ``accounts.yaml``: one pydantic model a section, defaults and bounds included."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from poller.checking import KeyPolicy
from poller.outbox import WhenFull
from poller.secrets import SecretReference, reference_in
from poller.units import parse_duration, parse_share, parse_size

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATTERN = re.compile(r"[A-Za-z0-9_*?-]{1,64}")
_URL = re.compile(r"https?://(?:[A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?")
_LISTEN = re.compile(r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{1,5})")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.\-]{0,252})|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_ENDPOINT = re.compile(_URL.pattern + r"(?:[A-Za-z0-9._~-]+/?)*")
NAME_RULE: Final = "use 1 to 64 letters, digits, '_' and '-'"

_VISIBLE = re.compile(r"[^\s\x00-\x1f\x7f]+")
_EMAIL_CHARACTERS: Final = 320
_LABEL_CHARACTERS: Final = 128
_ASSET_CHARACTERS: Final = 64


class Refusal(ValueError):
    """A value that is not accepted.

    Attributes:
        remedy: what to write instead.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def is_name(text: str) -> bool:
    """Tell whether the text can name an account, a sink, an egress address or a label."""
    return _NAME.fullmatch(text) is not None


def is_loopback(base_url: str) -> bool:
    """Tell whether an URL points to this machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _duration(least: str, most: str) -> BeforeValidator:
    """Take a duration within bounds, both included."""
    least_s, most_s = parse_duration(least), parse_duration(most)

    def check(value: object) -> float:
        seconds = parse_duration(value)
        if not least_s <= seconds <= most_s:
            raise Refusal(f"{value!r} is out of range", f"write {least} to {most}")
        return seconds

    return BeforeValidator(check)


def _size(least: str, most: str) -> BeforeValidator:
    """Take a size within bounds, both included."""
    least_bytes, most_bytes = parse_size(least), parse_size(most)

    def check(value: object) -> int:
        size = parse_size(value)
        if not least_bytes <= size <= most_bytes:
            raise Refusal(f"{value!r} is out of range", f"write {least} to {most}")
        return size

    return BeforeValidator(check)


def _share(value: object) -> float:
    share = parse_share(value)
    if not 0.01 <= share <= 1:
        raise Refusal(f"{value!r} is out of range", "write 1% to 100%")
    return share


def _base_url(text: str) -> str:
    host_and_port = _URL.fullmatch(text)
    if host_and_port is None or int(host_and_port["port"] or 0) > 65_535:
        # With an "@" in it there is a password in it.
        shown = "an URL with a user in it" if "@" in text else repr(text[:80])
        raise Refusal(f"{shown} is not the address of an exchange", "write https://HOST or https://HOST:PORT")
    if text.startswith("http://") and not is_loopback(text):
        raise Refusal(
            f"{text[:80]!r} would send keys and balances in the clear",
            "write https://; plain http is for this machine only (127.0.0.1, ::1, localhost)",
        )
    return text.rstrip("/")


def _endpoint(text: str) -> str:
    host_and_port = _ENDPOINT.fullmatch(text)
    if host_and_port is None or int(host_and_port["port"] or 0) > 65_535:
        shown = "an URL with a user in it" if "@" in text else repr(text[:80])
        raise Refusal(
            f"{shown} is not the address of a collector", "write https://HOST:PORT, with a path if need be"
        )
    if text.startswith("http://") and not is_loopback(text):
        raise Refusal(
            f"{text[:80]!r} would send names of accounts in the clear",
            "write https://; plain http is for this machine only (127.0.0.1, ::1, localhost)",
        )
    return text.rstrip("/")


def _sample(value: object) -> float:
    share = parse_share(value)
    if not 0.0001 <= share <= 1:
        raise Refusal(f"{value!r} is out of range", "write 0.01% to 100%")
    return share


def _local_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Refusal(f"{text[:80]!r} is not an IP address", "write one of this machine's own") from None


def listening(text: str) -> tuple[str, int]:
    """Return the IP address and the port of a text such as ``127.0.0.1:8080`` or ``[::1]:8080``.

    Raises:
        ValueError: it is no such text.
    """
    found = _LISTEN.fullmatch(text)
    if found is None or not 0 < int(found["port"]) <= 65_535:
        raise ValueError("no address with a port")
    if found["v6"] is not None:
        return str(ipaddress.IPv6Address(found["v6"])), int(found["port"])
    return str(ipaddress.IPv4Address(found["v4"])), int(found["port"])


def _listen(text: str) -> str:
    try:
        listening(text)
    except ValueError:
        raise Refusal(
            f"{text[:80]!r} is not an IP address with a port",
            'write one of this machine\'s, such as 127.0.0.1:8080 or "[::1]:8080"',
        ) from None
    return text


def _host(text: str) -> str:
    found = _HOST.fullmatch(text)
    if found is None or int(found["port"] or 0) > 65_535:
        raise Refusal(
            f"{text[:80]!r} is not the name of a host",
            "write it as browsers show it, such as poller.example.net or poller.example.net:8443",
        )
    return text.lower()


def _off(value: object) -> object:
    # Without quotes YAML takes the word for false, and there is nothing else it could mean here.
    return "off" if value is False else value


def _asset(text: str) -> str:
    # Names in other scripts exist; nothing that could end a parameter does.
    if not text.isprintable() or not 0 < len(text) <= _ASSET_CHARACTERS or any(map(str.isspace, text)):
        raise Refusal(f"{text[:80]!r} is not an asset", "write its code, such as BTC")
    return text


def _email(text: str) -> str:
    name, _, host = text.partition("@")
    if not (name and host) or "@" in host or len(text) > _EMAIL_CHARACTERS or not _VISIBLE.fullmatch(text):
        raise Refusal(
            f"{text[:80]!r} is not an e-mail", "write the one that the exchange knows the sub-account by"
        )
    return text


def _label_name(text: str) -> str:
    if not is_name(text):
        raise Refusal(f"{text[:80]!r} cannot name a label", NAME_RULE)
    return text


def _label_text(text: str) -> str:
    if not text.isprintable() or len(text) > _LABEL_CHARACTERS:
        raise Refusal(
            f"{text[:80]!r} cannot be a label",
            f"write at most {_LABEL_CHARACTERS} characters, none of them a control character",
        )
    return text


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise Refusal(
            f"{text[:80]!r} matches no account's name",
            "write a name, or a pattern such as sub-*; * stands for any characters, ? for one",
        )
    return text


def _path(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise Refusal(f"{text[:80]!r} is not a path", "write one, relative to this file or absolute")
    return text


Reference = Annotated[SecretReference, PlainValidator(reference_in)]
LabelName = Annotated[str, AfterValidator(_label_name)]
LabelText = Annotated[str, AfterValidator(_label_text)]


class Section(BaseModel):
    """A mapping of the file. Nothing is converted that YAML itself tells apart: ``"5"`` is not 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


class ExchangeSection(Section):
    """``exchange``."""

    base_url: Annotated[str, AfterValidator(_base_url)] = "https://api.binance.com"
    recv_window: Annotated[float, _duration("1s", "60s")] = 10.0
    connect_timeout: Annotated[float, _duration("100ms", "60s")] = 5.0
    timeout: Annotated[float, _duration("200ms", "5m")] = 15.0
    time_sync: Annotated[float, _duration("1s", "24h")] = 600.0


class BudgetSection(Section):
    """``budget``."""

    weight_limit: Annotated[int, Field(ge=1, le=10_000_000)] = 12_000
    share: Annotated[float, BeforeValidator(_share)] = 0.9
    window: Annotated[float, _duration("1s", "1h")] = 60.0


class EgressSection(Section):
    """One entry of ``egress``."""

    local_address: Annotated[str, AfterValidator(_local_address)] | None = None
    proxy: Reference | None = None
    shared: bool = False


class KeyPolicySection(Section):
    """``key_policy``, which stands by itself at the top level."""

    key_policy: Annotated[KeyPolicy, BeforeValidator(_off)] = "warn"


class DefaultsSection(Section):
    """``defaults``: what an account can leave out."""

    interval: Annotated[float, _duration("100ms", "7d")] = 60.0
    priority: Annotated[int, Field(ge=0, le=9)] = 0
    egress: str = "default"
    asset: Annotated[str, AfterValidator(_asset)] | None = None
    btc_valuation: bool = True
    labels: dict[LabelName, LabelText] = {}
    stale_after: Annotated[int, Field(ge=1, le=1_000)] = 3


class KeysSection(Section):
    """The keys of an entry. Which of them belong together is checked elsewhere."""

    api_key: Reference | None = None
    secret: Reference | None = None
    private_key: Reference | None = None
    passphrase: Reference | None = None


class AccountSection(DefaultsSection, KeysSection):
    """One entry of ``accounts``."""

    sub_account: Annotated[str, AfterValidator(_email)] | None = None


class DiscoverSection(KeysSection):
    """One entry of ``discover``."""

    egress: str = "default"
    interval: Annotated[float, _duration("1s", "7d")] = 3600.0


class SinkSection(Section):
    """What an entry of ``sinks`` can hold whatever its kind."""

    kind: str
    emit: Literal["changed", "every"] = "changed"
    only: Annotated[list[Literal["snapshot", "status"]], Field(min_length=1)] = ["snapshot", "status"]
    accounts: list[Annotated[str, AfterValidator(_pattern)]] = []
    labels: dict[LabelName, LabelText] = {}
    heartbeat: Annotated[float, _duration("1s", "30d")] = 900.0
    batch: Annotated[int, Field(ge=1, le=100_000)] = 500
    batch_bytes: Annotated[int, _size("1KiB", "1GiB")] = 4 * 1024**2
    linger: Annotated[float, _duration("0s", "1h")] = 0.0
    write_timeout: Annotated[float, _duration("100ms", "1h")] = 30.0
    retry_min: Annotated[float, _duration("10ms", "1h")] = 0.5
    retry_max: Annotated[float, _duration("10ms", "24h")] = 60.0
    start: Literal["oldest", "now"] = "oldest"
    on_start: Literal["retry", "fail"] = "retry"


class OutboxSection(Section):
    """``outbox``."""

    path: Annotated[str, AfterValidator(_path)] = "data/outbox.db"
    retain: Annotated[float, _duration("0s", "365d")] = 86_400.0
    max_size: Annotated[int, _size("1MiB", "1000GiB")] = 1024**3
    when_full: WhenFull = "block"


class ServerSection(Section):
    """``server``."""

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8080"
    token: Reference | None = None
    hosts: list[Annotated[str, AfterValidator(_host)]] = []


class MetricsSection(Section):
    """``metrics``."""

    balances: bool = False
    max_series: Annotated[int, Field(ge=1, le=100_000)] = 5_000


class TracingSection(Section):
    """``tracing``."""

    endpoint: Annotated[str, AfterValidator(_endpoint)]
    headers: Reference | None = None
    sample: Annotated[float, BeforeValidator(_sample)] = 0.01


class ShutdownSection(Section):
    """``shutdown``."""

    drain: Annotated[float, _duration("0s", "1h")] = 20.0


class ReloadSection(Section):
    """``reload``."""

    watch: bool = True


class LoggingSection(Section):
    """``logging``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"
