"""The command line `sae-checks COMMAND`, and its commands `list` and `report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sae_checks import errors
from sae_checks.commands import calibrate, explain, merge, plan
from sae_checks.commands import history as of_history
from sae_checks.release import completion, registry, release

Row = tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit status: 4, as in pytest, if it cannot be carried out."""
    parser = argparse.ArgumentParser(
        prog="sae-checks", description="Judge releases of sparse autoencoders with pytest."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    lists = commands.add_parser("list", help="list the named releases, or the SAEs of one release")
    lists.add_argument("release", nargs="?", help="anything that pytest --sae-release takes")
    lists.add_argument("--sae-id", action="append", default=[], metavar="GLOB", help="only SAEs whose id matches")
    lists.set_defaults(run=_list)
    reports = commands.add_parser("report", help="write index.html, summary.md and plots from a run record")
    reports.add_argument("record", type=Path, help="record.json of pytest --sae-out")
    reports.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    reports.set_defaults(run=_report)
    merges = commands.add_parser("merge", help="merge the records of a run's shards (--sae-shard), and judge the whole")
    merge.add(merges)
    merges.set_defaults(run=merge.run)
    plans = commands.add_parser("plan", help="print shards, revision and cache key for a workflow, as key=value lines")
    plan.add(plans)
    plans.set_defaults(run=plan.run)
    explains = commands.add_parser(
        "explain", help="print why SAEs are red, from the record of a run with --sae-explain"
    )
    explain.add(explains)
    explains.set_defaults(run=explain.run)
    calibrates = commands.add_parser("calibrate", help="propose limits from a run record, for a person to review")
    calibrate.add(calibrates)
    calibrates.set_defaults(run=calibrate.run)
    of_history.add(commands)
    completion.offer_releases(lists, "release")
    completion.complete(parser)
    asked = parser.parse_args(arguments)
    return int(asked.run(asked))


def _list(asked: argparse.Namespace) -> int:
    if asked.release is None:
        rows = _releases()
    else:
        try:
            found = release.resolve(
                asked.release,
                patterns=asked.sae_id,
                allow_pickle=True,  # WHY: safe here, since `list` reads no weights
            )
        except (errors.UsageError, errors.HubError) as problem:
            sys.stderr.write(f"{problem}\n")
            return 4
        rows = _saes(found)
    sys.stdout.write("".join(line + "\n" for line in _aligned(rows)))
    return 0


def _report(asked: argparse.Namespace) -> int:
    """Write the report of a record. Returns 0 whatever the verdict of the run is."""
    from sae_checks.record import record  # WHY here: `sae-checks list` must start without NumPy and SciPy
    from sae_checks.report import folder

    try:
        written = folder.write(record.read(asked.record), asked.out)
    except (errors.RecordError, errors.UsageError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 4
    sys.stdout.write("".join(f"{line}\n" for line in written))
    return 0


def _releases() -> list[Row]:
    """Rows of the embedded releases and those of the registry."""
    own = "SAE Lens's own"
    rows: list[Row] = [("release", "SAEs", "model", "where", "format")]
    embedded = {name: len(release.resolve(name).saes) for name in release.EMBEDDED_RELEASES}
    rows += [(name, str(n_saes), "its own", "embedded", own) for name, n_saes in embedded.items()]
    for entry in filter(None, map(registry.lookup, registry.names())):
        format_ = own if entry.conversion is None else f"{entry.conversion}, which SAE Lens converts"
        needs = "" if entry.pickle_suffix is None else f"; {entry.pickle_suffix} files: --sae-allow-pickle"
        rows.append((entry.name, str(len(entry.saes)), entry.model, entry.repo_id, format_ + needs))
    return rows


def _saes(found: release.Release) -> list[Row]:
    rows: list[Row] = [("SAE", "hook", "d_sae", "architecture", "training context", "model")]
    for sae in found.saes:
        if isinstance(sae, release.BrokenSae):
            rows.append((sae.sae_id, "cannot be used: " + sae.problem.partition("\n")[0]))
            continue
        context = "unknown" if sae.n_training_context_tokens is None else str(sae.n_training_context_tokens)
        rows.append((sae.sae_id, sae.hook, str(sae.d_sae), sae.architecture, context, sae.model_name))
    return rows


def _aligned(rows: Sequence[Row]) -> list[str]:
    full_rows = [row for row in rows if len(row) == len(rows[0])]  # the row of a broken SAE is one long message
    widths = [max(len(row[i]) for row in full_rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
