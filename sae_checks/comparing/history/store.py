"""
Where records are kept: `<url>/v1/<release>/<YYYY-MM>/<utc>_<id>.json` on any file system that fsspec knows.

One file per run, under a name of its own, never written again: writers need no lock, and the union of two histories is
both of them copied together. A file is written under a name that no reader looks at and then moved, or, where a store
shows an object only when it is whole, written at once. Where a move is no atomic rename (it copies), a reader may meet
half a file: half a JSON object is none, so it is named as unreadable and never read as a record.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import string
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fsspec

from sae_checks import errors
from sae_checks.record import record
from sae_checks.record.record import Record

LAYOUT = "v1"
_RUN = re.compile(r"[0-9]{8}T[0-9]{6}Z_[0-9a-f]{16}")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_PLAIN = frozenset(string.ascii_letters + string.digits + "-_.")
_N_MOST_LETTERS = 120
_SHOWS_WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "hf"}
"""Protocols of stores in which what is being written is not seen; a move there is a copy and needs leave to delete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A history that can be read and written."""

    url: str
    """fit to be shown: without user, password and query."""
    root: str
    files: Any
    """fsspec's file system; it has no types."""

    @property
    def is_local(self) -> bool:
        return "file" in _protocols(self.files)

    @property
    def shows_whole_objects(self) -> bool:
        return bool(_protocols(self.files) & _SHOWS_WHOLE_OBJECTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a history, by its name."""

    run_id: str
    """`20261122T213232Z_0f1e2d3c4b5a6978`: UTC start, and what tells it from every other run."""
    folder: str
    """of its release."""
    path: str

    @property
    def name(self) -> str:
        """Of its file: short enough to be told whole."""
        return f"{self.run_id}.json"


def without_secrets(url: str) -> str:
    """*url* less user, password and query, which may be secrets."""
    return re.sub(r"://[^/@]*@", "://", url.partition("?")[0] if "://" in url else url)


def at(url: str) -> Place:
    """
    The history at *url*: a folder, or anything that fsspec opens. Nothing is looked at or made there.

    Raises:
        UsageError: no file system of that name, or its package is not installed.
    """
    shown = without_secrets(url)
    try:
        files, root = fsspec.core.url_to_fs(url.rstrip("/") or url)
    except Exception as problem:  # noqa: BLE001 -- each file system has errors of its own
        raise errors.bad_history(shown, _told(problem, url)) from None
    return Place(url=shown, root=root.rstrip("/"), files=files)


def prepare(url: str) -> Place:
    """
    The history at *url*, ready to be written as far as that can be known beforehand: a local folder is made.

    Raises:
        UsageError: it cannot be used.
    """
    place = at(url)
    if place.is_local:
        folder = f"{place.root}/{LAYOUT}"
        try:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 -- fsspec's paths are strings
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(f"no leave to write in {folder}")
        except (OSError, ValueError) as problem:
            raise errors.bad_history(place.url, _told(problem, url)) from None
    return place


def folder_of(release: str) -> str:
    """
    The one folder of *release*: ASCII letters, digits, - and _, dots within; what else there is as =XX of its UTF-8.

    Different releases have different folders; of long names the end is a hash.
    """
    kept = (
        c if c in _PLAIN else "".join(f"={byte:02X}" for byte in c.encode("utf-8", "surrogatepass")) for c in release
    )
    escaped = "".join(kept)
    for edge in (0, -1):  # no hidden file, no "..", and no dot at the end, which Windows drops
        if escaped and escaped[edge] == ".":
            escaped = "=2E" + escaped[1:] if edge == 0 else escaped[:-1] + "=2E"
    if len(escaped) > _N_MOST_LETTERS:
        return f"{escaped[:80]}=={hashlib.sha256(escaped.encode()).hexdigest()[:32]}"
    return escaped or "=="


def keep(run: Record, place: Place) -> str:
    """
    *run* into the history at *place*, whole or not at all; its id there.

    Raises:
        HistoryError: it is not there afterwards, for whatever reason.
    """
    started = _utc(run.started)
    run_id = f"{_stamp(started)}_{secrets.token_hex(8)}"
    folder = f"{place.root}/{LAYOUT}/{folder_of(run.release.name)}/{started.year:04d}-{started.month:02d}"
    path, part = f"{folder}/{run_id}.json", f"{folder}/.{run_id}.part"
    data = record.text(run).encode("utf-8")
    try:
        place.files.makedirs(folder, exist_ok=True)
        if place.shows_whole_objects:
            place.files.pipe_file(path, data)
            return run_id
        place.files.pipe_file(part, data)
        place.files.mv(part, path)
        if place.files.cat_file(path) != data:
            raise OSError("what was read back is not what was written")  # noqa: TRY301 -- one way to say why
    except Exception as problem:  # noqa: BLE001 -- each file system has errors of its own
        with contextlib.suppress(Exception):
            place.files.rm_file(part)
        raise errors.history_not_kept(place.url, _told(problem, place.url)) from None
    return run_id


def entries(place: Place, release: str | None = None) -> tuple[Entry, ...]:
    """
    What is kept at *place*, of *release* or all, by time. What is no record by its name and folder is not looked at.

    Raises:
        HistoryError: the place cannot be listed.
    """
    root = f"{place.root}/{LAYOUT}"
    try:
        place.files.invalidate_cache()
        folders = [folder_of(release)] if release is not None else [name for name, _ in _listed(place, root)]
        found = [
            Entry(run_id=name.removesuffix(".json"), folder=folder, path=path)
            for folder in folders
            for month, _ in _listed(place, f"{root}/{folder}")
            if _MONTH.fullmatch(month)
            for name, path in _listed(place, f"{root}/{folder}/{month}")
            if name.endswith(".json") and _RUN.fullmatch(name.removesuffix(".json"))
        ]
    except Exception as problem:  # noqa: BLE001 -- each file system has errors of its own
        raise errors.history_not_read(place.url, _told(problem, place.url)) from None
    return tuple(sorted(found, key=lambda entry: (entry.run_id, entry.path)))


def text_of(entry: Entry, place: Place) -> str:
    """
    What the file of *entry* holds.

    Raises:
        RecordError: it cannot be read, or is no text.
    """
    try:
        return bytes(place.files.cat_file(entry.path)).decode("utf-8")
    except Exception as problem:  # noqa: BLE001 -- each file system has errors of its own
        raise errors.bad_record(entry.name, _told(problem, place.url)) from None


def _listed(place: Place, folder: str) -> Iterator[tuple[str, str]]:
    """Name and path of what is in *folder*; nothing if there is none."""
    try:
        rows = place.files.ls(folder, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return
    for row in rows:
        path = str(row["name"]).rstrip("/")
        yield path.rpartition("/")[2], path


def _utc(started: str) -> datetime:
    try:
        when = datetime.fromisoformat(started)
    except ValueError:
        raise errors.bad_record("record", f"it started at {started!r}, which is no time") from None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _stamp(when: datetime) -> str:
    return f"{when.year:04d}{when:%m%dT%H%M%S}Z"  # %Y is not padded everywhere


def _protocols(files: Any) -> set[str]:
    found = files.protocol
    return {found} if isinstance(found, str) else set(found)


def _told(problem: Exception, url: str) -> str:
    """What *problem* says, in one line and without what `without_secrets` leaves out of *url*."""
    said = f"{type(problem).__name__}: {problem}".partition("\n")[0]
    return said.replace(url, without_secrets(url))
