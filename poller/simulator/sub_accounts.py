"""The master account's sub-accounts, as its list shows them page by page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from poller.simulator.rules import Refused, Sent, illegal

PARAMETERS: Final = ("email", "isFreeze", "page", "limit")
LIMIT: Final = 1  # rows on a page, unless more are asked for: that few is what the exchange does
MOST: Final = 200
CREATED_MS: Final = 1_767_225_600_000


def email_of(account: str) -> str:
    """Return the e-mail of an account of the fleet."""
    return f"{account}@sub.example"


@dataclass(slots=True)
class SubAccount:
    """One sub-account. It need not be one of the fleet."""

    email: str
    is_frozen: bool = False


class SubAccounts:
    """All sub-accounts, in the order of their creation."""

    def __init__(self, accounts: Iterable[str]) -> None:
        self.all = [SubAccount(email_of(account)) for account in accounts]

    def put(self, email: str, *, is_frozen: bool) -> None:
        """Create it, or freeze or thaw the one of that e-mail."""
        for one in self.all:
            if one.email == email:
                one.is_frozen = is_frozen
                return
        self.all.append(SubAccount(email, is_frozen))

    def remove(self, email: str) -> None:
        """Delete it. Harmless if there is none."""
        self.all = [one for one in self.all if one.email != email]

    def page(self, sent: Sent) -> Any:
        """Return the answer to a request. Raises ``Refused``."""
        page, limit = _count(sent, "page", 1), _count(sent, "limit", LIMIT)
        if page < 1 or not 1 <= limit <= MOST:
            raise Refused(400, -1102, f"page counts from 1, limit is 1 to {MOST}.")
        frozen = sent.values.get("isFreeze", "")
        if frozen not in {"", "true", "false"}:
            raise illegal("isFreeze", "true|false")
        email = sent.values.get("email")
        wanted = [
            (number, one)
            for number, one in enumerate(self.all)
            if email in {None, "", one.email} and frozen in {"", str(one.is_frozen).lower()}
        ]
        return {"subAccounts": [_row(*item) for item in wanted[(page - 1) * limit : page * limit]]}


def _row(number: int, one: SubAccount) -> dict[str, Any]:
    return {
        "subUserId": 1_000_001 + number,
        "email": one.email,
        "remark": "",
        "isFreeze": one.is_frozen,
        "createTime": CREATED_MS + number,
        "isManagedSubAccount": False,
        "isAssetManagementSubAccount": False,
    }


def _count(sent: Sent, name: str, default: int) -> int:
    value = sent.values.get(name)
    if not value:
        return default
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise illegal(name, "^[0-9]{1,9}$")
    return int(value)
