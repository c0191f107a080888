"""The outbox: what was accepted stays until every sink has it, whatever happens to this process.

Everything durable lies in one SQLite file: records in the order of their acceptance, the baseline of
each account, a cursor per sink, dead letters, and the state of each egress address. Three rules make
SQLite's promises hold here:

* One connection, in one thread (``store``). SQLite before 3.51.3 can corrupt a file in WAL mode when
  two connections write or checkpoint at once; an exclusive lock keeps every other program out, too.
* WAL with ``synchronous=FULL``: when a commit returns, its bytes are on the disk. Concurrent writers
  share a commit (``commits``), so the price of a sync is paid once for all of them.
* No error is swallowed. No room is ``OutboxFull``: nothing was accepted, and it works again when there
  is room. Any other failed write or sync is ``OutboxFailed`` for good: after it, what the kernel says
  about the file cannot be trusted, and a restart is the only honest way to find out.

Next to ``outbox.db`` lie ``outbox.db-wal`` (part of it!), ``outbox.db.lock`` (who owns it),
``outbox.db.reserve`` (room that is given back when the disk is full, so that sinks can still move
their cursors and free more) and, after a damage was met, ``outbox.db.suspect`` (asks the next start for a
full check).
"""

from poller.outbox.outbox import Outbox
from poller.outbox.values import DeadLetter, OutboxStats, WhenFull

__all__ = ["DeadLetter", "Outbox", "OutboxStats", "WhenFull"]
