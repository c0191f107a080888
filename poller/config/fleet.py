"""Accounts: from the main file and those it includes, with the defaults that apply to each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from poller.config.document import Node, join, shown_key
from poller.config.files import Source
from poller.config.findings import Findings, suggestion
from poller.config.models import NAME_RULE, AccountSection, DefaultsSection, KeysSection, is_name
from poller.config.settings import AccountKeys, Place, SecretSetting
from poller.model import Account
from poller.secrets import SecretReference

_NULLABLE = ("asset",)  # "asset:" without a value asks for everything, whatever the defaults say
_NOTHING = Node(None, 0)


class Fleet:
    """Collects accounts file by file.

    Attributes:
        accounts: those without a problem, in the order of the files.
        keys: where their keys are kept.
        sub_accounts: their e-mails, of those that say which sub-account they are.
        places: where each account and each of its keys stands, by dotted path.
    """

    def __init__(self, egress: Collection[str]) -> None:
        self.accounts: dict[str, Account] = {}
        self.keys: dict[str, AccountKeys] = {}
        self.sub_accounts: dict[str, str] = {}
        self.places: dict[str, Place] = {}
        self._owners: dict[str, str] = {}  # e-mail, as the exchange compares it -> account
        self._egress = egress
        self._defaults = DefaultsSection().model_dump()

    @property
    def names(self) -> list[str]:
        """The accounts' names, also of those with a problem."""
        return [key.removeprefix("accounts.") for key in self.places if key.count(".") == 1]

    def add(self, source: Source, *, included: bool) -> None:
        """Take the accounts of a file. The main file comes first: its defaults apply to all others too."""
        findings, entries = source.findings, source.root.entries
        node = entries.get("defaults", _NOTHING)
        section = findings.check(DefaultsSection, node, "defaults", nullable=_NULLABLE)
        defaults = self._defaults
        check_egress(node, "defaults", self._egress, findings)
        if section is not None:
            defaults = _overlay(defaults, section)
        if not included:
            self._defaults = defaults
        for name, entry in findings.mapping(entries.get("accounts", _NOTHING), "accounts").items():
            self._account(name, entry, source, defaults)

    def _account(self, name: str, node: Node, source: Source, defaults: Mapping[str, Any]) -> None:
        findings = source.findings
        path = join("accounts", name)
        if not is_name(name):
            findings.add(node, path, f"{shown_key(name)} cannot name an account", NAME_RULE)
        if (before := self.places.get(f"accounts.{name}")) is not None:
            findings.add(node, path, f"this account stands in {before} already", "remove one of the two")
            return
        self.places[f"accounts.{name}"] = findings.place(node)
        for key, entry in node.entries.items():
            self.places[f"accounts.{name}.{key}"] = findings.place(entry)
        section = findings.check(AccountSection, node, path, nullable=_NULLABLE)
        check_keys(node, path, findings)
        check_egress(node, path, self._egress, findings)
        if section is None:
            return
        if section.sub_account is not None:
            self._sub_account(name, section.sub_account, node.entries["sub_account"], findings)
        keys = read_keys(section, node, path, source)
        if keys is not None:
            self.accounts[name] = _built(name, _overlay(defaults, section))
            self.keys[name] = keys

    def _sub_account(self, name: str, email: str, node: Node, findings: Findings) -> None:
        owner = self._owners.setdefault(email.casefold(), name)
        if owner == name:
            self.sub_accounts[name] = email
            return
        findings.add(
            node,
            f"accounts.{name}.sub_account",
            f"{email!r} is the sub-account of {owner!r} already ({self.places[f'accounts.{owner}.sub_account']})",
            "keep it with the account whose key is that sub-account's",
        )


def check_egress(node: Node, path: str, known: Collection[str], findings: Findings) -> None:
    """Report an ``egress`` of this entry that does not exist."""
    entry = node.entries.get("egress", _NOTHING)
    if isinstance(entry.value, str) and not entry.refused and entry.value not in known:
        remedy = suggestion(entry.value, known, "known here")
        findings.add(entry, f"{path}.egress", f"there is no egress {entry.value[:80]!r}", remedy)


def _overlay(settings: Mapping[str, Any], section: DefaultsSection) -> dict[str, Any]:
    """Return the settings with those that the section names in their place; labels are put together."""
    own = {key: getattr(section, key) for key in section.model_fields_set if key in settings}
    return {**settings, **own, "labels": {**settings["labels"], **section.labels}}


def _built(name: str, settings: Mapping[str, Any]) -> Account:
    return Account(
        name,
        settings["interval"],
        priority=settings["priority"],
        egress=settings["egress"],
        labels=settings["labels"],
        asset=settings["asset"],
        btc_valuation=settings["btc_valuation"],
        stale_after_s=settings["stale_after"] * settings["interval"],
    )


def check_keys(node: Node, path: str, findings: Findings) -> None:
    """Report keys that are missing or do not go together. By what is written, so that it is said at once."""
    entries = node.entries
    if node.refused or not isinstance(node.value, dict | None):
        return
    if "api_key" not in entries:
        findings.add(node, path, "'api_key' is missing", "add api_key: env:NAME or file:PATH")
    if "secret" in entries and "private_key" in entries:
        findings.add(
            entries["private_key"],
            f"{path}.private_key",
            "'secret' and 'private_key' are both given",
            "keep the one that belongs to the API key",
        )
    if "secret" not in entries and "private_key" not in entries:
        findings.add(
            node,
            path,
            "neither 'secret' nor 'private_key' is given",
            "add secret: env:NAME (HMAC) or private_key: file:PATH (Ed25519, RSA)",
        )
    if "passphrase" in entries and "private_key" not in entries:
        findings.add(
            entries["passphrase"], f"{path}.passphrase", "a passphrase without 'private_key'", "remove it"
        )


def read_keys(section: KeysSection, node: Node, path: str, source: Source) -> AccountKeys | None:
    """Return where the keys of an entry are kept; ``None`` if there is no API key, which is said elsewhere."""

    def setting(key: str, reference: SecretReference | None) -> SecretSetting | None:
        if reference is None:
            return None
        place = source.findings.place(node.entries[key])
        return SecretSetting(reference, source.directory, f"{path}.{key}", place)

    api_key = setting("api_key", section.api_key)
    if api_key is None:
        return None
    return AccountKeys(
        api_key,
        secret=setting("secret", section.secret),
        private_key=setting("private_key", section.private_key),
        passphrase=setting("passphrase", section.passphrase),
    )
