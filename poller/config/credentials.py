"""Read every secret that a configuration refers to, or say everything that keeps one from being used.

A mistake keeps everything from being started. What only cannot be reached now is left out, and read again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from poller.config.document import Node
from poller.config.findings import Findings, in_order
from poller.config.settings import AccountKeys, Config, SecretSetting, SinkSettings
from poller.errors import ConfigError, Problem
from poller.exchange.signing import Credentials, KeyFormatError, Signer, hmac_signer, private_key_signer
from poller.model import Account
from poller.secrets import HIDDEN, Secret, SecretUnavailable, read_all, redact
from poller.server.settings import token_fault
from poller.sinks import SinkOptions

FILE_BYTES_MOST: Final = 1024 * 1024  # all authorities of a system are a quarter of that

T = TypeVar("T")

_PROXY = re.compile(
    r"http://(?:[^\s/?#@:]+(?::[^\s/?#@]*)?@)?(?:[A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}/?"
)

_HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

_NONE: Final = Secret("")  # stands for a secret that cannot be read


@dataclass(frozen=True, slots=True)
class Secrets:
    """Every secret of a configuration that can be read, in the form in which it is used.

    Attributes:
        credentials: by the account's name.
        masters: by the name of the ``discover`` entry.
        proxies: the URL by the name of the egress, of those that have one.
        sink_options: by the sink's name: what its class is made with.
        server_token: what clients of the daemon's own server have to show; ``None`` if nothing.
        tracing_headers: by name; empty if none are configured.
        unavailable: whose secrets cannot be reached now, such as ``accounts.treasury``, ``egress.frankfurt``
            or ``sinks.bus``, and why. They are in none of the others. Without its proxy an egress must not be
            used at all: its accounts would be seen at another address.
        sink_files: by the sink's name, what stands for the content of the files that it reads for TLS.
    """

    credentials: Mapping[str, Credentials]
    proxies: Mapping[str, Secret]
    sink_options: Mapping[str, SinkOptions] = field(repr=False)
    masters: Mapping[str, Credentials] = field(default_factory=dict)
    server_token: Secret | None = None
    tracing_headers: Mapping[str, Secret] = field(default_factory=dict)
    unavailable: Mapping[str, Problem] = field(default_factory=dict)
    sink_files: Mapping[str, str] = field(default_factory=dict)

    def obstacle(self, account: Account) -> Problem | None:
        """Return what keeps an account from being polled: its own keys, or the proxy of its egress."""
        owners = (f"accounts.{account.name}", f"egress.{account.egress}")
        return next((self.unavailable[owner] for owner in owners if owner in self.unavailable), None)

    def usable(self, config: Config) -> Config:
        """Return the configuration without what cannot be used now; no account, nor ``default``, need be left."""
        gone = self.unavailable
        return replace(
            config,
            egress={name: one for name, one in config.egress.items() if f"egress.{name}" not in gone},
            accounts={name: one for name, one in config.accounts.items() if self.obstacle(one) is None},
            sinks={name: one for name, one in config.sinks.items() if f"sinks.{name}" not in gone},
            discover={
                name: one
                for name, one in config.discover.items()
                if f"discover.{name}" not in gone and f"egress.{one.egress}" not in gone
            },
        )


def read_secrets(config: Config, *, is_over: Callable[[], bool] = lambda: False) -> Secrets:
    """Read every secret that the configuration refers to; what cannot be reached now is ``unavailable``.

    Blocks while it reads: ten thousand files take about a second; each back end has a limit of its own for what
    does not answer. Once ``is_over`` says so nothing more is read, and what is returned is of no use.

    Raises:
        ConfigError: a secret is missing, kept unsafely, of the wrong form, or used twice; it lists all
            problems, with what is unavailable, and shows nothing of any secret.
    """
    reader = _Reader(secret_settings(config), is_over)
    secrets = reader.secrets(config)
    if reader.problems:
        raise ConfigError(in_order([*reader.problems, *reader.unavailable.values()]))
    return secrets


def read_again(config: Config, secrets: Secrets, *, is_over: Callable[[], bool] = lambda: False) -> Secrets:
    """Return the secrets with those that were unavailable and can be read by now; no others are read.

    Blocks. Never raises: a running daemon is not ended by what somebody has to repair. Whatever else turns
    out to be wrong stays ``unavailable``, with that as the reason, and is read again the next time.
    """
    missing = secrets.unavailable
    part = replace(
        config,
        egress={name: one for name, one in config.egress.items() if f"egress.{name}" in missing},
        keys={name: one for name, one in config.keys.items() if f"accounts.{name}" in missing},
        sinks={name: one for name, one in config.sinks.items() if f"sinks.{name}" in missing},
        discover={name: one for name, one in config.discover.items() if f"discover.{name}" in missing},
        server_token=config.server_token if "server.token" in missing else None,
        tracing=config.tracing if "tracing.headers" in missing else None,
    )
    reader = _Reader(secret_settings(part), is_over)
    for name, credentials in secrets.credentials.items():
        reader.api_keys[credentials.api_key] = config.keys[name].api_key
    for name, url in secrets.proxies.items():
        if (proxy := config.egress[name].proxy) is not None:
            reader.proxy_urls[url] = proxy
    found = reader.secrets(part)
    wrong = {_owner(problem.key): problem for problem in reversed(reader.problems)}
    return Secrets(
        _in_order(config.keys, secrets.credentials, found.credentials),
        _in_order(config.egress, secrets.proxies, found.proxies),
        _in_order(config.sinks, secrets.sink_options, found.sink_options),
        _in_order(config.discover, secrets.masters, found.masters),
        secrets.server_token or found.server_token,
        secrets.tracing_headers or found.tracing_headers,
        _in_order(missing, {**found.unavailable, **wrong}),
        _in_order(config.sinks, secrets.sink_files, found.sink_files),
    )


def read_sinks(config: Config) -> dict[str, tuple[SinkOptions, bool]]:
    """Return what each sink is made with, and whether that holds its secrets: where one cannot be read, none is.

    For what only describes the sinks; they cannot be used with less than all.

    Raises:
        ConfigError: a sink's options make no sense without its secrets. It says what keeps those from being read.
    """
    found: dict[str, tuple[SinkOptions, bool]] = {}
    problems: list[Problem] = []
    for name, sink in config.sinks.items():
        reader = _Reader(sink.secrets.values())
        options = reader.sink_options(f"sinks.{name}", sink, config)
        if options is not None:
            found[name] = (options, True)
            continue
        try:
            without = sink.sink.Options.model_validate({**sink.options, **dict.fromkeys(sink.secrets, _NONE)})
        except ValidationError:
            problems += [*reader.problems, *reader.unavailable.values()]
        else:
            found[name] = (without, False)
    if problems:
        raise ConfigError(in_order(problems))
    return found


class _Reader:
    """Reads each secret once, however often it is named, and collects what is wrong.

    Attributes:
        problems: what somebody has to repair.
        unavailable: whose secrets cannot be reached now, and why, as ``Secrets`` has it.
        api_keys, proxy_urls: where each was found first, for each may be used once.
    """

    def __init__(
        self, settings: Iterable[SecretSetting], is_over: Callable[[], bool] = lambda: False
    ) -> None:
        self.problems: list[Problem] = []
        self.unavailable: dict[str, Problem] = {}
        self.api_keys: dict[Secret, SecretSetting] = {}
        self.proxy_urls: dict[Secret, SecretSetting] = {}
        self._read = read_all(
            ((setting.reference, setting.directory) for setting in settings), is_over=is_over
        )

    def secrets(self, config: Config) -> Secrets:
        """Put together all that can be used."""
        credentials = self._credentials(config.keys, self.api_keys)
        # A master account may be polled as well, with the same key.
        masters = self._credentials({name: one.keys for name, one in config.discover.items()}, {})
        proxies = self._proxies(config)
        options = {
            name: whole
            for name, sink in config.sinks.items()
            if (whole := self.sink_options(f"sinks.{name}", sink, config)) is not None
        }
        return Secrets(
            credentials,
            proxies,
            options,
            masters,
            self.server_token(config),
            self.headers(None if config.tracing is None else config.tracing.headers),
            self.unavailable,
            {name: _content(sink.files()) for name, sink in config.sinks.items() if name in options},
        )

    def _credentials(
        self, keys: Mapping[str, AccountKeys], owners: dict[Secret, SecretSetting]
    ) -> dict[str, Credentials]:
        found: dict[str, Credentials] = {}
        for name, account in keys.items():
            api_key = self._secret(account.api_key)
            if api_key is not None and self._owned(api_key, account.api_key, owners, "API key"):
                api_key = None
            signer = self._signer(account)
            if api_key is None or signer is None:
                continue
            try:
                found[name] = Credentials(api_key, signer)
            except KeyFormatError as error:
                self._unusable(account.api_key, error)
        return found

    def _proxies(self, config: Config) -> dict[str, Secret]:
        found: dict[str, Secret] = {}
        for name, egress in config.egress.items():
            if egress.proxy is None or (url := self._secret(egress.proxy)) is None:
                continue
            if not _PROXY.fullmatch(url.reveal()):
                message = f"{egress.proxy.reference.shown} is not the URL of an http proxy"
                self._add(
                    egress.proxy, message, "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT into it"
                )
            elif not self._owned(url, egress.proxy, self.proxy_urls, "proxy"):
                found[name] = url
        return found

    def server_token(self, config: Config) -> Secret | None:
        setting = config.server_token
        token = self._secret(setting)
        if setting is not None and token is not None and (fault := token_fault(token.reveal())):
            self._add(setting, f"{setting.reference.shown} {fault}", "make one with: openssl rand -hex 32")
        return token

    def headers(self, setting: SecretSetting | None) -> dict[str, Secret]:
        if setting is None or (text := self._secret(setting)) is None:
            return {}
        pairs = [part.strip().partition("=") for part in text.reveal().split(",")]
        if not all(
            _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value) for name, _, value in pairs
        ):
            message = f"{setting.reference.shown} is not a list of headers"
            self._add(setting, message, "write NAME=VALUE into it, with commas between several")
            return {}
        return {name: Secret(value) for name, _, value in pairs}

    def sink_options(self, path: str, sink: SinkSettings, config: Config) -> SinkOptions | None:
        secrets = {key: self._secret(setting) for key, setting in sink.secrets.items()}
        known = {key: secret for key, secret in secrets.items() if secret is not None}
        if len(known) < len(secrets):
            return None
        values = {**sink.options, **known}
        place = config.place(path)
        entries = {
            key: Node(str(value), config.place(f"{path}.{key}").line, str(value))
            for key, value in values.items()
        }

        def scrub(text: str) -> str:
            for secret in known.values():
                text = text.replace(secret.reveal(), HIDDEN)
            return redact(text)

        findings = Findings(place.file, self.problems)
        return findings.validate(
            sink.sink.Options, values, Node(dict(entries), place.line), path, scrub=scrub
        )

    def _signer(self, account: AccountKeys) -> Signer | None:
        passphrase = self._secret(account.passphrase)
        setting = account.secret or account.private_key
        secret = self._secret(setting)
        if setting is None or secret is None or (account.passphrase is not None and passphrase is None):
            return None
        try:
            return (
                hmac_signer(secret) if setting is account.secret else private_key_signer(secret, passphrase)
            )
        except KeyFormatError as error:
            self._unusable(setting, error)
        return None

    def _secret(self, setting: SecretSetting | None) -> Secret | None:
        if setting is None:
            return None
        secret = self._read[setting.reference, setting.directory]
        if isinstance(secret, Secret):
            return secret
        if isinstance(secret, SecretUnavailable):
            self.unavailable.setdefault(_owner(setting.key), _problem(setting, str(secret), secret.remedy))
        else:
            self._add(setting, str(secret), secret.remedy)
        return None

    def _owned(
        self, secret: Secret, setting: SecretSetting, owners: dict[Secret, SecretSetting], what: str
    ) -> bool:
        """Tell, and report, whether the same secret stands elsewhere already."""
        owner = owners.setdefault(secret, setting)
        if owner is setting:
            return False
        message = f"the same {what} is used by {owner.key} ({owner.place})"
        self._add(setting, message, "give each one of its own, or remove one of the two")
        return True

    def _unusable(self, setting: SecretSetting, error: KeyFormatError) -> None:
        # Its text says what is wrong and then what to do.
        message, _, remedy = str(error).partition("; ")
        self._add(setting, message, remedy)

    def _add(self, setting: SecretSetting, message: str, remedy: str) -> None:
        self.problems.append(_problem(setting, message, remedy))


def _problem(setting: SecretSetting, message: str, remedy: str) -> Problem:
    return Problem(setting.place.file, setting.place.line, setting.key, message, remedy)


def _owner(key: str) -> str:
    """Return whose key it is: of ``accounts.treasury.api_key`` it is ``accounts.treasury``."""
    return ".".join(key.split(".")[:2])


def secret_settings(config: Config) -> Iterator[SecretSetting]:
    """Yield everything that is kept elsewhere, in the order of the configuration."""
    masters = (master.keys for master in config.discover.values())
    for keys in (*config.keys.values(), *masters):
        for setting in (keys.api_key, keys.secret, keys.private_key, keys.passphrase):
            if setting is not None:
                yield setting
    for egress in config.egress.values():
        if egress.proxy is not None:
            yield egress.proxy
    for sink in config.sinks.values():
        yield from sink.secrets.values()
    if config.server_token is not None:
        yield config.server_token
    if config.tracing is not None and config.tracing.headers is not None:
        yield config.tracing.headers


def _content(paths: Iterable[Path]) -> str:
    """Return what is the same if and only if the content of the files is. What is amiss the sink says itself."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                content = hashlib.sha256(file.read(FILE_BYTES_MOST)).digest()
        except OSError:
            content = b""
        digest.update(b"%d:%b" % (len(content), content))
    return digest.hexdigest()


def _in_order(names: Iterable[str], *parts: Mapping[str, T]) -> dict[str, T]:
    return {name: part[name] for name in names for part in parts if name in part}
