"""`sae-checks merge RECORD... --out RECORD`: one record of the shards of a run, and the verdict on it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sae_checks import errors

if TYPE_CHECKING:
    from sae_checks.record.record import Record


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("records", nargs="+", metavar="RECORD", help="what --sae-record wrote, of every shard")
    parser.add_argument("--out", required=True, type=Path, metavar="RECORD", help="write the record of the whole there")


def run(asked: argparse.Namespace) -> int:
    """Merge; 0 where the whole is a pass, 1 where it is not or cannot be told, 4 where *out* cannot be written."""
    from sae_checks.record import merging, record

    try:
        if asked.out.is_dir() or not asked.out.absolute().parent.is_dir():
            raise errors.bad_option("--out", str(asked.out), "a file in a folder that exists")
        found = [(path, record.read(Path(path))) for path in asked.records]
        merged = merging.merge(found, to=str(asked.out))
    except (errors.UsageError, errors.RecordError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 4 if isinstance(problem, errors.UsageError) else 1
    record.write(merged, asked.out)
    complaint = merging.verdict_on(merged, asked.records)
    sys.stdout.write("".join(f"{line}\n" for line in _lines(merged, complaint, asked.out)))
    return 0 if complaint is None else 1


def _lines(merged: Record, complaint: str | None, out: Path) -> Sequence[str]:
    """As pytest's summary: the tables, what is red, what stands against a pass."""
    from sae_checks.record import run_verdict
    from sae_checks.report import terminal

    selected = [r for r in merged.results if r.reason != run_verdict.NOT_SELECTED]
    profile = str(dict(merged.options).get("profile"))
    red = [r for r in selected if run_verdict.is_red(r.outcome, profile=profile)]
    tables = (
        *terminal.check_table(selected, n_columns=120),
        *terminal.octave_table(selected),
        *terminal.baseline_table(selected),
    )
    return [
        f"sae-checks: {merged.release.name}",
        *("".join(piece.text for piece in line).rstrip() for line in tables),
        terminal.outcome_counts(selected),
        *filter(None, [terminal.early_stops(selected)]),
        *(text for result in red for text in terminal.message_lines(result)),
        *([] if complaint is None else [complaint]),
        terminal.closing_line(merged.release.name, selected, is_green=complaint is None),
        f"run record: {out}",
    ]
