"""Why a secret cannot be had: a mistake that somebody has to repair, or an outage that ends by itself."""

from __future__ import annotations


class SecretUnreadable(ValueError):
    """A secret cannot be had from where its reference points. The text never holds any of it.

    Attributes:
        remedy: what to do about it; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class SecretUnavailable(SecretUnreadable):
    """Where the secret is kept cannot be reached now. Nothing is wrong with the reference: try again later."""
