"""Means over sequences."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any


def summarise(
    rows: Iterable[Mapping[str, Any]],
) -> tuple[dict[str, float | None], dict[str, float | None], dict[str, int]]:
    """Mean, median and number of determined values of every metric; None values are counted out, never as 0."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, bool) or not (value is None or isinstance(value, int | float)):
                continue
            values.setdefault(name, [])
            if value is not None:
                values[name].append(float(value))
    mean = {name: statistics.fmean(found) if found else None for name, found in values.items()}
    median = {name: statistics.median(found) if found else None for name, found in values.items()}
    return mean, median, {name: len(found) for name, found in values.items()}
