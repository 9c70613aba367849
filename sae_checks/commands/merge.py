"""The command `sae-checks merge RECORD... --out RECORD`: merge the records of a run's shards, and judge the whole."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sae_checks import errors

if TYPE_CHECKING:
    from sae_checks.record.results import Record


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to *parser*."""
    parser.add_argument("records", nargs="+", metavar="RECORD", help="the record of each shard")
    parser.add_argument("--out", required=True, type=Path, metavar="RECORD", help="write the merged record there")


def run(asked: argparse.Namespace) -> int:
    """Merge the records. Returns 0 if the whole passes, 1 if it does not or cannot be merged, 4 for a bad --out."""
    from sae_checks.record import merging, record

    try:
        if asked.out.is_dir() or not asked.out.absolute().parent.is_dir():
            raise errors.bad_option("--out", str(asked.out), "a file in a folder that exists", "record.json")
        found = [(path, record.read(Path(path))) for path in asked.records]
        merged = merging.merge(found)
    except (errors.UsageError, errors.RecordError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 4 if isinstance(problem, errors.UsageError) else 1
    record.write(merged, asked.out)
    objection = merging.verdict_on(merged, asked.records)
    sys.stdout.write("".join(f"{line}\n" for line in _lines(merged, objection, asked.out)))
    return 0 if objection is None else 1


def _lines(merged: Record, objection: str | None, out: Path) -> Sequence[str]:
    """The lines of pytest's summary: tables, messages of red checks, and why the whole is no pass."""
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
        *([] if objection is None else [objection]),
        terminal.closing_line(merged.release.name, selected, is_green=objection is None),
        f"run record: {out}",
    ]
