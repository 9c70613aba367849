"""`sae-checks explain RECORD [SAE]`: why SAEs are red, as `pytest --sae-explain` said it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sae_checks import errors


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("record", type=Path, help="what pytest --sae-explain=SAE --sae-record=FILE wrote")
    parser.add_argument("sae", nargs="?", default="*", metavar="SAE", help="only SAEs whose id matches (GLOB)")


def run(asked: argparse.Namespace) -> int:
    """Print a section for each SAE that is explained; 0 whatever its verdict is, 4 where there is none."""
    from sae_checks.record import record
    from sae_checks.release import release  # here: NumPy and SciPy, which other commands do not need
    from sae_checks.report import explaining, wording

    try:
        found = record.read(asked.record)
        known = [r.sae_id for r in found.results if r.explanation is not None]
        chosen = release.matching(known, [asked.sae])
        if not chosen:
            raise errors.not_explained(str(asked.record), asked.sae, found.release.sae_ids, known)
    except (errors.RecordError, errors.UsageError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 4
    for sae_id in chosen:
        lines = explaining.explain_sae([r for r in found.results if r.sae_id == sae_id])
        sys.stdout.write("\n".join([f"why {wording.text(sae_id)}", *(f"  {line}" for line in lines)]) + "\n")
    return 0
