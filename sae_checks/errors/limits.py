"""Limits: what is wrong with a file of limits, and limits that cannot be written."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import RecordError, UsageError
from sae_checks.errors.wording import listed, message, shown


def bad_thresholds(path: str, where: str, problem: str, expected: str) -> UsageError:
    return UsageError(
        message(
            f"{shown(path)} {shown(where)}: {shown(problem)}",
            expected=expected,
            got=shown(problem),
            attempt="a table as in the shipped thresholds.toml; its head explains every key",
        )
    )


def no_limit(check: str, sae_id: str, files: Sequence[str]) -> UsageError:
    return UsageError(
        message(
            f"no limit for check {check!r} of {shown(sae_id)}",
            expected=f"a table [default.{check}]   ({listed(files)})",
            got="no table that applies",
            attempt=f"sae-checks calibrate RECORD, or add [default.{check}] with measure, max or min, unit and source",
        )
    )


def not_calibrated(record: str, problem: str, attempt: str) -> RecordError:
    return RecordError(
        message(
            f"no limits follow from {shown(record)}: {shown(problem, n_most=300)}",
            expected="the record of a whole release, measured to the end by --sae-profile=full",
            got=shown(problem, n_most=300),
            attempt=attempt,
        )
    )
