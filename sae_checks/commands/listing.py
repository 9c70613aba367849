"""The command `sae-checks list [RELEASE]`: print the named releases, or the SAEs of one release."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sae_checks import errors
from sae_checks.release import completion, registry, release
from sae_checks.release.natural_order import natural_key

Row = tuple[str, ...]


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to *parser*."""
    parser.add_argument("release", nargs="?", help="anything that pytest --sae-release takes")
    parser.add_argument("--sae-id", action="append", default=[], metavar="GLOB", help="only SAEs whose id matches")
    completion.offer_releases(parser, "release")


def run(asked: argparse.Namespace) -> int:
    """Print the table. Returns 0, or 4 if the release cannot be read."""
    try:
        lines = _releases() if asked.release is None else _saes(asked.release, asked.sae_id)
    except (errors.UsageError, errors.HubError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 4
    sys.stdout.write("".join(line + "\n" for line in lines))
    return 0


def _releases() -> list[str]:
    """The embedded releases and those of the registry."""
    own = "SAE Lens's own"
    rows: list[Row] = [("release", "SAEs", "model", "where", "format")]
    embedded = {name: len(release.resolve(name).saes) for name in release.EMBEDDED_RELEASES}
    rows += [(name, str(n_saes), "its own", "embedded", own) for name, n_saes in embedded.items()]
    for entry in filter(None, map(registry.lookup, registry.names())):
        format_ = own if entry.conversion is None else f"{entry.conversion}, which SAE Lens converts"
        needs = "" if entry.pickle_suffix is None else f"; {entry.pickle_suffix} files: --sae-allow-pickle"
        rows.append((entry.name, str(len(entry.saes)), entry.model, entry.repo_id, format_ + needs))
    return _aligned(rows)


def _saes(name: str, patterns: Sequence[str]) -> list[str]:
    """The SAEs of the release *name*, in natural order; above them the models and training contexts."""
    found = release.resolve(name, patterns=patterns, allow_pickle=True)  # WHY: safe here, `list` reads no weights
    rows: list[Row] = [("SAE", "architecture", "width", "L0", "hook")]
    good = [sae for sae in found.saes if not isinstance(sae, release.BrokenSae)]
    for sae in sorted(found.saes, key=lambda sae: natural_key(sae.sae_id)):
        if isinstance(sae, release.BrokenSae):
            rows.append((sae.sae_id, "cannot be used: " + sae.problem.partition("\n")[0]))
            continue
        l0 = sae.recorded_l0 if sae.k is None else sae.k
        rows.append((sae.sae_id, sae.architecture, str(sae.d_sae), "-" if l0 is None else f"{l0:g}", sae.hook))
    models = dict.fromkeys(sae.model_name for sae in good)
    contexts = dict.fromkeys(str(sae.n_training_context_tokens or "unknown") for sae in good)
    head = (
        [f"{len(found.saes)} SAEs; model: {', '.join(models)}; training context: {', '.join(contexts)}"] if good else []
    )
    return [*head, *_aligned(rows)]


def _aligned(rows: Sequence[Row]) -> list[str]:
    full_rows = [row for row in rows if len(row) == len(rows[0])]  # the row of a broken SAE is one long message
    widths = [max(len(row[i]) for row in full_rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
