"""The command `sae-checks merge RECORD... --out RECORD`: merge the records of a run's shards, and judge the whole."""

from __future__ import annotations

import argparse
import shutil
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
    """The lines of pytest's summary: messages, tables, why the whole is no pass, and the verdict."""
    from sae_checks.record import run_verdict
    from sae_checks.report import terminal, terminal_tables

    selected = [r for r in merged.results if r.reason != run_verdict.NOT_SELECTED]
    n_columns = shutil.get_terminal_size().columns
    name = merged.release.name
    last = terminal.last_lines(name, selected, merged.verdict, n_columns=n_columns)
    return [
        f"sae-checks: {name}",
        *terminal.messages(selected),
        *map(terminal_tables.text_of, terminal_tables.tables(selected, n_columns=n_columns)),
        *([] if objection is None else [objection]),
        f"run record: {out}",
        *map(terminal_tables.text_of, last),
    ]
