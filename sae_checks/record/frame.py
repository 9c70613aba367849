"""Results as a table of pandas, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from sae_checks.record import run_verdict
from sae_checks.record.results import Result

_COLUMNS = ("sae", "check", "outcome", "measure", "value", "low", "high", "unit", "n", "limit", "reason")


def of_results(results: Iterable[Result]) -> Any:  # Any: pandas' DataFrame, which mypy knows nothing of
    """The DataFrame of `Record.to_frame`."""
    rows = [_row(result) for result in results if result.reason != run_verdict.NOT_SELECTED]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _row(result: Result) -> tuple[object, ...]:
    found = result.judged
    numbers = (None,) * 6 if found is None else (found.measure, found.value, found.low, found.high, found.unit, found.n)
    limit = None if result.limit is None else str(result.limit)
    return (result.sae_id, result.check, result.outcome, *numbers, limit, result.reason)
