"""Baselines and histories of runs."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import HistoryError, RecordError, UsageError
from sae_checks.errors.wording import listed, message, shown, typed


def bad_baseline(asked: str, problem: str) -> UsageError:
    return UsageError(
        message(
            f"--sae-baseline {shown(asked)} is no run to compare with",
            expected="a run record, last, or a git revision that has the record   (pytest --help)",
            got=shown(problem, n_most=300),
            attempt="pytest --sae-release=NAME --sae-out=DIR, and then the same with --sae-baseline=last",
        )
    )


def nothing_in_common(baseline: str, before: Sequence[str], now: Sequence[str]) -> UsageError:
    return UsageError(
        message(
            f"the baseline {shown(baseline)} and this run have no SAE in common",
            expected=f"one of {listed(now)}",
            got=listed(before),
            attempt="--sae-baseline=FILE with the record of an earlier version of this release",
        )
    )


def other_conditions(baseline: str, what: str, flag: str, before: str, now: str) -> UsageError:
    is_other_file = before == now.partition(", sha256 ")[0]
    same = "" if is_other_file else f"{typed(flag, before)}; or "
    return UsageError(
        message(
            f"the baseline {shown(baseline)} is of another {what}",
            expected=f"{shown(before)}, as in the baseline",
            got=shown(now),
            attempt=f"{same}pytest without --sae-baseline, and compare later runs with the new record",
        )
    )


def not_comparable(subject: str, what: str, before: str, after: str) -> RecordError:
    return RecordError(
        message(
            f"{shown(subject)} cannot be compared with the baseline: {what} is not the same",
            expected=f"{shown(before)}, as in the baseline",
            got=shown(after),
            attempt="--sae-baseline=FILE with a record of these options and texts",
        )
    )


def bad_history(url: str, problem: str) -> UsageError:
    return UsageError(
        message(
            f"--sae-history {shown(url)} cannot be used",
            expected="a folder that can be written, or a URL that fsspec opens with the packages that are installed "
            "(s3:// needs s3fs, gs:// needs gcsfs)",
            got=shown(problem, n_most=300),
            attempt="--sae-history=DIR with a folder, which needs no package",
        )
    )


def history_not_kept(url: str, problem: str) -> HistoryError:
    return HistoryError(
        message(
            f"the record of this run is not in the history {shown(url)}",
            expected="one more file there",
            got=shown(problem, n_most=300),
            attempt="--sae-out=DIR in the next run; sae-checks history URL --keep=DIR/record.json adds it later",
        )
    )


def history_not_read(url: str, problem: str) -> HistoryError:
    return HistoryError(
        message(
            f"the history {shown(url)} cannot be read; nothing in it was changed",
            expected="a folder or URL that --sae-history has written to",
            got=shown(problem, n_most=300),
        )
    )


def no_history(url: str, release: str, known: Sequence[str]) -> UsageError:
    return UsageError(
        message(
            f"the history {shown(url)} has no run of {shown(release)}",
            expected=f"one of: {listed(known)}",
            got=shown(release),
            attempt="pytest --sae-release=NAME --sae-history=URL, which adds a run",
        )
    )


def no_such_run(asked: str, url: str, run_ids: Sequence[str]) -> UsageError:
    return UsageError(
        message(
            f"no run {shown(asked)!r}",
            expected="the path of a run record, or with --sae-history=URL the id of one run, or its beginning or end",
            got=f"no such file, and in {shown(url)}: {listed(run_ids)}",
            attempt="sae-checks history URL, which lists the ids",
        )
    )


def unknown_measure(asked: str, known: Sequence[str]) -> UsageError:
    return UsageError(
        message(
            f"no run of this history has a measure {shown(asked)!r}",
            expected=f"one of: {listed(known, n_most=60)}",
            got=shown(asked),
            attempt="sae-checks trend URL RELEASE --all-measures",
        )
    )
