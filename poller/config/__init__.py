"""The configuration: ``load`` reads ``accounts.yaml``, ``read_secrets`` what it refers to.

Both report everything that is wrong at once, as a ``poller.errors.ConfigError``, and show no secret.
"""

from __future__ import annotations

from poller.config.credentials import Secrets, read_again, read_secrets, read_sinks
from poller.config.loading import load, load_outbox
from poller.config.settings import (
    AccountKeys,
    BudgetSettings,
    Config,
    DiscoverSettings,
    EgressSettings,
    ExchangeSettings,
    LoggingSettings,
    MetricsSettings,
    OutboxSettings,
    Place,
    ReloadSettings,
    SecretSetting,
    ShutdownSettings,
    SinkSettings,
    TracingSettings,
)

__all__ = [
    "AccountKeys",
    "BudgetSettings",
    "Config",
    "DiscoverSettings",
    "EgressSettings",
    "ExchangeSettings",
    "LoggingSettings",
    "MetricsSettings",
    "OutboxSettings",
    "Place",
    "ReloadSettings",
    "SecretSetting",
    "Secrets",
    "ShutdownSettings",
    "SinkSettings",
    "TracingSettings",
    "load",
    "load_outbox",
    "read_again",
    "read_secrets",
    "read_sinks",
]
