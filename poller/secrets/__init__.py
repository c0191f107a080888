"""Secrets: the type that never shows itself, the references that name where one is kept, redaction."""

from __future__ import annotations

from poller.secrets.errors import SecretUnavailable, SecretUnreadable
from poller.secrets.reading import read_all
from poller.secrets.redaction import HIDDEN, may_be_secret, redact
from poller.secrets.references import SecretReference, parse_reference, reference_in
from poller.secrets.secret import Secret

__all__ = [
    "HIDDEN",
    "Secret",
    "SecretReference",
    "SecretUnavailable",
    "SecretUnreadable",
    "may_be_secret",
    "parse_reference",
    "read_all",
    "redact",
    "reference_in",
]
