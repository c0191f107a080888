"""Takes the names of metrics out of PromQL."""

from __future__ import annotations

import re

# What stands where a metric could, and is none: functions, operators and modifiers that we use.
_WORDS = frozenset(
    [
        "abs",
        "absent",
        "and",
        "avg",
        "avg_over_time",
        "by",
        "changes",
        "clamp_min",
        "count",
        "group_left",
        "group_right",
        "histogram_quantile",
        "ignoring",
        "increase",
        "label_replace",
        "le",
        "max",
        "max_over_time",
        "min",
        "offset",
        "on",
        "or",
        "rate",
        "sort_desc",
        "sum",
        "time",
        "topk",
        "unless",
        "vector",
        "without",
    ]
)
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")


def metric_names(expression: str) -> set[str]:
    """Return the metrics that an expression asks for."""
    text = re.sub(r"\"[^\"]*\"|'[^']*'", "", expression)  # quoted texts
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)  # matchers and ranges
    text = _GROUPING.sub(" ", text)
    text = re.sub(r"\boffset\s+\w+", " ", text)
    return {word for word in re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*", text) if word not in _WORDS}
