"""Keep the truth about the balances of a fleet of Binance accounts, within one address's weight."""

from __future__ import annotations

__version__ = "0.1.0"
