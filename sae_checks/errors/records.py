"""Run records, their merging, and the files that are made of them."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import RecordError, UsageError
from sae_checks.errors.wording import listed, message, shown, typed


def bad_record(path: str, problem: str, *, instead: str = "") -> RecordError:
    """*instead*: path of the record that was probably meant; empty: unknown."""
    return RecordError(
        message(
            f"{shown(path)} is not a run record",
            expected="record.json of --sae-out: strict JSON with schema 3 or 4",
            got=shown(problem, n_most=300),
            attempt=shown(instead, n_most=300) or "pytest --sae-release=NAME --sae-out=DIR",
        )
    )


def not_mergeable(record: str, what: str, first: str, here: str) -> RecordError:
    return RecordError(
        message(
            f"{shown(record)} is not of the same run as the first record: {shown(what)} differs",
            expected=shown(first, n_most=300),
            got=shown(here, n_most=300),
            attempt="sae-checks merge RECORDS that differ in --sae-shard alone, of one version and the same files",
        )
    )


def shards_missing(cells: Sequence[str]) -> RecordError:
    return RecordError(
        message(
            f"{len(cells)} check(s) of the release are in none of the records: this is not the whole release",
            expected="the record of every shard",
            got=f"none that has {listed(cells)}",
            attempt="pytest --sae-release=NAME --sae-shard=I/N --sae-out=DIR, for each missing shard",
        )
    )


def not_explained(path: str, pattern: str, sae_ids: Sequence[str], explained: Sequence[str]) -> RecordError:
    return RecordError(
        message(
            f"{path} explains no SAE that {shown(pattern)} matches",
            expected="the record of a run with --sae-explain, and one of the SAEs that it explains",
            got=f"explained: {listed(explained)}; SAEs: {listed(sae_ids)}",
            attempt=f"pytest --sae-release=NAME {typed('--sae-explain', pattern)} --sae-out=DIR",
        )
    )


def not_written(path: str, problem: str) -> UsageError:
    return UsageError(
        message(
            f"{shown(path)} cannot be written",
            expected="a file in a folder that exists and can be written",
            got=shown(problem, n_most=300),
        )
    )


def report_not_written(folder: str, problem: str) -> UsageError:
    return UsageError(
        message(
            f"the report cannot be written to {shown(folder)}",
            expected="a folder, or a place where one can be created",
            got=shown(problem, n_most=300),
            attempt="--sae-out=DIR with another folder, or sae-checks report RECORD --out=DIR",
        )
    )


def no_model_card(profile: str, attempt: str) -> UsageError:
    return UsageError(
        message(
            "no model card follows from this record: values of a run that stopped early are biased",
            expected="the record of a run with --sae-profile=full",
            got=f"--sae-profile={shown(profile)}",
            attempt=attempt,
        )
    )


def nothing_to_export(path: str, what: str) -> UsageError:
    return UsageError(
        message(
            f"the record {shown(path)} has nothing to export",
            expected=what,
            got="none",
            attempt="pytest --sae-release=NAME --sae-out=DIR, for a record with measurements",
        )
    )


def wandb_missing(problem: str) -> UsageError:
    return UsageError(
        message(
            "--format wandb needs the package wandb",
            expected="wandb, which transformer-lens 3 installs",
            got=shown(problem, n_most=300),
            attempt="pip install wandb",
        )
    )
