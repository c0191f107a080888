"""Files for a server with TLS and for whoever trusts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.exchange.certificates import Authority


@dataclass(frozen=True)
class TlsFiles:
    """PEM files.

    Attributes:
        ca: the authority.
        pair: a certificate for 127.0.0.1 together with its key; a client may show it, too.
    """

    ca: Path
    pair: Path


def tls_files(directory: Path) -> TlsFiles:
    """Write the files of a new authority into a new directory."""
    directory.mkdir()
    authority = Authority(directory)
    authority.serving()
    [pair] = directory.glob("*.pem")
    ca = directory / "ca.pem"
    ca.write_text(authority._pem)
    return TlsFiles(ca, pair)
