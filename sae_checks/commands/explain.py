"""The command `sae-checks explain RECORD [SAE]`: print the explanations that `pytest --sae-explain` recorded."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from sae_checks import errors


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to *parser*."""
    parser.add_argument("record", type=Path, help="record of a run with --sae-explain")
    parser.add_argument("sae", nargs="?", default="*", metavar="SAE", help="only SAEs whose id matches (GLOB)")


def run(asked: argparse.Namespace) -> int:
    """Print the explanation of each SAE that has one. Returns 0 whatever the verdicts are, 4 if there is none."""
    from sae_checks.record import record
    from sae_checks.release import release  # WHY here: `sae-checks list` must start without NumPy and SciPy
    from sae_checks.release.natural_order import natural_key
    from sae_checks.report import explaining, wording

    try:
        found = record.read(asked.record)
        known = [r.sae_id for r in found.results if r.explanation is not None]
        chosen = sorted(release.matching(known, [asked.sae]), key=natural_key)
        if not chosen:
            raise errors.not_explained(str(asked.record), asked.sae, found.release.sae_ids, known)
    except (errors.RecordError, errors.UsageError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 4
    for sae_id in chosen:
        lines = explaining.explain_sae([r for r in found.results if r.sae_id == sae_id])
        sys.stdout.write("\n".join([f"why {wording.text(sae_id)}", *(f"  {line}" for line in lines)]) + "\n")
    sys.stdout.write(f"next: sae-checks report {shlex.quote(str(asked.record))}\n")
    return 0
