"""Sinks: where records go. A sink only writes; the delivery loop batches, retries and counts.

Third parties add one by declaring an entry point in the group ``poller.sinks``; the built-in
sinks are declared the same way, in this project's own ``pyproject.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from poller.model import Record

GROUP = "poller.sinks"


class MissingExtra(ImportError):
    """The client that a kind of sink needs is not installed. ``remedy`` is the command that installs it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class SinkOptions(BaseModel):
    """Base of a sink's own options: a misspelt key is an error, not a silent default.

    The options every sink has (``kind``, ``emit``, ``batch`` ...) are not here: delivery owns them.
    A field of type ``pathlib.Path`` arrives resolved against the file that names it, and a field of
    type ``poller.secrets.Secret`` is written as a secret reference (``env:NAME``, ``file:PATH`` ...).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Sink(Protocol):
    """One destination.

    The delivery loop calls ``open`` once (again, after a failure of it), then ``write`` with never
    more than one call at a time, then ``close`` once; so an implementation needs no locks. ``close``
    is called even if ``open`` failed.
    """

    Options: ClassVar[type[SinkOptions]]

    def __init__(self, options: Any) -> None: ...

    async def open(self) -> None:
        """Connect.

        Raises:
            SinkUnavailable: try again later.
            SinkBroken: somebody has to repair the set-up first.
        """
        ...

    async def write(self, batch: Sequence[Record]) -> None:
        """Write the batch in order; to return is to promise that every record is safe there.

        A batch, or a part of it, may come again after a crash or an error, with the same ids.

        Raises:
            SinkUnavailable: the same batch comes again later.
            SinkRejected: some records are refused for good; the others were written.
            BatchRejected: a record is refused for good, and which one is not known.
            SinkBroken: nothing passes until somebody repairs the set-up.
        """
        ...

    async def close(self) -> None:
        """Let go of everything. Harmless without ``open`` and when called twice."""
        ...


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a sink publishes, for documents that describe it; without credentials.

    Attributes:
        protocol: as AsyncAPI names it, such as ``nats``, ``kafka``, ``amqp``, ``https``.
        host: ``host:port`` of the server; several are separated by commas.
        address: the channel's name there, fields of the record in braces.
        content_type: of a message.
        bindings: what is peculiar to the protocol, as AsyncAPI's channel binding has it.
    """

    protocol: str
    host: str
    address: str
    content_type: str = "application/json"
    bindings: Mapping[str, Any] = field(default_factory=dict)


class Described(Protocol):
    """What a sink may offer besides: to say where it publishes."""

    def channel(self) -> Channel:
        """Return where records go. Works without ``open``, and does no I/O."""
        ...


def defaults(sink: type[Sink]) -> Mapping[str, Any]:
    """Return what a kind has for the options of every sink where they are left out, as one would write them.

    A kind declares them as ``DEFAULTS: ClassVar[Mapping[str, Any]] = {"batch": 10_000, "linger": "5m"}``.
    """
    found: Mapping[str, Any] = getattr(sink, "DEFAULTS", {})
    return found


def installed() -> dict[str, EntryPoint]:
    """Return the entry point of every kind of sink that is installed, ours and others'."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load(kind: str) -> type[Sink]:
    """Return the class of a kind of sink, imported only now.

    Raises:
        LookupError: no such kind; the text names those installed.
        MissingExtra: its client is not installed.
    """
    found = installed()
    if kind not in found:
        raise LookupError(f"unknown kind {kind!r}; installed: {', '.join(sorted(found))}")
    point = found[kind]
    try:
        sink: type[Sink] = point.load()
    except ModuleNotFoundError as error:
        # The extra stands behind the entry point, as in "poller.sinks.redis:RedisSink [redis]".
        if not point.extras or error.name == point.module:
            raise
        package = f"{point.dist.name if point.dist else 'poller'}[{','.join(point.extras)}]"
        raise MissingExtra(
            f"kind {kind!r} needs the package {error.name!r}, which is not installed",
            f"run: pip install '{package}'",
        ) from error
    return sink
