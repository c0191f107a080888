"""The tables of the ``postgres`` sink: the SQL that makes them, and the one statement that fills them. Pure.

Everything lies in one schema:

* ``snapshots``: one row a snapshot record; ``number`` counts up in the order of delivery.
* ``balances``: what the snapshot listed, one row an asset; what is not listed is zero.
* ``changes``: what differs from the account's snapshot before.
* ``statuses``: the account turned ok, stale, quarantined or removed.
* ``accounts``: which snapshot is an account's last, so that nobody has to search for it.
* ``latest``: a view with the balances of each account's last snapshot.
* ``schema_version``: one row.

The tables have fixed names in one schema, and no templates: a name made from a record would let data make
tables, and who asks about all accounts would have to look for them. Accounts and labels are columns, with
indexes; two fleets have two schemas.

The same id always carries the same bytes, hence the same instant. So where tables are apart by time, and
every unique key has to hold the time, a key of id and instant tells records apart just as the id alone does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

VERSION: Final = 1
NAME_BYTES: Final = 63  # PostgreSQL cuts longer names off without a word

SCHEMA: Final = "poller"  # by default
LAYOUTS: Final = ("plain", "monthly", "timescale")
_TIMED = ("snapshots", "balances", "changes")


def checked(schema: str) -> str:
    """Return the name of a schema, if there can be such a one.

    Raises:
        ValueError: there cannot.
    """
    quoted(schema)
    if schema.startswith("pg_"):
        raise ValueError("names that begin with pg_ belong to PostgreSQL; choose another")
    return schema


def quoted(name: str) -> str:
    """Return a name as an SQL identifier: whatever stands in it, it stays one name.

    Raises:
        ValueError: PostgreSQL cannot have such a name.
    """
    if not name or "\0" in name:
        raise ValueError("a name has at least one character, and none of them is NUL")
    if len(name.encode()) > NAME_BYTES:
        raise ValueError(f"a name can have {NAME_BYTES} bytes; this one has {len(name.encode())}")
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(text: str) -> str:
    """Return a text as an SQL literal, whatever ``standard_conforming_strings`` says."""
    doubled = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{doubled}'"


def upgrades(schema: str) -> list[Sequence[str]]:
    """Return what leads from each version to the next; at index 0 stands what leads from 1 to 2."""
    return []


def ddl(schema: str, layout: str = LAYOUTS[0]) -> list[str]:
    """Return the statements that make everything in a schema, to be run in one transaction."""
    s = quoted(schema)
    statements = [f"CREATE SCHEMA IF NOT EXISTS {s}", *_tables(s, layout), *_indexes(s, layout), _latest(s)]
    if layout == "monthly":
        statements += _months(schema)
    if layout == "timescale":
        statements += [
            f"SELECT create_hypertable({literal(f'{s}.{table}')}, 'observed_at',"
            " chunk_time_interval => interval '7 days', create_default_indexes => false)"
            for table in _TIMED
        ]
    return [
        *statements,
        f"CREATE TABLE {s}.schema_version (version integer NOT NULL)",
        f"INSERT INTO {s}.schema_version (version) VALUES ({VERSION})",
    ]


def script(schema: str, layout: str = LAYOUTS[0]) -> str:
    """Return the same as a script for psql: one transaction.

    Raises:
        ValueError: there can be no such schema, or there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; there are {', '.join(LAYOUTS)}")
    checked(schema)
    return ";\n\n".join(("BEGIN", *ddl(schema, layout), "COMMIT")) + ";"


def _tables(s: str, layout: str) -> list[str]:
    is_timed = layout != "plain"
    time = ", observed_at" if is_timed else ""
    unique = "" if is_timed else " UNIQUE"
    # A foreign key would keep a month from being dropped, and cannot lead to a hypertable's rows.
    parent = "" if is_timed else f" REFERENCES {s}.snapshots (number) ON DELETE CASCADE"
    end = ") PARTITION BY RANGE (observed_at)" if layout == "monthly" else ")"
    return [
        f"""CREATE TABLE {s}.snapshots (
    number bigint GENERATED ALWAYS AS IDENTITY{unique},  -- in the order of delivery
    id uuid NOT NULL,
    account text NOT NULL,
    labels jsonb NOT NULL,
    sequence bigint NOT NULL,
    position bigint NOT NULL,  -- in the outbox
    reason text NOT NULL,  -- first, changed, heartbeat, every
    observed_at timestamptz NOT NULL,
    uncertainty_ms double precision NOT NULL,
    total_btc numeric,  -- NULL: unknown
    egress text NOT NULL,
    latency_ms double precision NOT NULL,
    PRIMARY KEY (id{time})
{end}""",
        f"""CREATE TABLE {s}.balances (
    snapshot bigint NOT NULL{parent},
    observed_at timestamptz NOT NULL,  -- as its snapshot has it
    asset text NOT NULL,
    free numeric NOT NULL,
    locked numeric NOT NULL,
    "freeze" numeric NOT NULL,  -- quoted: a reserved word
    withdrawing numeric NOT NULL,
    ipoable numeric NOT NULL,
    total numeric NOT NULL,  -- free + locked + freeze + withdrawing
    btc_valuation numeric,  -- NULL: unknown
    PRIMARY KEY (snapshot, asset{time})
{end}""",
        f"""CREATE TABLE {s}.changes (
    snapshot bigint NOT NULL{parent},
    observed_at timestamptz NOT NULL,  -- as its snapshot has it
    asset text NOT NULL,
    field text NOT NULL,
    before numeric NOT NULL,
    after numeric NOT NULL,
    PRIMARY KEY (snapshot, asset, field{time})
{end}""",
        f"""CREATE TABLE {s}.statuses (
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    id uuid PRIMARY KEY,
    account text NOT NULL,
    labels jsonb NOT NULL,
    sequence bigint NOT NULL,  -- of the last snapshot; 0 before the first
    state text NOT NULL,  -- ok, stale, quarantined, removed
    reason text NOT NULL,
    since timestamptz NOT NULL
)""",
        # Its rows are updated all the time: with room in their pages no index has to follow.
        f"""CREATE TABLE {s}.accounts (
    account text PRIMARY KEY,
    labels jsonb NOT NULL,
    snapshot bigint NOT NULL,  -- number of the last one
    sequence bigint NOT NULL,
    position bigint NOT NULL,
    observed_at timestamptz NOT NULL
) WITH (fillfactor = 50)""",
    ]


def _indexes(s: str, layout: str) -> list[str]:
    # A unique key, which is an index, has to hold the time.
    by_order = [] if layout == "plain" else [f"CREATE INDEX snapshots_in_order ON {s}.snapshots (number)"]
    return [
        *by_order,
        f"CREATE INDEX snapshots_by_number ON {s}.snapshots (account, number)",
        f"CREATE INDEX snapshots_by_time ON {s}.snapshots (account, observed_at)",
        f"CREATE INDEX snapshots_by_label ON {s}.snapshots USING gin (labels jsonb_path_ops)",
        f"CREATE INDEX changes_by_asset ON {s}.changes (asset, snapshot)",
        f"CREATE INDEX statuses_by_number ON {s}.statuses (account, number)",
    ]


def _latest(s: str) -> str:
    return f"""CREATE VIEW {s}.latest AS
    SELECT a.account, b.asset, b.free, b.locked, b."freeze", b.withdrawing, b.ipoable, b.total,
           b.btc_valuation, a.sequence, a.observed_at, a.labels
    FROM {s}.accounts AS a
    JOIN {s}.balances AS b ON b.snapshot = a.snapshot AND b.observed_at = a.observed_at"""


def _months(schema: str) -> list[str]:
    """Return what makes partitions: one for what has no month, and a function for those that have one."""
    s = quoted(schema)
    return [
        # Without it a record of a month that nobody has made yet would be refused.
        *(f"CREATE TABLE {s}.{table}_rest PARTITION OF {s}.{table} DEFAULT" for table in _TIMED),
        f"""CREATE FUNCTION {s}.add_month(day date) RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    month timestamptz := date_trunc('month', day::timestamp) AT TIME ZONE 'UTC';
    next timestamptz := (date_trunc('month', day::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['snapshots', 'balances', 'changes'] LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS %1$I.%2$I PARTITION OF %1$I.%3$I FOR VALUES FROM (%4$L) TO (%5$L)',
                       {literal(schema)}, name || to_char(day, '_YYYY_MM'), name, month, next);
    END LOOP;
END $function$""",
        f"""SELECT {s}.add_month((date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead))::date)
    FROM generate_series(0, 3) AS ahead""",
    ]


def insert(schema: str) -> str:
    """Return the statement that takes a batch: ``$1`` its snapshots, ``$2`` its statuses, as JSON arrays.

    An element is ``{"position": 7, "record": {...}}``; no id stands there twice. What is there already is
    left as it is, and so is what hangs on it.
    """
    s = quoted(schema)
    columns = "id, account, labels, sequence, position, reason, observed_at, uncertainty_ms, total_btc, egress, latency_ms"
    return f"""
WITH incoming AS MATERIALIZED (
    SELECT sent.place, sent.position, r.*
    FROM ROWS FROM (json_to_recordset($1::json) AS (position bigint, record json))
         WITH ORDINALITY AS sent (position, record, place),
         json_to_record(sent.record) AS r (
             id uuid, account text, labels jsonb, sequence bigint, reason text, observed_at timestamptz,
             uncertainty_ms double precision, total_btc numeric, egress text, latency_ms double precision,
             balances json, changes json)
), fresh AS (
    INSERT INTO {s}.snapshots ({columns})
    SELECT {columns} FROM incoming ORDER BY place
    ON CONFLICT DO NOTHING
    RETURNING number, id, account, labels, sequence, position, observed_at
), holdings AS (
    INSERT INTO {s}.balances (snapshot, observed_at, asset, free, locked, "freeze", withdrawing, ipoable,
                              total, btc_valuation)
    SELECT fresh.number, fresh.observed_at, b.*
    FROM fresh JOIN incoming USING (id), json_to_recordset(incoming.balances) AS b (
        asset text, free numeric, locked numeric, "freeze" numeric, withdrawing numeric, ipoable numeric,
        total numeric, btc_valuation numeric)
), differences AS (
    INSERT INTO {s}.changes (snapshot, observed_at, asset, field, before, after)
    SELECT fresh.number, fresh.observed_at, c.*
    FROM fresh JOIN incoming USING (id), json_to_recordset(incoming.changes) AS c (
        asset text, field text, before numeric, after numeric)
), states AS (
    INSERT INTO {s}.statuses (id, account, labels, sequence, state, reason, since)
    SELECT r.*
    FROM ROWS FROM (json_to_recordset($2::json) AS (record json)) WITH ORDINALITY AS sent (record, place),
         json_to_record(sent.record) AS r (
             id uuid, account text, labels jsonb, sequence bigint, state text, reason text, since timestamptz)
    ORDER BY sent.place
    ON CONFLICT DO NOTHING
)
INSERT INTO {s}.accounts AS held (account, labels, snapshot, sequence, position, observed_at)
SELECT DISTINCT ON (account) account, labels, number, sequence, position, observed_at
FROM fresh ORDER BY account, sequence DESC, position DESC
ON CONFLICT (account) DO UPDATE
SET labels = excluded.labels, snapshot = excluded.snapshot, sequence = excluded.sequence,
    position = excluded.position, observed_at = excluded.observed_at
-- Sequences begin anew after the loss of an outbox: then what was observed later is newer.
WHERE (excluded.sequence, excluded.position) > (held.sequence, held.position)
   OR excluded.observed_at > held.observed_at"""
