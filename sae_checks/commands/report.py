"""The command `sae-checks report RECORD [--format FORMAT]`: write what people read of a run record."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sae_checks import errors

FORMATS = ("html", "summary", "model-card")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to *parser*."""
    parser.add_argument("record", type=Path, help="record.json of pytest --sae-out")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="html",
        metavar="FORMAT",
        help="html (default): a folder with index.html, summary.md and plots; summary: print the Markdown of a "
        "summary; model-card: a folder with a block for the README of a release, its plots and badge",
    )
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="the folder; default: report")


def run(asked: argparse.Namespace) -> int:
    """Write the report. Returns 0 whatever the verdict of the run is, 4 if it cannot be written."""
    from sae_checks.record import record  # WHY here: `sae-checks list` must start without NumPy and SciPy
    from sae_checks.report import contents, folder, model_card, summary

    try:
        found = record.read(asked.record)
        if asked.format == "summary":
            text = summary.markdown(contents.build(found))
        else:
            write = model_card.write if asked.format == "model-card" else folder.write
            text = "".join(f"{line}\n" for line in write(found, asked.out))
    except (errors.RecordError, errors.UsageError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 4
    sys.stdout.write(text)
    return 0
