"""
The commands `sae-checks history`, `compare`, `trend` and `export`.

Exit status: 0; 1 for a regression, or a file of a history that is not a record; 3 if nothing is worse but something is
undecided; 4 if the command cannot be carried out. Imports are inside functions: `sae-checks list` must start fast.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_checks import errors

if TYPE_CHECKING:
    from sae_checks.comparing.history.compare import Comparison
    from sae_checks.comparing.history.runs import RunSummary, UnreadableFile
    from sae_checks.judging.limits import Limit
    from sae_checks.record.results import Record

REGRESSED, UNREADABLE, UNSETTLED, USAGE = 1, 1, 3, 4
FORMATS = ("github-action-benchmark", "bencher", "wandb")


def add_history(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sae-checks history` to *parser*."""
    parser.add_argument("url", help="the folder or URL of --sae-history")
    parser.add_argument("release", nargs="?", help="only runs of this release")
    parser.add_argument("--json", action="store_true", help="print JSON, with all versions of software")
    parser.add_argument("--keep", metavar="FILE", help="first add this run record to the history")


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sae-checks compare` to *parser*."""
    parser.add_argument("before", help="a run record, or with --sae-history the id of a run")
    parser.add_argument("after", help="a run record, or with --sae-history the id of a run")
    parser.add_argument("--sae-history", metavar="URL", help="the history that ids refer to")
    parser.add_argument("--sae-thresholds", metavar="FILE", type=Path, help="margins that replace the shipped ones")
    parser.add_argument("--json", action="store_true", help="print JSON: every check, with intervals and reasons")


def add_trend(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sae-checks trend` to *parser*."""
    parser.add_argument("url", help="the folder or URL of --sae-history")
    parser.add_argument("release", help="the release, as sae-checks history lists it")
    parser.add_argument("--html", metavar="FILE", type=Path, help="also write a page with plots")
    parser.add_argument("--sae-id", action="append", default=[], metavar="GLOB", help="only SAEs whose id matches")
    parser.add_argument(
        "--measure", action="append", default=[], metavar="NAME", help="show NAME, not limited measures"
    )
    parser.add_argument("--all-measures", action="store_true", help="show all measures")
    parser.add_argument("--sae-thresholds", metavar="FILE", type=Path, help="accepted shifts beside the shipped ones")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sae-checks export` to *parser*."""
    parser.add_argument("record", help="a run record, or with --sae-history the id of a run")
    parser.add_argument(
        "--format", required=True, choices=FORMATS, metavar="FORMAT", help=f"one of {', '.join(FORMATS)}"
    )
    parser.add_argument("--sae-history", metavar="URL", help="the history that ids refer to")
    parser.add_argument(
        "--better",
        choices=("smaller", "bigger"),
        default="smaller",
        metavar="WHICH",
        help="smaller (default) or bigger: github-action-benchmark gets the measures of which such values are better",
    )
    parser.add_argument("--out", metavar="PATH", type=Path, help="file; for wandb a folder; default: standard output")
    parser.add_argument("--project", default="sae-checks", metavar="NAME", help="project in wandb")


def _with_messages(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Wrap *command*: it prints this package's errors as messages and returns USAGE."""

    @functools.wraps(command)
    def run(asked: argparse.Namespace) -> int:
        try:
            return command(asked)
        except (errors.UsageError, errors.HistoryError, errors.RecordError) as problem:
            sys.stderr.write(f"{problem}\n")
            return USAGE

    return run


@_with_messages
def history(asked: argparse.Namespace) -> int:
    """List the runs of a history, or add one. Returns the exit status."""
    from sae_checks.comparing.history import runs, store, tables
    from sae_checks.record import record

    history = store.open_history(asked.url)
    if asked.keep is not None:
        run_id = store.add(record.read(Path(asked.keep)), store.prepare(asked.url))
        sys.stderr.write(f"run kept: {run_id} in {history.url}\n")
    summaries, unreadable = runs.summaries(history, asked.release)
    if not summaries and not unreadable:
        raise _no_such_release(history.url, asked.release or "any release", runs.summaries(history)[0])
    if asked.json:
        _print([record.dumps([_summary_row(summary) for summary in summaries], indent=1)])
    elif summaries:
        _print(tables.run_table(summaries))
    return _report_unreadable(unreadable)


@_with_messages
def compare(asked: argparse.Namespace) -> int:
    """Compare two runs. Returns the exit status."""
    from sae_checks.comparing.history import compare, runs, tables
    from sae_checks.judging import thresholds
    from sae_checks.record import record

    limits = thresholds.load(asked.sae_thresholds)
    before, after = (runs.find_run(each, asked.sae_history) for each in (asked.before, asked.after))
    found = compare.compare(before.record, after.record, limits)
    if asked.json:
        _print([record.dumps(_comparison_row(found), indent=1)])
    else:
        for which, run in (("before", before), ("after", after)):
            _print([f"{which}: {_describe(run.record)}, {run.run_id}"])
        _print(tables.comparison_table(found))
        _print(_accepted_shifts(before.record, after.record, asked.sae_thresholds))
    if found.has_regressed:
        return REGRESSED
    return 0 if found.is_settled else UNSETTLED


@_with_messages
def trend(asked: argparse.Namespace) -> int:
    """Show the series of a release. Returns the exit status."""
    from sae_checks.comparing.history import runs, series, store, tables, trend
    from sae_checks.judging import accepted_shifts, thresholds

    thresholds.load(asked.sae_thresholds)  # WHY: an error in any of its tables ends the command
    shifts = accepted_shifts.load([*filter(None, [asked.sae_thresholds]), thresholds.shipped_path()])
    history = store.open_history(asked.url)
    found, unreadable = runs.load_runs(history, asked.release)
    if not found and not unreadable:
        raise _no_such_release(history.url, asked.release, runs.summaries(history)[0])
    known = series.measures_in(found)
    for measure in asked.measure:
        if measure not in known:
            raise errors.unknown_measure(measure, known)
    lines = series.lines(found, measures=asked.measure, sae_ids=asked.sae_id, every=asked.all_measures)
    trends = trend.trends(lines, asked.release, shifts)
    _print(tables.trend_table(trends))
    if asked.html is not None:
        from sae_checks.comparing.history import page

        page.write(page.html(trends, asked.release, history.url, len(unreadable)), asked.html)
        _print([f"page: {asked.html}"])
    return _report_unreadable(unreadable)


@_with_messages
def export(asked: argparse.Namespace) -> int:
    """Convert a record. Returns the exit status."""
    from sae_checks.comparing.history import export, runs
    from sae_checks.record import record

    run = runs.find_run(asked.record, asked.sae_history).record
    if not any(result.estimates for result in run.results):
        raise errors.nothing_to_export(asked.record, "at least one measured value")
    if asked.format == "wandb":
        folder = asked.out or Path()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise errors.not_written(str(folder), str(problem)) from None
        written = export.wandb_offline(run, folder, asked.project)
        _print([f"offline run of W&B: {written}", f"to upload it: wandb sync {written}"])
        return 0
    if asked.format == "bencher":
        document: object = export.bencher(run)
    else:
        document = rows = export.github_action_benchmark(run, asked.better)
        n_left_out = sum(export.better_of(r) not in (None, asked.better) for r in run.results if r.estimates)
        if n_left_out:
            other = "bigger" if asked.better == "smaller" else "smaller"
            sys.stderr.write(f"left out: {n_left_out} measures of which {other} is better; try: --better {other}\n")
        if not rows:
            raise errors.nothing_to_export(asked.record, f"a limited measure of which {asked.better} is better")
    _write(record.dumps(document, indent=1), asked.out)
    return 0


def _write(text: str, path: Path | None) -> None:
    if path is None:
        _print([text])
        return
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as problem:
        raise errors.not_written(str(path), str(problem)) from None


def _accepted_shifts(before: Record, after: Record, own: Path | None) -> Iterable[str]:
    """Lines about the accepted shifts between the two runs; these change no verdict."""
    from sae_checks.comparing.history import series
    from sae_checks.judging import accepted_shifts, thresholds

    then, now = series.when(before.started), series.when(after.started)
    for shift in accepted_shifts.load([*filter(None, [own]), thresholds.shipped_path()]):
        is_here = any(shift.applies(after.release.name, sae_id, shift.measure) for sae_id in after.release.sae_ids)
        if is_here and then < shift.since <= now:
            what = f"{shift.measure} of {errors.shown(shift.sae)} since {shift.since:%Y-%m-%d}"
            yield f"accepted between the two runs, still judged: {what}: {errors.shown(shift.reason)} ({shift.where})"


def _no_such_release(url: str, release: str, summaries: Sequence[RunSummary]) -> errors.UsageError:
    return errors.no_history(url, release, sorted({summary.release for summary in summaries}))


def _report_unreadable(unreadable: Sequence[UnreadableFile]) -> int:
    for each in unreadable:
        sys.stderr.write(f"{errors.shown(each.path, n_most=2000)}\n{each.problem}\n")
    if unreadable:
        sys.stderr.write(f"{len(unreadable)} file(s) of the history are not records; the others are used\n")
    return UNREADABLE if unreadable else 0


def _describe(run: Record) -> str:
    at = "" if run.release.revision is None else f"@{errors.shown(run.release.revision[:12])}"
    return f"{errors.shown(run.release.name)}{at}, started {errors.shown(run.started)}"


def _summary_row(summary: RunSummary) -> dict[str, object]:  # a dict: it becomes JSON
    return {
        "run": summary.run_id,
        "started": summary.started,
        "wall_s": summary.wall_s,
        "release": summary.release,
        "revision": summary.revision,
        "outcomes": dict(summary.counts),
        "exit_status": summary.exit_status,
        "software": {package.name: package.version for package in summary.software},
    }


def _comparison_row(found: Comparison) -> dict[str, object]:  # a dict: it becomes JSON
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
            "margin": None if cell.margin is None else _margin_row(cell.margin),
            "how": cell.how,
            "was": cell.was,
            "now": cell.now,
            "state": cell.state,
            "reason": cell.reason,
        }
        for cell in found.cells
    ]
    return {"has_regressed": found.has_regressed, "is_settled": found.is_settled, "cells": cells}


def _margin_row(margin: Limit) -> dict[str, object]:  # a dict: it becomes JSON
    return {"value": abs(margin.value), "unit": margin.unit, "where": margin.where, "source": margin.source}


def _print(lines: Iterable[str]) -> None:
    """Write *lines* to standard output; a closed pipe (`| head`) does not change the exit status."""
    try:
        for line in lines:
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
