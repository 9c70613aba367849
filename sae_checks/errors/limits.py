"""Limits: what is wrong with thresholds.toml, and with limits that are to be written."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import UsageError
from sae_checks.errors.wording import listed, said, shown


def bad_thresholds(path: str, where: str, problem: str, expected: str) -> UsageError:
    return UsageError(
        said(
            f"{shown(path)} {shown(where)}: {shown(problem)}",
            expected=expected,
            got=shown(problem),
            attempt="the shipped thresholds.toml as a pattern; its head explains every key",
        )
    )


def no_limit(check: str, sae_id: str, files: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"no limit for check {check!r} of {shown(sae_id)}",
            expected=f"a table [default.{check}]   ({listed(files)})",
            got="none that applies",
            attempt="add the table by hand, with measure, max or min, unit and source",
        )
    )


def not_calibrated(path: str, problem: str) -> str:
    return said(
        f"no limits were written to {shown(path)}",
        expected="at least one measured value, and a new file that can be written",
        got=shown(problem, n_most=300),
        attempt="again with another file, or with --sae-record: a record keeps everything that was measured",
    )
