"""What a fleet holds, chosen and added up, exactly. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from poller.model import AMOUNT_FIELDS, EXACT, Account

SUMMED = (*AMOUNT_FIELDS, "total")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which accounts and assets are asked for. ``accounts`` are names; ``asset`` ``None`` is all."""

    accounts: frozenset[str]
    asset: str | None = None

    @classmethod
    def of(
        cls,
        accounts: Mapping[str, Account],
        *,
        asset: str | None = None,
        labels: Sequence[str] = (),
        patterns: Sequence[str] = (),
    ) -> Selection:
        """Return the accounts that have all the labels and match one of the patterns, if there are any.

        Raises:
            ValueError: a label or pattern makes no sense, or nobody is left.
        """
        wanted = [_label(label) for label in labels]
        found = frozenset(
            account.name
            for account in accounts.values()
            if all(account.labels.get(name) == value for name, value in wanted)
            and (not patterns or any(fnmatchcase(account.name, pattern) for pattern in patterns))
        )
        if not found:
            asked = " ".join(
                [*(f"--label {label}" for label in labels), *(f"--account {p}" for p in patterns)]
            )
            raise ValueError(f"{asked}: no configured account matches")
        return cls(found, asset)


@dataclass(frozen=True, slots=True)
class AccountHolding:
    """What one account holds of what was asked for.

    Attributes:
        rows: its balances as they are, amounts as text.
        total_btc: of the rows whose value is known.
        unvalued: how many rows have none.
        since: when its state began; ``None`` if it always was so.
    """

    account: str
    labels: Mapping[str, str]
    state: str
    since: str | None
    sequence: int
    rows: Sequence[Mapping[str, Any]]
    total_btc: Decimal
    unvalued: int


@dataclass(frozen=True, slots=True)
class AssetHolding:
    """What all accounts together hold of one asset. ``sums`` has every amount, and ``total``."""

    asset: str
    accounts: int
    sums: Mapping[str, Decimal]
    total_btc: Decimal
    unvalued: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the chosen accounts hold.

    Attributes:
        never_polled: chosen accounts that nothing was ever accepted of.
        not_configured: accounts in the outbox that the configuration does not have any more.
    """

    asset: str | None
    accounts: Sequence[AccountHolding]
    never_polled: Sequence[str]
    not_configured: Sequence[str]

    @property
    def total_btc(self) -> Decimal:
        """Value of all rows whose value is known, added exactly."""
        return added(account.total_btc for account in self.accounts)

    @property
    def unvalued(self) -> int:
        """How many rows have no known value."""
        return sum(account.unvalued for account in self.accounts)

    @property
    def doubtful(self) -> list[AccountHolding]:
        """The accounts that may hold something else by now."""
        return [account for account in self.accounts if account.state != "ok"]


def added(amounts: Iterable[Decimal]) -> Decimal:
    """Add amounts up exactly."""
    total = Decimal(0)
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def holdings(
    answer: Sequence[Mapping[str, Any]], accounts: Mapping[str, Account], selection: Selection
) -> Holdings:
    """Choose from the answer of ``fleet.balances``, in the order of the configuration."""
    held = {row["account"]: row for row in answer}
    chosen = [name for name in accounts if name in selection.accounts]
    polled = [name for name in chosen if name in held and held[name]["sequence"] > 0]
    return Holdings(
        asset=selection.asset,
        accounts=[_holding(held[name], accounts[name].labels, selection.asset) for name in polled],
        never_polled=[name for name in chosen if name not in polled],
        not_configured=sorted(held.keys() - accounts.keys()),
    )


def by_asset(accounts: Iterable[AccountHolding]) -> list[AssetHolding]:
    """Add up by asset; what is worth most comes first, then by name."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for account in accounts:
        for row in account.rows:
            rows.setdefault(row["asset"], []).append(row)
    found = [
        AssetHolding(
            asset=asset,
            accounts=len(of_asset),
            sums={field: added(Decimal(row[field]) for row in of_asset) for field in SUMMED},
            total_btc=_value(of_asset),
            unvalued=_unvalued(of_asset),
        )
        for asset, of_asset in rows.items()
    ]
    return sorted(found, key=lambda holding: (holding.total_btc.copy_negate(), holding.asset))


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--label {text}: write NAME=TEXT, such as desk=mm")
    return name, value


def _holding(row: Mapping[str, Any], labels: Mapping[str, str], asset: str | None) -> AccountHolding:
    rows = [balance for balance in row["balances"] if asset is None or balance["asset"] == asset]
    return AccountHolding(
        account=row["account"],
        labels=labels,
        state=row["state"],
        since=row["since"],
        sequence=row["sequence"],
        rows=rows,
        total_btc=_value(rows),
        unvalued=_unvalued(rows),
    )


def _value(rows: Sequence[Mapping[str, Any]]) -> Decimal:
    return added(Decimal(row["btc_valuation"]) for row in rows if row["btc_valuation"] is not None)


def _unvalued(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["btc_valuation"] is None for row in rows)
