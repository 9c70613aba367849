"""What is kept at a place -> runs that can be used, and the files that cannot, each by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from sae_checks import errors
from sae_checks.comparing.history import store as places
from sae_checks.comparing.history.store import Entry, Place
from sae_checks.judging.verdict import Outcome
from sae_checks.provenance import Package
from sae_checks.record import record
from sae_checks.record.record import Json, Record

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_N_READERS = 8
_COLUMNS = ("curves", "flips", "choice_flips", "explanations", "propagation")
"""Most of a record, and nothing of a series."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One run in a list of them."""

    run_id: str
    started: str
    wall_s: float
    release: str
    revision: str | None
    counts: tuple[tuple[Outcome, int], ...]
    """results per outcome, every outcome once."""
    exit_status: int | None
    software: tuple[Package, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run with what it measured."""

    run_id: str
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file of a history that is no record."""

    path: str
    problem: str


def heads(place: Place, release: str | None = None) -> tuple[tuple[Head, ...], tuple[Unreadable, ...]]:
    """
    Every run at *place*, by time, without what it measured; and the files that are no records.

    Raises:
        HistoryError: the place cannot be listed.
    """
    return _each(places.entries(place, release), lambda entry: _head(entry, place))


def runs(place: Place, release: str) -> tuple[tuple[Run, ...], tuple[Unreadable, ...]]:
    """
    Every run of *release* at *place*, by time, without its curves and examples; and the files that are no records.

    Raises:
        HistoryError: the place cannot be listed.
    """
    return _each(places.entries(place, release), lambda entry: _run(entry, place))


def named(asked: str, url: str | None) -> Run:
    """
    The run *asked* for: a file, or in the history at *url* an id, whole or its beginning or end.

    Raises:
        UsageError: neither, or several runs.
        RecordError: it is no record.
        HistoryError: the history cannot be read.
    """
    path = Path(asked).expanduser()
    if path.is_file():
        return Run(run_id=path.stem, record=record.read(path))
    if url is None:
        raise errors.no_such_run(asked, "no history", ())
    place = places.at(url)
    found = places.entries(place)
    meant = [e for e in found if asked and (e.run_id.startswith(asked) or e.run_id.endswith(asked))]
    if len(meant) != 1:
        raise errors.no_such_run(asked, place.url, [e.run_id for e in meant or found])
    text = places.text_of(meant[0], place)
    return Run(run_id=meant[0].run_id, record=record.loads(text, meant[0].name))


def _each(entries: Sequence[Entry], read: Callable[[Entry], T]) -> tuple[tuple[T, ...], tuple[Unreadable, ...]]:
    """What *read* makes of each of *entries*: the good ones, and those it refuses."""

    def tried(entry: Entry) -> T | Unreadable:
        try:
            return read(entry)
        except errors.RecordError as problem:
            return Unreadable(path=entry.path, problem=str(problem))

    with ThreadPoolExecutor(_N_READERS) as pool:  # a store answers slowly, and several at once
        found = list(pool.map(tried, entries))
    good = tuple(each for each in found if not isinstance(each, Unreadable))
    return good, tuple(each for each in found if isinstance(each, Unreadable))


def _document(entry: Entry, place: Place) -> Json:
    document = record.parsed(places.text_of(entry, place), entry.name)
    return {**document, **{column: {} for column in _COLUMNS}} if isinstance(document, dict) else document


def _run(entry: Entry, place: Place) -> Run:
    return Run(run_id=entry.run_id, record=_at_home(record.from_json(_document(entry, place), path=entry.name), entry))


def _head(entry: Entry, place: Place) -> Head:
    """The schema is asked about everything but the results, of which the outcomes are counted."""
    document = _document(entry, place)
    rows = document.get("results") if isinstance(document, dict) else None
    without = {**document, "results": [], "samples": {}, "stacks": {}} if isinstance(document, dict) else document
    found = _at_home(record.from_json(without, path=entry.name), entry)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.get("outcome") in OUTCOMES for row in rows):
        raise errors.bad_record(entry.name, "its results are no list of outcomes")
    outcomes = [row["outcome"] for row in rows]
    return Head(
        run_id=entry.run_id,
        started=found.started,
        wall_s=found.wall_s,
        release=found.release.name,
        revision=found.release.revision,
        counts=tuple((outcome, outcomes.count(outcome)) for outcome in OUTCOMES),
        exit_status=found.exit_status,
        software=found.software,
    )


def _at_home(found: Record, entry: Entry) -> Record:
    """*found*, if it lies where its release is kept: a file in another release's folder was put there by hand."""
    if places.folder_of(found.release.name) != entry.folder:
        raise errors.bad_record(entry.name, f"it is of release {found.release.name!r}, in the folder of another")
    return found
