"""Baselines and histories of runs."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import HistoryError, RecordError, UsageError
from sae_checks.errors.wording import listed, message, shown, typed


def bad_baseline(asked: str, problem: str) -> UsageError:
    return UsageError(
        message(
            f"--sae-baseline {shown(asked)} is no run to compare with",
            expected="a run record, last, the id of a run in --sae-history, or a git revision that has the record",
            got=shown(problem, n_most=300),
            attempt="pytest --sae-release=NAME --sae-out=DIR, and then the same with --sae-baseline=last",
        )
    )


def no_green_run(got: str) -> UsageError:
    return UsageError(
        message(
            "--sae-baseline last finds no run to compare with",
            expected="a run that was green and judged every check (no -k, no -x), in the folder of --sae-out or in the "
            "history",
            got=shown(got, n_most=300),
            attempt="pytest --sae-release=NAME --sae-out=DIR; or sae-checks accept DIR --reason WHY, if it is red",
        )
    )


def own_baseline(asked: str) -> UsageError:
    return UsageError(
        message(
            f"--sae-baseline {shown(asked)} is the record that this run replaces",
            expected="a file that stays as it is",
            got="the record.json of --sae-out: after a regression the next run would be compared with it",
            attempt="--sae-baseline=last, the last green run; or a copy of the file",
        )
    )


def no_value_before(subject: str, why: str) -> RecordError:
    return RecordError(
        message(
            f"{shown(subject)} cannot be compared: the baseline has no value of it",
            expected="a value, since this comparison was selected",
            got=shown(why, n_most=300),
            attempt="sae-checks accept DIR --reason WHY, with the --sae-out of a run that has it",
        )
    )


def not_accepted(problem: str) -> UsageError:
    return UsageError(
        message(
            "this run cannot be the baseline",
            expected="a run that judged every check (no -k, no -x, not interrupted), and a reason",
            got=shown(problem, n_most=300),
            attempt="pytest --sae-release=NAME --sae-out=DIR; then sae-checks accept DIR --reason WHY",
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
