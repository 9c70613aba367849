"""The command `sae-checks accept DIR --reason WHY`: a person takes a run, perhaps a worse one, as the new baseline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sae_checks import errors
from sae_checks.plan.output_folder import RECORD


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to *parser*."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of --sae-out, with the run to accept")
    parser.add_argument("--reason", required=True, metavar="WHY", help="why; it stays in the record")


def run(asked: argparse.Namespace) -> int:
    """Write the run as the last green one. Returns 0, or 4 if it cannot be the baseline."""
    from sae_checks.comparing import last_green  # WHY here: `sae-checks list` must start without NumPy and SciPy
    from sae_checks.record import record

    try:
        path = last_green.accept(record.read(asked.folder / RECORD), asked.folder, asked.reason)
    except (errors.UsageError, errors.RecordError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 4
    except OSError as problem:
        sys.stderr.write(f"{errors.not_accepted(str(problem))}\n")
        return 4
    sys.stdout.write(f"accepted: {path}, which --sae-baseline=last now finds\n")
    return 0
