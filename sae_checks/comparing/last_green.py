"""
The last green run, which `--sae-baseline=last` compares with: where it is kept, and what may take its place.

A run that is not green, or not whole, never takes it: otherwise a regression would be its own baseline in the next run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sae_checks import checks, errors
from sae_checks.comparing.history import store
from sae_checks.plan.options import Options
from sae_checks.plan.output_folder import LAST_GREEN, RECORD
from sae_checks.record import record, run_verdict
from sae_checks.record.results import Record

ACCEPTED = "accepted"
"""option in the record of a run that a person has taken as the new baseline, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A run that can be the baseline."""

    run: Record
    where: str
    """its file, or its id in the history."""


def reason_of(run: Record) -> str | None:
    """Why a person has accepted *run* as the baseline; None: nobody has."""
    found = dict(run.options).get(ACCEPTED)
    return None if found is None else str(found)


def unjudged(run: Record) -> tuple[str, ...]:
    """Checks of its part of the release that *run* did not select or reach; none: it is whole."""
    skipped = (run_verdict.NOT_SELECTED, run_verdict.NOT_REACHED)
    return tuple(f"{result.check} of {result.sae_id}" for result in run.results if result.reason in skipped)


def keep(run: Record, folder: Path) -> Path | None:
    """
    Keep *run* in *folder* as the last green one, if it is green, whole, and of all that the one there is of.

    Returns:
        Its file; None: it may not take that place.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / LAST_GREEN
    if not _may_serve(run):
        return None
    try:
        earlier = _read(path)
    except errors.RecordError:  # WHY: what cannot be read is no baseline
        earlier = None
    if earlier is not None and not _is_of(run, *_part(earlier)):
        return None
    record.write(run, path)
    return path


def accept(run: Record, folder: Path, reason: str) -> Path:
    """
    Take *run*, which is whole and perhaps worse, as the new baseline in *folder*, with the *reason*.

    Raises:
        UsageError: it was not whole, some of it could not be measured, or there is no reason.
        OSError: the file cannot be written.
    """
    if not reason.strip():
        raise errors.not_accepted("no reason is given")
    if left_out := unjudged(run):
        raise errors.not_accepted(f"not judged: {errors.listed(left_out)}")
    broken = [r for r in run.results if r.outcome == "error" and r.check != checks.NO_REGRESSION.name]
    if without := [f"{result.check} of {result.sae_id}" for result in broken]:
        raise errors.not_accepted(f"without a value: {errors.listed(without)}")
    options = {**dict(run.options), ACCEPTED: errors.shown(reason.strip(), n_most=400)}
    record.write(replace(run, options=tuple(options.items())), folder / LAST_GREEN)
    return folder / LAST_GREEN


def find(options: Options, release: str) -> Found | None:
    """
    The last run that was whole, and green or accepted, in the folder of --sae-out and in the history; None: none was.

    Args:
        options: of this run. An earlier run with another --sae-id or --sae-shard does not serve.
        release: name of the release in the history.

    Raises:
        RecordError: what was kept in the folder is no record.
        HistoryError: the history cannot be read.
    """
    part = " ".join(options.sae_ids), options.shard
    found = [] if options.out is None else [*_in_folder(options.out)]
    serving = [each for each in found if _may_serve(each.run) and _is_of(each.run, *part)]
    best = max(serving, key=lambda each: _when(each.run), default=None)  # the first of equals: last-green.json
    for each in _in_history(options.history, release):
        if best is not None and _when(each.run) <= _when(best.run):
            break
        if _may_serve(each.run) and _is_of(each.run, *part):
            return each
    return best


def age(run: Record) -> str:
    """How long ago *run* started, in words."""
    seconds = max(0.0, (datetime.now(UTC) - _when(run)).total_seconds())
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (n := int(seconds // size)) > 0:
            return f"{n} {name}{'s' * (n != 1)} ago"
    return "just now"


def _may_serve(run: Record) -> bool:
    """Whether *run* is whole, and green or accepted."""
    return (run.passed or reason_of(run) is not None) and not unjudged(run)


def _part(run: Record) -> tuple[str, str | None]:
    """The part of its release that *run* is of: patterns of --sae-id, and --sae-shard."""
    options = dict(run.options)
    shard = options.get("shard")
    return str(options.get("sae_ids") or ""), None if shard is None else str(shard)


def _is_of(run: Record, sae_ids: str, shard: str | None) -> bool:
    """Whether *run* is of all that these patterns and this shard select."""
    its_ids, its_shard = _part(run)
    return its_ids in ("", sae_ids) and its_shard in (None, shard)


def _read(path: Path) -> Record | None:
    return record.read(path) if path.exists() else None


def _in_folder(folder: Path) -> Iterator[Found]:
    """The runs in *folder*: what was kept, then the run that wrote its record there last."""
    if (kept := _read(folder / LAST_GREEN)) is not None:
        yield Found(run=kept, where=str(folder / LAST_GREEN))
    with contextlib.suppress(errors.RecordError):  # WHY: it need not be of this version, and is replaced in any case
        if (last := _read(folder / RECORD)) is not None:
            yield Found(run=last, where=str(folder / RECORD))


def _in_history(url: str | None, release: str) -> Iterator[Found]:
    """Readable runs of *release* in the history, the last first."""
    if url is None:
        return
    history = store.open_history(url)
    for entry in reversed(store.entries(history, release)):
        try:
            run = record.loads(store.read_text(entry, history), entry.name)
        except errors.RecordError:  # WHY: `sae-checks history` names such files
            continue
        yield Found(run=run, where=f"{entry.run_id} in {history.url}")


def _when(run: Record) -> datetime:
    started = datetime.fromisoformat(run.started)
    return started.replace(tzinfo=UTC) if started.tzinfo is None else started
