"""Limits: what is wrong with a file of limits, and limits that cannot be written."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import RecordError, UsageError
from sae_checks.errors.wording import listed, message, shown, typed


def bad_thresholds(path: str, where: str, problem: str, expected: str) -> UsageError:
    return UsageError(
        message(
            f"{shown(path)} {shown(where)}: {shown(problem)}",
            expected=expected,
            got=shown(problem),
            attempt="sae-checks calibrate RECORD, which writes such tables",
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


def no_table_matches(
    file: str, release: str, tables: Sequence[str], sae_ids: Sequence[str], fitting_name: str
) -> UsageError:
    """*fitting_name* is a release's name under which tables would match; empty: there is none."""
    attempt = (
        typed("--sae-name", fitting_name) if fitting_name else "sae-checks list RELEASE, which shows the names to match"
    )
    return UsageError(
        message(
            f"no table of {shown(file)} matches release {shown(release)!r}, so its limits would not apply",
            expected=f"a table for the name {shown(release)!r} (--sae-name) and one of: {listed(sae_ids)}",
            got=listed(tables, n_most=3),
            attempt=attempt,
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
