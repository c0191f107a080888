"""What errors of a Kafka client mean: whether they pass, and if they do not, what to repair. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

from aiokafka import errors

from poller.errors import SinkBroken, SinkError, SinkUnavailable

# What does not pass by itself, and what somebody has to do about it. Everything else is transient.
_BROKEN: Final[Mapping[type[BaseException], str]] = {
    errors.UnknownTopicOrPartitionError: (
        "create the topic, or let brokers create topics (auto.create.topics.enable)"
    ),
    errors.InvalidTopicError: "give 'topic' another name",
    errors.TopicAuthorizationFailedError: "allow our user to Describe and Write the topic",
    errors.ClusterAuthorizationFailedError: "allow our user IdempotentWrite on the cluster",
    errors.SaslAuthenticationFailed: "check 'user' and 'password'",
    errors.AuthenticationFailedError: "check 'user' and 'password'",
    errors.UnsupportedSaslMechanismError: "set 'sasl' to a mechanism that the brokers offer",
    errors.IllegalSaslStateError: "name a listener for SASL in 'bootstrap', or leave 'sasl' out",
    errors.AuthenticationMethodNotSupported: "set 'sasl' to a mechanism that the brokers offer",
    errors.SecurityDisabled: "name a listener for SASL in 'bootstrap', or leave 'sasl' out",
    errors.UnsupportedVersionError: "use brokers of version 0.11 or later",
    errors.IncompatibleBrokerVersion: "use brokers of version 0.11 or later",
    errors.UnrecognizedBrokerVersion: "use brokers of version 0.11 or later",
    errors.UnsupportedForMessageFormatError: "set the topic's message.format.version to 0.11 or later",
    errors.UnsupportedCodecError: "set 'compression' to what the brokers understand",
    errors.PolicyViolationError: "see the brokers' policy",
    # Of a whole batch, and no record is wrong: they are as old as the outage that held them up.
    errors.InvalidTimestampError: (
        "raise the topic's message.timestamp.before.max.ms, or set its message.timestamp.type to LogAppendTime"
    ),
    ssl.SSLCertVerificationError: "name the authority of the brokers' certificates as 'ca'",
}
TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError, errors.RecordTooLargeError)
# What follows in a partition once the producer's count of it has a hole.
FOLLOWS = (errors.OutOfOrderSequenceNumber, errors.UnknownProducerId)
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})


def classified(error: BaseException, where: str, text: str = "") -> SinkError:
    """Return what an error of the client means. ``text`` is said of it instead of its own words."""
    said = f"{where}: {text or str(error) or type(error).__name__}"
    for kind, remedy in _BROKEN.items():
        if isinstance(error, kind):
            return SinkBroken(f"{said}; {remedy}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if reason in _NO_TLS:
            return SinkBroken(f"{said}; name a port that speaks TLS in 'bootstrap', or leave 'tls' out")
        if "ALERT" in reason:
            return SinkBroken(f"{said}; the brokers refuse our side of TLS: check 'certificate'")
    return SinkUnavailable(said)
