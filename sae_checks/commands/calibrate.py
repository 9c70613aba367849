"""The command `sae-checks calibrate RECORD --out FILE`: propose limits that a person reviews, from a run record."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sae_checks import errors

if TYPE_CHECKING:
    from sae_checks.comparing.calibration import Proposal

_OUT = "limits.toml"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to *parser*."""
    parser.add_argument("record", type=Path, help="record of a run with --sae-profile=full")
    parser.add_argument(
        "--out", type=Path, default=Path(_OUT), metavar="FILE", help=f"a new file for the limits; default: {_OUT}"
    )


def run(asked: argparse.Namespace) -> int:
    """Write the limits. Returns 0, whatever the verdicts of the run were, or 4 if nothing is written."""
    from sae_checks.comparing import calibration
    from sae_checks.record import record

    try:
        proposals = calibration.write(record.read(asked.record), asked.out, name=str(asked.record))
    except (errors.UsageError, errors.RecordError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 4
    sys.stdout.write(f"{_summary(proposals, asked.out)}\n")
    return 0


def _summary(proposals: tuple[Proposal, ...], path: Path) -> str:
    """How many limits the file has, and how many it has not."""
    n_limits = sum(proposal.is_written for proposal in proposals)
    n_failed = sum(proposal.limit is not None for proposal in proposals) - n_limits
    n_none = len(proposals) - n_limits - n_failed
    n_off = sum(p.is_written and p.rates is not None and not p.rates.is_as_promised for p in proposals)
    text = f"limits to review: {path}: {n_limits} limits"
    text += f", {n_failed} as comments because they failed" if n_failed else ""
    text += f", none for {n_none} (see there)" if n_none else ""
    return text + (f", {n_off} at which verdicts on such values err more often than promised" if n_off else "")
