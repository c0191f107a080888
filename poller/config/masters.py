"""``discover``: the master accounts that are asked which sub-accounts exist."""

from __future__ import annotations

from collections.abc import Collection

from poller.config.document import Node, join, shown_key
from poller.config.files import Source
from poller.config.fleet import check_egress, check_keys, read_keys
from poller.config.models import NAME_RULE, DiscoverSection, is_name
from poller.config.settings import DiscoverSettings


def read_discover(node: Node, source: Source, egress: Collection[str]) -> dict[str, DiscoverSettings]:
    """Return those that are valid, by name; report what is wrong with the others."""
    found: dict[str, DiscoverSettings] = {}
    findings = source.findings
    for name, entry in findings.mapping(node, "discover").items():
        path = join("discover", name)
        if not is_name(name):
            findings.add(entry, path, f"{shown_key(name)} cannot name a master account", NAME_RULE)
        section = findings.check(DiscoverSection, entry, path)
        check_keys(entry, path, findings)
        check_egress(entry, path, egress, findings)
        keys = None if section is None else read_keys(section, entry, path, source)
        if section is not None and keys is not None:
            found[name] = DiscoverSettings(keys, section.egress, section.interval)
    return found
