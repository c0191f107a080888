"""Options for encrypted connections, with real files."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from pydantic import ValidationError

from poller.errors import SinkBroken
from poller.sinks.tls import TlsOptions, ssl_context


def test_without_files_the_system_decides_whom_to_trust() -> None:
    context = ssl_context(TlsOptions())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SinkBroken, match=r"nowhere\.pem: there is no such file"):
        ssl_context(TlsOptions(ca=tmp_path / "nowhere.pem"))


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(SinkBroken, match=r"ca\.pem: not usable for TLS"):
        ssl_context(TlsOptions(ca=tmp_path / "ca.pem"))


def test_a_key_needs_its_certificate(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="'private_key' without its 'certificate'"):
        TlsOptions(private_key=tmp_path / "key.pem")
    assert TlsOptions(ca=tmp_path / "ca.pem").has_tls_files()
    assert not TlsOptions().has_tls_files()
