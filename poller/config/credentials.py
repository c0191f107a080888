"""Read every secret that a configuration refers to, or say everything that keeps one from being used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from poller.config.document import Node
from poller.config.findings import Findings, in_order
from poller.config.settings import AccountKeys, Config, SecretSetting, SinkSettings
from poller.errors import ConfigError, Problem
from poller.exchange.signing import Credentials, KeyFormatError, Signer, hmac_signer, private_key_signer
from poller.secrets import HIDDEN, Secret, SecretReference, SecretUnreadable, redact
from poller.sinks import SinkOptions

_PROXY = re.compile(
    r"http://(?:[^\s/?#@:]+(?::[^\s/?#@]*)?@)?(?:[A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}/?"
)


_NONE = Secret("")  # stands for a secret that cannot be read


@dataclass(frozen=True, slots=True)
class Secrets:
    """Every secret of a configuration, in the form in which it is used.

    Attributes:
        credentials: by the account's name, of every account.
        masters: by the name of the ``discover`` entry, of every one.
        proxies: the URL by the name of the egress, of those that have one.
        sink_options: by the sink's name, of every sink: what its class is made with.
    """

    credentials: Mapping[str, Credentials]
    proxies: Mapping[str, Secret]
    sink_options: Mapping[str, SinkOptions] = field(repr=False)
    masters: Mapping[str, Credentials] = field(default_factory=dict)


def read_secrets(config: Config) -> Secrets:
    """Read every secret that the configuration refers to.

    Blocks while it reads: ten thousand files take about a second, an RSA key 40 ms more than others.

    Raises:
        ConfigError: a secret is missing, kept unsafely, of the wrong form, or used twice; it lists all
            problems and shows nothing of any secret.
    """
    reader = _Reader()
    credentials = reader.credentials(config.keys)
    # A master account may be polled as well, with the same key.
    masters = reader.credentials({name: master.keys for name, master in config.discover.items()})
    proxies = reader.proxies(config)
    options = {
        name: reader.sink_options(f"sinks.{name}", sink, config) for name, sink in config.sinks.items()
    }
    if reader.problems:
        raise ConfigError(in_order(reader.problems))
    return Secrets(
        credentials,
        proxies,
        {name: whole for name, whole in options.items() if whole is not None},
        masters,
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
        reader = _Reader()
        options = reader.sink_options(f"sinks.{name}", sink, config)
        if options is not None:
            found[name] = (options, True)
            continue
        try:
            without = sink.sink.Options.model_validate({**sink.options, **dict.fromkeys(sink.secrets, _NONE)})
        except ValidationError:
            problems += reader.problems
        else:
            found[name] = (without, False)
    if problems:
        raise ConfigError(in_order(problems))
    return found


class _Reader:
    """Reads each secret once, however often it is named, and collects what is wrong."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._read: dict[tuple[SecretReference, Path], Secret | SecretUnreadable] = {}

    def credentials(self, keys: Mapping[str, AccountKeys]) -> dict[str, Credentials]:
        found: dict[str, Credentials] = {}
        owners: dict[Secret, SecretSetting] = {}
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

    def proxies(self, config: Config) -> dict[str, Secret]:
        found: dict[str, Secret] = {}
        owners: dict[Secret, SecretSetting] = {}
        for name, egress in config.egress.items():
            if egress.proxy is None or (url := self._secret(egress.proxy)) is None:
                continue
            if not _PROXY.fullmatch(url.reveal()):
                message = f"{egress.proxy.reference} is not the URL of an http proxy"
                self._add(
                    egress.proxy, message, "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT into it"
                )
            elif not self._owned(url, egress.proxy, owners, "proxy"):
                found[name] = url
        return found

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
        where = (setting.reference, setting.directory)
        if where not in self._read:
            try:
                self._read[where] = setting.read()
            except SecretUnreadable as error:
                self._read[where] = error
        secret = self._read[where]
        if isinstance(secret, Secret):
            return secret
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
        self.problems.append(Problem(setting.place.file, setting.place.line, setting.key, message, remedy))
