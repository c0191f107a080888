"""Options for an encrypted connection: which authorities are trusted, and our own certificate.

There is no option that switches the check of the server's certificate off.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from poller.errors import SinkBroken
from poller.sinks import SinkOptions


class TlsOptions(SinkOptions):
    """Options of every sink whose client speaks TLS."""

    ca: Path | None = Field(
        None, description="PEM file of the authorities to trust, instead of the system's."
    )
    certificate: Path | None = Field(None, description="PEM file of our own certificate, for mutual TLS.")
    private_key: Path | None = Field(
        None, description="PEM file of its key; if it is left out, the key stands in the certificate's file."
    )

    @classmethod
    def files(cls, options: Mapping[str, Any]) -> list[Path]:
        """Return the files that options as they are written name."""
        return [
            options[name] for name in ("ca", "certificate", "private_key") if options.get(name) is not None
        ]

    @model_validator(mode="after")
    def _key_belongs_to_a_certificate(self) -> TlsOptions:
        if self.private_key is not None and self.certificate is None:
            raise ValueError("'private_key' without its 'certificate'; add it, or remove the key")
        return self

    def has_tls_files(self) -> bool:
        """Tell whether any of the options is given: then the connection has to be encrypted."""
        return self.ca is not None or self.certificate is not None


def ssl_context(options: TlsOptions) -> ssl.SSLContext:
    """Return what to connect with. Reads files: call it when opening, which may be tried again.

    Raises:
        SinkBroken: a file is missing or is not what it should be.
    """
    named = [path for path in (options.ca, options.certificate, options.private_key) if path is not None]
    for path in named:
        if not path.is_file():
            raise SinkBroken(f"{path}: there is no such file")
    try:
        context = ssl.create_default_context(cafile=options.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if options.certificate is not None:
            # Without a password of its own OpenSSL would ask for one on the terminal.
            context.load_cert_chain(options.certificate, options.private_key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        files = ", ".join(map(str, named))
        raise SinkBroken(f"{files}: not usable for TLS: {error.strerror or error}") from error
    return context
