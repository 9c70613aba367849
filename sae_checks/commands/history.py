"""
`sae-checks history`, `compare`, `trend` and `export`: what was asked -> text, JSON, a page, an exit status.

Exit status: 0; 1 for a regression, or a file of a history that is no record; 3 where nothing is worse and not all is
settled; 4 where what was asked cannot be done. Nothing here imports torch, and what `sae-checks list` does not need is
imported where it is needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_checks import errors

if TYPE_CHECKING:
    from sae_checks.comparing.history.compare import Comparison
    from sae_checks.comparing.history.runs import Head, Unreadable
    from sae_checks.record.record import Record

REGRESSED, UNREADABLE, UNSETTLED, USAGE = 1, 1, 3, 4
FORMATS = ("github-action-benchmark", "bencher", "wandb")


def add(commands: Any) -> None:  # argparse's own type of subparsers is private
    """Add the commands to a parser; each has its function as `run`."""
    listing = commands.add_parser("history", help="the runs that a history keeps")
    listing.add_argument("url", help="the folder or URL of --sae-history")
    listing.add_argument("release", nargs="?", help="only runs of this release")
    listing.add_argument("--json", action="store_true", help="the same as JSON, with all versions")
    listing.add_argument("--keep", metavar="FILE", help="first add this run record, as --sae-history would have")
    listing.set_defaults(run=_guarded(_history))

    comparing = commands.add_parser("compare", help="what has become worse from one run to another; exit 1 if any")
    comparing.add_argument("before", help="a run record, or with --sae-history the id of a run")
    comparing.add_argument("after", help="likewise")
    comparing.add_argument("--sae-history", metavar="URL", help="where runs are looked up by their id")
    comparing.add_argument("--sae-thresholds", metavar="FILE", type=Path, help="margins that lie over the shipped ones")
    comparing.add_argument("--json", action="store_true", help="the same as JSON")
    comparing.set_defaults(run=_guarded(_compare))

    trend = commands.add_parser("trend", help="how the measures of a release have moved over the runs of a history")
    trend.add_argument("url", help="the folder or URL of --sae-history")
    trend.add_argument("release", help="the release, as sae-checks history lists it")
    trend.add_argument("--html", metavar="FILE", type=Path, help="write a page with plots, too")
    trend.add_argument("--sae-id", action="append", default=[], metavar="GLOB", help="only SAEs whose id matches")
    trend.add_argument(
        "--measure", action="append", default=[], metavar="NAME", help="not those that are limited, but this"
    )
    trend.add_argument("--all-measures", action="store_true", help="every measure there is")
    trend.add_argument("--sae-thresholds", metavar="FILE", type=Path, help="accepted shifts beside the shipped ones")
    trend.set_defaults(run=_guarded(_trend))

    export = commands.add_parser("export", help="a run record for another tool")
    export.add_argument("record", help="a run record, or with --sae-history the id of a run")
    export.add_argument("--format", required=True, choices=FORMATS)
    export.add_argument("--sae-history", metavar="URL", help="where runs are looked up by their id")
    export.add_argument("--better", choices=("smaller", "bigger"), default="smaller", help="github-action-benchmark "
                        "takes measures of one kind: those of which less is better, or more")  # fmt: skip
    export.add_argument("--out", metavar="PATH", type=Path, help="a file, else standard output; for wandb a folder")
    export.add_argument("--project", default="sae-checks", help="of wandb")
    export.set_defaults(run=_guarded(_export))


def _guarded(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """*command*, its refusals as messages."""

    def run(asked: argparse.Namespace) -> int:
        try:
            return command(asked)
        except (errors.UsageError, errors.HistoryError, errors.RecordError) as problem:
            sys.stderr.write(f"{problem}\n")
            return USAGE

    return run


def _history(asked: argparse.Namespace) -> int:
    from sae_checks.comparing.history import runs, tables
    from sae_checks.comparing.history import store as places
    from sae_checks.record import record

    place = places.at(asked.url)
    if asked.keep is not None:
        run_id = places.keep(record.read(Path(asked.keep)), places.prepare(asked.url))
        sys.stderr.write(f"run kept: {run_id} in {place.url}\n")
    heads, unreadable = runs.heads(place, asked.release)
    if not heads and not unreadable:
        raise _nothing(place.url, asked.release or "any release", runs.heads(place)[0])
    if asked.json:
        _print([record.dumps([_head_row(head) for head in heads], indent=1)])
    elif heads:
        _print(tables.of_heads(heads))
    return _told_of(unreadable)


def _compare(asked: argparse.Namespace) -> int:
    from sae_checks.comparing.history import compare, runs, tables
    from sae_checks.judging import thresholds
    from sae_checks.record import record

    limits = thresholds.load(asked.sae_thresholds)
    before, after = (runs.named(each, asked.sae_history) for each in (asked.before, asked.after))
    found = compare.compare(before.record, after.record, limits)
    if asked.json:
        _print([record.dumps(_comparison_row(found), indent=1)])
    else:
        for which, run in (("before", before), ("after", after)):
            _print([f"{which}: {_named(run.record)}, {run.run_id}"])
        _print(tables.of_comparison(found))
        _print(_accepted(before.record, after.record, asked.sae_thresholds))
    if found.has_regressed:
        return REGRESSED
    return 0 if found.is_settled else UNSETTLED


def _trend(asked: argparse.Namespace) -> int:
    from sae_checks.comparing.history import runs, series, tables, trend
    from sae_checks.comparing.history import store as places
    from sae_checks.judging import accepted_shifts, thresholds

    thresholds.load(asked.sae_thresholds)  # what is wrong anywhere in it is told
    shifts = accepted_shifts.load([*filter(None, [asked.sae_thresholds]), thresholds.shipped_path()])
    place = places.at(asked.url)
    found, unreadable = runs.runs(place, asked.release)
    if not found and not unreadable:
        raise _nothing(place.url, asked.release, runs.heads(place)[0])
    known = series.measures_in(found)
    for measure in asked.measure:
        if measure not in known:
            raise errors.unknown_measure(measure, known)
    lines = series.lines(found, measures=asked.measure, sae_ids=asked.sae_id, every=asked.all_measures)
    trends = trend.trends(lines, asked.release, shifts)
    _print(tables.of_trends(trends))
    if asked.html is not None:
        from sae_checks.comparing.history import page

        page.write(page.html(trends, asked.release, place.url, len(unreadable)), asked.html)
        _print([f"page: {asked.html}"])
    return _told_of(unreadable)


def _export(asked: argparse.Namespace) -> int:
    from sae_checks.comparing.history import export, runs
    from sae_checks.record import record

    run = runs.named(asked.record, asked.sae_history).record
    if not any(result.estimates for result in run.results):
        raise errors.nothing_to_export(asked.record, "at least one measured value")
    if asked.format == "wandb":
        folder = asked.out or Path()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise errors.not_written(str(folder), str(problem)) from None
        kept = export.wandb_offline(run, folder, asked.project)
        _print([f"offline run of W&B: {kept}", f"to upload it: wandb sync {kept}"])
        return 0
    if asked.format == "bencher":
        document: object = export.bencher(run)
    else:
        rows = export.github_action_benchmark(run, asked.better)
        document, left_out = (
            rows,
            sum(export.better_of(r) not in (None, asked.better) for r in run.results if r.estimates),
        )
        if left_out:
            other = "bigger" if asked.better == "smaller" else "smaller"
            sys.stderr.write(f"{left_out} measures of which {other} is better are left out: --better {other}\n")
        if not rows:
            raise errors.nothing_to_export(asked.record, f"a limited measure of which {asked.better} is better")
    _written(record.dumps(document, indent=1), asked.out)
    return 0


def _written(text: str, path: Path | None) -> None:
    if path is None:
        _print([text])
        return
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as problem:
        raise errors.not_written(str(path), str(problem)) from None


def _accepted(before: Record, after: Record, own: Path | None) -> Iterable[str]:
    """The accepted shifts between the two runs: they explain, and excuse nothing."""
    from sae_checks.comparing.history import series
    from sae_checks.judging import accepted_shifts, thresholds

    then, now = series.when(before.started), series.when(after.started)
    for shift in accepted_shifts.load([*filter(None, [own]), thresholds.shipped_path()]):
        is_here = any(shift.applies(after.release.name, sae_id, shift.measure) for sae_id in after.release.sae_ids)
        if is_here and then < shift.since <= now:
            what = f"{shift.measure} of {errors.shown(shift.sae)} since {shift.since:%Y-%m-%d}"
            yield f"accepted between the two, and still judged: {what}: {errors.shown(shift.reason)} ({shift.where})"


def _nothing(url: str, release: str, heads: Sequence[Head]) -> errors.UsageError:
    return errors.no_history(url, release, sorted({head.release for head in heads}))


def _told_of(unreadable: Sequence[Unreadable]) -> int:
    for each in unreadable:
        sys.stderr.write(f"{errors.shown(each.path, n_most=2000)}\n{each.problem}\n")
    if unreadable:
        sys.stderr.write(f"{len(unreadable)} file(s) of the history are no records; all others are above\n")
    return UNREADABLE if unreadable else 0


def _named(run: Record) -> str:
    at = "" if run.release.revision is None else f"@{errors.shown(run.release.revision[:12])}"
    return f"{errors.shown(run.release.name)}{at}, started {errors.shown(run.started)}"


def _head_row(head: Head) -> dict[str, object]:  # JSON's own border
    return {
        "run": head.run_id,
        "started": head.started,
        "wall_s": head.wall_s,
        "release": head.release,
        "revision": head.revision,
        "outcomes": dict(head.counts),
        "exit_status": head.exit_status,
        "software": {package.name: package.version for package in head.software},
    }


def _comparison_row(found: Comparison) -> dict[str, object]:  # JSON's own border
    def numbers(of: Any) -> object:
        return None if of is None else {"value": of.value, "low": of.low, "high": of.high, "unit": of.unit, "n": of.n}

    cells = [
        {
            "sae_id": cell.sae_id,
            "check": cell.check,
            "measure": cell.measure,
            "before": numbers(cell.before),
            "after": numbers(cell.after),
            "difference": numbers(cell.difference),
            "margin": None if cell.margin is None else {"value": abs(cell.margin.value), "unit": cell.margin.unit},
            "how": cell.how,
            "state": cell.state,
            "reason": cell.reason,
        }
        for cell in found.cells
    ]
    return {"has_regressed": found.has_regressed, "is_settled": found.is_settled, "cells": cells}


def _print(lines: Iterable[str]) -> None:
    """*lines* to standard output; if nobody reads any more (`| head`), the exit status is still to be found."""
    try:
        for line in lines:
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
