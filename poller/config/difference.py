"""What is different between two configurations: what has to be done, and how to say it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final, TypeVar

from poller.config.credentials import Secrets
from poller.config.settings import Config, EgressSettings, SinkSettings
from poller.errors import Problem
from poller.exchange.signing import Credentials
from poller.model import Account
from poller.server.settings import ServerSettings

NAMED_AT_MOST: Final = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Names:
    """What came, what went, and what is the same and yet another, each sorted."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """From the configuration in force to another.

    Attributes:
        accounts: whose settings are others.
        rekeyed: accounts that are in both and have another key.
        egress: addresses; ``changed`` are those that requests leave from in another way.
        sinks: changed are those with another kind, other options, other secrets or other files for TLS.
        is_discovering_anew: master accounts, or what their sub-accounts are held against, are others.
        lines: what is different, for people; empty if nothing is. No secret is in them.
        fixed: what cannot be changed while the daemon runs.
    """

    accounts: Names
    rekeyed: tuple[str, ...]
    egress: Names
    sinks: Names
    is_discovering_anew: bool
    lines: tuple[str, ...]
    fixed: tuple[Problem, ...]


def difference(old: Config, new: Config, old_secrets: Secrets, new_secrets: Secrets) -> Difference:
    """Compare what is in force with what shall be."""
    accounts = _names(old.accounts, new.accounts)
    kept = old.accounts.keys() & new.accounts.keys()
    rekeyed = tuple(
        sorted(
            name
            for name in kept
            if not is_same_key(old_secrets.credentials.get(name), new_secrets.credentials.get(name))
        )
    )
    egress = _names(
        {name: _Way(settings, old_secrets.proxies.get(name)) for name, settings in old.egress.items()},
        {name: _Way(settings, new_secrets.proxies.get(name)) for name, settings in new.egress.items()},
    )
    sinks = _names(
        {name: _whole(name, settings, old_secrets) for name, settings in old.sinks.items()},
        {name: _whole(name, settings, new_secrets) for name, settings in new.sinks.items()},
    )
    lines = [
        *_coming_and_going("account", accounts),
        *_account_lines(old.accounts, new.accounts, accounts.changed),
        *_key_lines(rekeyed, old_secrets),
        *_coming_and_going("egress", egress),
        *(f"egress {name}: another way out" for name in egress.changed),
        *_coming_and_going("sink", sinks),
        *_sink_lines(old, new, old_secrets, new_secrets, sinks.changed),
        *_section_lines(old, new),
        *(["server: another token"] if old_secrets.server_token != new_secrets.server_token else []),
        *_header_lines(old_secrets, new_secrets),
    ]
    discovering = _is_discovering_anew(old, new, old_secrets, new_secrets)
    lines += ["discover: asked anew"] if discovering else []
    return Difference(accounts, rekeyed, egress, sinks, discovering, tuple(lines), tuple(_fixed(old, new)))


@dataclass(frozen=True, slots=True)
class _Way:
    settings: EgressSettings
    proxy: object

    def __eq__(self, other: object) -> bool:
        # Where the URL of the proxy is kept does not matter, what it is does.
        return isinstance(other, _Way) and (self.settings.local_address, self.proxy) == (
            other.settings.local_address,
            other.proxy,
        )

    __hash__ = None  # type: ignore[assignment]


def _names(old: Mapping[str, T], new: Mapping[str, T]) -> Names:
    return Names(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
    )


def is_same_key(old: Credentials | None, new: Credentials | None) -> bool:
    """Say whether two keys are one; nothing is the same as nothing."""
    if old is None or new is None:
        return old is new
    return old.api_key == new.api_key and old.signer.is_same(new.signer)


def _is_discovering_anew(old: Config, new: Config, old_secrets: Secrets, new_secrets: Secrets) -> bool:
    if not (old.discover or new.discover):
        return False
    return (
        old.discover != new.discover
        or old.sub_accounts != new.sub_accounts
        or any(
            not is_same_key(old_secrets.masters.get(name), new_secrets.masters.get(name))
            for name in new.discover
        )
    )


def _coming_and_going(what: str, names: Names) -> Iterator[str]:
    if names.added:
        yield f"{_counted(what, len(names.added))} added: {_listed(names.added)}"
    if names.removed:
        yield f"{_counted(what, len(names.removed))} removed: {_listed(names.removed)}"


def _key_lines(rekeyed: Sequence[str], old_secrets: Secrets) -> Iterator[str]:
    first = [name for name in rekeyed if name not in old_secrets.credentials]
    others = [name for name in rekeyed if name in old_secrets.credentials]
    if first:
        yield f"{_counted('account', len(first))} with a key at last: {_listed(first)}"
    if others:
        yield f"{_counted('account', len(others))} with another key: {_listed(others)}"


def _account_lines(
    old: Mapping[str, Account], new: Mapping[str, Account], changed: Sequence[str]
) -> Iterator[str]:
    """Say the same change of many accounts once."""
    alike: dict[str, list[str]] = {}
    for name in changed:
        alike.setdefault(_settings(old[name], new[name]), []).append(name)
    for text, names in alike.items():
        subject = f"account {names[0]}" if len(names) == 1 else f"{len(names)} accounts ({_listed(names)})"
        yield f"{subject}: {text}"


def _header_lines(old_secrets: Secrets, new_secrets: Secrets) -> Iterator[str]:
    # No problem that keeps the rest from being reloaded: what is kept elsewhere may change by itself.
    if old_secrets.tracing_headers != new_secrets.tracing_headers:
        yield "tracing: other headers; they are sent from the next start on"


def _settings(old: object, new: object, *, without: Sequence[str] = ()) -> str:
    parts = []
    for entry in fields(new):  # type: ignore[arg-type]  # both are dataclasses
        before, after = getattr(old, entry.name), getattr(new, entry.name)
        if before != after and entry.name not in without:
            parts.append(f"{entry.name} {_shown(before)} -> {_shown(after)}")
    return ", ".join(parts)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, frozenset):
        return f"[{', '.join(sorted(map(_shown, value)))}]"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return "none" if value is None else str(value)


def _whole(name: str, settings: SinkSettings, secrets: Secrets) -> tuple[object, ...]:
    return settings, secrets.sink_options.get(name), secrets.sink_files.get(name)


def _sink_lines(
    old: Config, new: Config, old_secrets: Secrets, new_secrets: Secrets, changed: Sequence[str]
) -> Iterator[str]:
    for name in changed:
        said = _sink_line(old.sinks[name], new.sinks[name])
        if not said:
            is_file = old_secrets.sink_options.get(name) == new_secrets.sink_options.get(name)
            said = "another certificate" if is_file else "another secret"
        yield f"sink {name}: {said}"


def _sink_line(old: SinkSettings, new: SinkSettings) -> str:
    if old.kind != new.kind:
        return f"kind {old.kind} -> {new.kind}"
    parts = [_settings(old.delivery, new.delivery)] if old.delivery != new.delivery else []
    # Names alone: values of options were never meant to be repeated in a log.
    keys = sorted(
        key for key in old.options.keys() | new.options.keys() if old.options.get(key) != new.options.get(key)
    )
    keys += sorted(
        key for key in old.secrets.keys() | new.secrets.keys() if old.secrets.get(key) != new.secrets.get(key)
    )
    parts += [f"{key} changed" for key in keys]
    return ", ".join(parts)


_SECTIONS: Final = ("budget", "exchange", "shutdown", "reload", "logging")


def _section_lines(old: Config, new: Config) -> Iterator[str]:
    for section in _SECTIONS:
        before, after = getattr(old, section), getattr(new, section)
        if before != after:
            yield f"{section}: {_settings(before, after)}"
    if old.key_policy != new.key_policy:
        yield f"key_policy: {old.key_policy} -> {new.key_policy}"
    if old.server != new.server:
        yield f"server: {_server(old.server, new.server)}"


def _server(old: ServerSettings | None, new: ServerSettings | None) -> str:
    before, after = _listening(old), _listening(new)
    parts = [f"{before} -> {after}"] if before != after else []
    if old is not None and new is not None:
        parts.append(_settings(old, new, without=("listen_host", "listen_port")))
    return ", ".join(filter(None, parts))


def _listening(server: ServerSettings | None) -> str:
    return "none" if server is None else f"{server.listen_host}:{server.listen_port}"


def _fixed(old: Config, new: Config) -> Iterator[Problem]:
    """Name what was changed and is decided once, at the start."""
    for key in (
        "exchange.base_url",
        "budget.window",
        "outbox.path",
        "outbox.retain",
        "outbox.max_size",
        "outbox.when_full",
        "logging.format",
        "metrics.balances",
        "metrics.max_series",
    ):
        if _value(old, key) != _value(new, key):
            yield _unchangeable(new, key)
    if old.tracing != new.tracing:
        yield _unchangeable(new, "tracing")
    for name, settings in new.egress.items():
        if name in old.egress and old.egress[name].shared != settings.shared:
            yield _unchangeable(new, f"egress.{name}.shared")


_ATTRIBUTES: Final = {
    "budget.window": "window_s",
    "outbox.retain": "retain_s",
    "outbox.max_size": "max_size_bytes",
}


def _value(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), _ATTRIBUTES.get(key, name))


def _unchangeable(config: Config, key: str) -> Problem:
    place = config.place(key)
    return Problem(
        place.file,
        place.line,
        key,
        "cannot be changed while the daemon runs",
        "restart it, or change it back",
    )


def _counted(what: str, count: int) -> str:
    many = {"egress": "egress addresses"}.get(what, f"{what}s")
    return f"{count} {what if count == 1 else many}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED_AT_MOST])
    left = len(names) - NAMED_AT_MOST
    return f"{shown} and {left} more" if left > 0 else shown
