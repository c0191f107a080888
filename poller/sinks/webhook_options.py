"""Options of the ``webhook`` sink, checked as far as they can be before anything is sent."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from poller import webhooks
from poller.secrets import Secret
from poller.sinks.messages import MessageOptions
from poller.sinks.peers import Network, PeerRefused, Peers, host_of, parse_endpoint
from poller.sinks.tls import TlsOptions
from poller.units import Duration

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_OURS = re.compile(
    r"(webhook|ce|content|transfer|proxy|sec)-.*|host|connection|expect|te|trailer|upgrade|cookie|keep-alive"
    r"|accept-encoding|user-agent",
    re.IGNORECASE,
)


class WebhookOptions(MessageOptions, TlsOptions):
    """Options of the ``webhook`` sink."""

    url: Secret = Field(
        description="Where to post to, https; its path and query may hold a token. No fields of records."
    )
    secret: Secret = Field(description="What to sign with: whsec_ and Base64, or whsk_ for Ed25519.")
    previous_secret: Secret | None = Field(
        None, description="The secret before it: during a rotation requests carry both signatures."
    )
    credential: Secret | None = Field(None, description="Value of a further header, such as 'Bearer ...'.")
    credential_header: str = Field("Authorization", description="The name of that header.")
    concurrency: int = Field(8, ge=1, le=64, description="Most requests at a time, each of another account.")
    timeout: Duration = Field(
        15.0, gt=0, le=300, description="From the start of a request to the head of its answer, such as 15s."
    )
    allow_private: tuple[Network, ...] = Field(
        (), description="Private networks that may be connected to, such as 10.1.0.0/16."
    )

    # What stands for a secret while the rest is checked is empty.

    @field_validator("url")
    @classmethod
    def _is_an_url(cls, url: Secret) -> Secret:
        if url.reveal():
            parse_endpoint(url.reveal())
        return url

    @field_validator("secret", "previous_secret")
    @classmethod
    def _can_sign(cls, secret: Secret | None) -> Secret | None:
        if secret is not None and secret.reveal():
            webhooks.check_signing_secret(secret.reveal())
        return secret

    @field_validator("credential")
    @classmethod
    def _is_a_value(cls, credential: Secret | None) -> Secret | None:
        if (
            credential is not None
            and credential.reveal()
            and not _HEADER_VALUE.fullmatch(credential.reveal())
        ):
            raise ValueError("a header's value is one line of ASCII")
        return credential

    @field_validator("credential_header")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _HEADER_NAME.fullmatch(name) or _OURS.fullmatch(name):
            raise ValueError(f"{name[:80]!r} cannot be the header of a credential; write one like X-Api-Key")
        return name

    @model_validator(mode="after")
    def _leads_somewhere(self) -> WebhookOptions:
        if self.url.reveal():
            url = parse_endpoint(self.url.reveal())
            if url.scheme == "http" and self.has_tls_files():
                raise ValueError("'ca' and 'certificate' are for https")
            if _is_address(host_of(url)):
                try:
                    Peers(host_of(url), self.allow_private).check(host_of(url))
                except PeerRefused as error:
                    raise ValueError(str(error)) from None
        return self


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
