"""Run records, their merging, and the files that are made of them."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import RecordError, UsageError
from sae_checks.errors.wording import listed, said, shown


def bad_record(path: str, problem: str) -> RecordError:
    return RecordError(
        said(
            f"{shown(path)} is not a run record: {shown(problem, n_most=300)}",
            expected="strict JSON with schema 3, as --sae-record writes it",
            got=shown(problem, n_most=300),
            attempt="pytest --sae-release X --sae-record FILE",
        )
    )


def not_mergeable(record: str, what: str, first: str, here: str) -> RecordError:
    return RecordError(
        said(
            f"{shown(record)} is not of the same run as the first record: {shown(what)} differs",
            expected=shown(first, n_most=300),
            got=shown(here, n_most=300),
            attempt="records of runs that differ in --sae-shard alone, made by one version on the same files",
        )
    )


def shards_missing(cells: Sequence[str]) -> RecordError:
    return RecordError(
        said(
            f"{len(cells)} check(s) of the release are in none of the records: this is not the whole release",
            expected="a record of every shard",
            got=f"none that has {listed(cells)}",
            attempt="run the missing shards; a shard that failed to start leaves no record",
        )
    )


def not_explained(path: str, pattern: str, sae_ids: Sequence[str], explained: Sequence[str]) -> RecordError:
    return RecordError(
        said(
            f"{path} explains no SAE that {shown(pattern)} matches",
            expected="a record of a run with --sae-explain, and one of the SAEs that it explains",
            got=f"explained: {listed(explained) if explained else 'none'}; SAEs: {listed(sae_ids)}",
            attempt=f"pytest --sae-release=NAME --sae-explain={shown(pattern)!r} --sae-record=FILE",
        )
    )


def not_written(path: str, problem: str) -> UsageError:
    return UsageError(
        said(
            f"{shown(path)} cannot be written",
            expected="a file in a folder that exists and can be written",
            got=shown(problem, n_most=300),
            attempt="another path",
        )
    )


def report_not_written(folder: str, problem: str) -> UsageError:
    return UsageError(
        said(
            f"the report cannot be written to {shown(folder)}",
            expected="a folder, or a place where one can be made",
            got=shown(problem, n_most=300),
            attempt="another --sae-report DIR; sae-checks report RECORD --out DIR writes it from the run record, too",
        )
    )


def no_matplotlib() -> str:
    return said(
        "the report has no PNGs of its plots",
        expected="matplotlib, which draws them",
        got="it is not installed; index.html and summary.md are whole without it",
        attempt="pip install 'sae-checks[report]'",
    )


def nothing_to_export(path: str, what: str) -> UsageError:
    return UsageError(
        said(
            f"the record {shown(path)} has nothing to export",
            expected=what,
            got="none",
            attempt="the record of a run that measured something",
        )
    )


def wandb_missing(problem: str) -> UsageError:
    return UsageError(
        said(
            "--format wandb needs the package wandb",
            expected="wandb, which transformer-lens 3 brings along",
            got=shown(problem, n_most=300),
            attempt="pip install wandb",
        )
    )
