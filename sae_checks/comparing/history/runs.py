"""A history -> its runs, or summaries of them, and the files that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from sae_checks import errors
from sae_checks.comparing.history import store
from sae_checks.comparing.history.store import Entry, History
from sae_checks.judging.verdict import Outcome
from sae_checks.provenance import Package
from sae_checks.record import record
from sae_checks.record.record import Json
from sae_checks.record.results import Record

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_N_READERS = 8
_UNUSED_FIELDS = ("curves", "changed_answers", "changed_choices", "explanation", "downstream")
"""of a result's JSON. WHY they are dropped: they are most of a record, and no comparison over time needs them."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One row of the list of a history's runs."""

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
    """One run of a history, with its record."""

    run_id: str
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableFile:
    """A file of a history that is not a record."""

    path: str
    problem: str


def summaries(
    history: History, release: str | None = None
) -> tuple[tuple[RunSummary, ...], tuple[UnreadableFile, ...]]:
    """
    Summaries of the runs in *history*, of *release* or all, by time; and the files that are not records.

    Raises:
        HistoryError: the history cannot be listed.
    """
    return _read_all(store.entries(history, release), history, _summary)


def load_runs(history: History, release: str) -> tuple[tuple[Run, ...], tuple[UnreadableFile, ...]]:
    """
    The runs of *release* in *history*, by time, without curves and examples; and the files that are not records.

    Raises:
        HistoryError: the history cannot be listed.
    """
    return _read_all(store.entries(history, release), history, _run)


def find_run(asked: str, url: str | None) -> Run:
    """
    Find a run.

    Args:
        asked: path of a record, or the id of a run in the history at *url*; the id's beginning or end will do.
        url: None: *asked* is a path.

    Raises:
        UsageError: there is no such run, or several.
        RecordError: the file is not a record.
        HistoryError: the history cannot be read.
    """
    path = Path(asked).expanduser()
    if path.is_file() or (asked and url is None and path.is_dir()):
        return Run(run_id=path.stem, record=record.read(path))
    if url is None:
        raise errors.no_such_run(asked, "no history", ())
    history = store.open_history(url)
    found = store.entries(history)
    meant = [e for e in found if asked and (e.run_id.startswith(asked) or e.run_id.endswith(asked))]
    if len(meant) != 1:
        raise errors.no_such_run(asked, history.url, [e.run_id for e in meant or found])
    text = store.read_text(meant[0], history)
    return Run(run_id=meant[0].run_id, record=record.loads(text, meant[0].name))


def _read_all(
    entries: Sequence[Entry], history: History, parse: Callable[[Entry, str], T]
) -> tuple[tuple[T, ...], tuple[UnreadableFile, ...]]:
    """Read each of *entries* and *parse* its text; return what could be read, and the files that could not."""

    def read(entry: Entry) -> str | errors.RecordError:
        try:
            return store.read_text(entry, history)
        except errors.RecordError as problem:
            return problem

    with ThreadPoolExecutor(_N_READERS) as pool:  # WHY: object stores answer slowly, but several requests at once
        texts = list(pool.map(read, entries))
    good, bad = [], []
    for entry, text in zip(entries, texts, strict=True):
        try:
            if isinstance(text, errors.RecordError):
                raise text
            good.append(parse(entry, text))  # TRAP: in threads msgspec crashes when it first sees a type
        except errors.RecordError as problem:
            bad.append(UnreadableFile(path=entry.path, problem=str(problem)))
    return tuple(good), tuple(bad)


def _document(entry: Entry, text: str) -> Json:
    """
    The JSON that *text* of *entry* is, without the fields that no comparison over time needs.

    Raises:
        RecordError: it is not strict JSON of a schema that can be read, or has no list of results.
    """
    document = record.parsed(text, entry.name)
    rows = document.get("results")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.get("outcome") in OUTCOMES for row in rows):
        raise errors.bad_record(entry.name, "its results are not a list of objects with an outcome")
    return {**document, "results": [{k: v for k, v in row.items() if k not in _UNUSED_FIELDS} for row in rows]}


def _run(entry: Entry, text: str) -> Run:
    return Run(
        run_id=entry.run_id, record=_in_own_folder(record.from_json(_document(entry, text), path=entry.name), entry)
    )


def _summary(entry: Entry, text: str) -> RunSummary:
    """The summary of *entry*. WHY the schema is checked without results: that takes long, and outcomes suffice."""
    document = _document(entry, text)
    found = _in_own_folder(record.from_json({**document, "results": []}, path=entry.name), entry)
    outcomes = [row["outcome"] for row in document["results"]]
    return RunSummary(
        run_id=entry.run_id,
        started=found.started,
        wall_s=found.wall_s,
        release=found.release.name,
        revision=found.release.revision,
        counts=tuple((outcome, outcomes.count(outcome)) for outcome in OUTCOMES),
        exit_status=found.exit_status,
        software=found.software,
    )


def _in_own_folder(found: Record, entry: Entry) -> Record:
    """
    Return *found* if its file lies in the folder of its release.

    Raises:
        RecordError: it lies in the folder of another release; someone has put it there by hand.
    """
    if store.folder_of(found.release.name) != entry.folder:
        raise errors.bad_record(entry.name, f"its release is {found.release.name!r}, but it is in another's folder")
    return found
