"""
The files of a history: `<url>/v1/<release>/<YYYY-MM>/<utc>_<id>.json` on any file system that fsspec knows.

Each run is one file with a unique name, and is never changed. So writers need no lock, and two histories are merged by
copying both into one folder. A new file is written under a name that readers ignore and then moved; stores that show an
object only when it is complete need no move. Where a move copies, a reader may see an incomplete file. That is no valid
JSON, so it is reported as unreadable.
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
from sae_checks.record.results import Record

LAYOUT = "v1"
_RUN = re.compile(r"[0-9]{8}T[0-9]{6}Z_[0-9a-f]{16}")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_PLAIN = frozenset(string.ascii_letters + string.digits + "-_.")
_N_CHARACTERS_MOST = 120
_SHOWS_WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "hf"}
"""Protocols of stores that show only complete objects. WHY no move there: it copies, and needs leave to delete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The place where records of runs are kept."""

    url: str
    """without user, password and query."""
    root: str
    files: Any  # Any: fsspec has no types
    """fsspec's file system."""

    @property
    def is_local(self) -> bool:
        return "file" in _protocols(self.files)

    @property
    def shows_whole_objects(self) -> bool:
        return bool(_protocols(self.files) & _SHOWS_WHOLE_OBJECTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a history."""

    run_id: str
    """`20261122T213232Z_0f1e2d3c4b5a6978`: start in UTC, and 16 random digits."""
    folder: str
    """of its release."""
    path: str

    @property
    def name(self) -> str:
        """Name of the file, for messages."""
        return f"{self.run_id}.json"


def without_secrets(url: str) -> str:
    """*url* without user, password and query, which may be secrets."""
    return re.sub(r"://[^/@]*@", "://", url.partition("?")[0] if "://" in url else url)


def open_history(url: str) -> History:
    """
    The history at *url*: a folder, or a URL that fsspec knows. Reads and writes nothing.

    Raises:
        UsageError: fsspec does not know the protocol, or its package is not installed.
    """
    shown = without_secrets(url)
    try:
        files, root = fsspec.core.url_to_fs(url.rstrip("/") or url)
    except Exception as problem:  # noqa: BLE001 -- each file system has errors of its own
        raise errors.bad_history(shown, _problem_line(problem, url)) from None
    return History(url=shown, root=root.rstrip("/"), files=files)


def prepare(url: str) -> History:
    """
    The history at *url*, ready for writing: a local folder is created and tested; of a remote one nothing is known.

    Raises:
        UsageError: the history cannot be used.
    """
    history = open_history(url)
    if history.is_local:
        folder = f"{history.root}/{LAYOUT}"
        try:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 -- fsspec's paths are strings
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(f"no permission to write to {folder}")
        except (OSError, ValueError) as problem:
            raise errors.bad_history(history.url, _problem_line(problem, url)) from None
    return history


def folder_of(release: str) -> str:
    """
    The folder name of *release*, another one for every release.

    ASCII letters, digits, `-`, `_` and inner dots stay; the UTF-8 bytes of everything else become `=XX`. Long names end
    in a hash.
    """
    escaped = "".join(
        c if c in _PLAIN else "".join(f"={byte:02X}" for byte in c.encode("utf-8", "surrogatepass")) for c in release
    )
    for edge in (0, -1):  # WHY: no hidden file, no "..", and no dot at the end, which Windows drops
        if escaped and escaped[edge] == ".":
            escaped = "=2E" + escaped[1:] if edge == 0 else escaped[:-1] + "=2E"
    if len(escaped) > _N_CHARACTERS_MOST:
        return f"{escaped[:80]}=={hashlib.sha256(escaped.encode()).hexdigest()[:32]}"
    return escaped or "=="


def add(run: Record, history: History) -> str:
    """
    Write *run* into *history*, complete or not at all.

    Returns:
        The run's id.

    Raises:
        HistoryError: the run could not be written.
    """
    started = _utc(run.started)
    run_id = f"{_stamp(started)}_{secrets.token_hex(8)}"
    folder = f"{history.root}/{LAYOUT}/{folder_of(run.release.name)}/{started.year:04d}-{started.month:02d}"
    path, part = f"{folder}/{run_id}.json", f"{folder}/.{run_id}.part"
    data = record.text(run).encode("utf-8")
    try:
        history.files.makedirs(folder, exist_ok=True)
        if history.shows_whole_objects:
            history.files.pipe_file(path, data)
            return run_id
        history.files.pipe_file(part, data)
        history.files.mv(part, path)
        if history.files.cat_file(path) != data:
            raise OSError("the file differs from what was written")  # noqa: TRY301 -- handled with all other problems
    except Exception as problem:  # noqa: BLE001 -- each file system has errors of its own
        with contextlib.suppress(Exception):
            history.files.rm_file(part)
        raise errors.history_not_kept(history.url, _problem_line(problem, history.url)) from None
    return run_id


def entries(history: History, release: str | None = None) -> tuple[Entry, ...]:
    """
    The files of *history*, of *release* or all, by time. Files with other names than those of records are ignored.

    Raises:
        HistoryError: the history cannot be listed.
    """
    root = f"{history.root}/{LAYOUT}"
    try:
        history.files.invalidate_cache()
        folders = [folder_of(release)] if release is not None else [name for name, _ in _listed(history, root)]
        found = [
            Entry(run_id=name.removesuffix(".json"), folder=folder, path=path)
            for folder in folders
            for month, _ in _listed(history, f"{root}/{folder}")
            if _MONTH.fullmatch(month)
            for name, path in _listed(history, f"{root}/{folder}/{month}")
            if name.endswith(".json") and _RUN.fullmatch(name.removesuffix(".json"))
        ]
    except Exception as problem:  # noqa: BLE001 -- each file system has errors of its own
        raise errors.history_not_read(history.url, _problem_line(problem, history.url)) from None
    return tuple(sorted(found, key=lambda entry: (entry.run_id, entry.path)))


def read_text(entry: Entry, history: History) -> str:
    """
    The text of the file of *entry*.

    Raises:
        RecordError: the file cannot be read, or is not UTF-8.
    """
    try:
        return bytes(history.files.cat_file(entry.path)).decode("utf-8")
    except Exception as problem:  # noqa: BLE001 -- each file system has errors of its own
        raise errors.bad_record(entry.name, _problem_line(problem, history.url)) from None


def _listed(history: History, folder: str) -> Iterator[tuple[str, str]]:
    """(name, path) of everything in *folder*; nothing if there is no such folder."""
    try:
        rows = history.files.ls(folder, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return
    for row in rows:
        path = str(row["name"]).rstrip("/")
        yield path.rpartition("/")[2], path


def _utc(started: str) -> datetime:
    try:
        when = datetime.fromisoformat(started)
    except ValueError:
        raise errors.bad_record("record", f"its start {started!r} is not a time") from None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _stamp(when: datetime) -> str:
    return f"{when.year:04d}{when:%m%dT%H%M%S}Z"  # %Y is not padded everywhere


def _protocols(files: Any) -> set[str]:
    found = files.protocol
    return {found} if isinstance(found, str) else set(found)


def _problem_line(problem: Exception, url: str) -> str:
    """The first line of *problem*, without the secrets of *url*."""
    line = f"{type(problem).__name__}: {problem}".partition("\n")[0]
    return line.replace(url, without_secrets(url))
