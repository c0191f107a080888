"""Hypothesis strategies for the poller's values."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import strategies as st

from poller.model import Balance

# Up to 38 digits, none of which may be lost.
amounts = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places), st.integers(0, 10**38 - 1), st.integers(0, 30)
)
assets = st.one_of(
    st.sampled_from(["BTC", "ETH", "USDT", "LDBNB", "1INCH", "456", "币安人生"]),
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=64),
)
balances_of_one_asset = st.builds(
    Balance,
    asset=assets,
    free=amounts,
    locked=amounts,
    freeze=amounts,
    withdrawing=amounts,
    ipoable=amounts,
    btc_valuation=st.none() | amounts,
)
holdings = st.lists(balances_of_one_asset, max_size=8, unique_by=lambda balance: balance.asset).map(
    lambda rows: tuple(sorted(rows, key=lambda balance: balance.asset))
)
