"""
Accepted shifts: where a person has looked at a change of level and said why it is right.

`[[accepted_shift]]` in thresholds.toml. A shift explains a series; it changes no verdict.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from sae_checks import checks, errors

KEY = "accepted_shift"
KEYS = ("release", "sae", "measure", "since", "reason")
_MEASURES = frozenset(measure.name for check in checks.CHECKS for measure in check.measures)
_HEADER = re.compile(rf"""^\s*(\[\[\s*["']?{KEY}["']?\s*\]\]|["']?{KEY}["']?\s*=)""")


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedShift:
    """From *since* on one measure of some SAEs is at another level, for a known reason."""

    release: str
    """fnmatch pattern, as *sae* is one."""
    sae: str
    measure: str
    since: datetime
    """UTC; the first run that started then or later is the first at the new level."""
    reason: str
    where: str
    """file and line."""

    def applies(self, release: str, sae_id: str, measure: str) -> bool:
        return (
            self.measure == measure
            and fnmatch.fnmatchcase(release, self.release)
            and fnmatch.fnmatchcase(sae_id, self.sae)
        )


def load(paths: Sequence[Path]) -> tuple[AcceptedShift, ...]:
    """
    The accepted shifts of all of *paths*.

    Raises:
        UsageError: a file that cannot be read, or an entry that is not understood.
    """
    found: list[AcceptedShift] = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
            document = tomllib.loads(text)
        except (OSError, ValueError) as problem:
            raise errors.bad_thresholds(str(path), "", f"cannot be read ({problem})", "a TOML file") from None
        found += parse(document, text, path)
    return tuple(found)


def parse(document: dict[str, object], text: str, path: Path) -> tuple[AcceptedShift, ...]:
    """
    The accepted shifts of *document*, which is *text* of *path*.

    Raises:
        UsageError: an entry that is not understood: its line, what is wrong, and what is expected.
    """
    entries = document.get(KEY, [])
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        where = f"line {lines[0]}" if lines else KEY
        raise errors.bad_thresholds(str(path), where, f"{KEY} is no list of tables", f"[[{KEY}]], one for each shift")
    # what looks like a header inside a text would shift the count: then the number of the entry has to do
    places = [f"line {n} [[{KEY}]]" for n in lines] if len(lines) == len(entries) else [
        f"[[{KEY}]] number {i}" for i in range(1, len(entries) + 1)
    ]  # fmt: skip
    return tuple(_shift(entry, place, path) for entry, place in zip(entries, places, strict=True))


def _shift(entry: dict[str, object], place: str, path: Path) -> AcceptedShift:
    def complaint(problem: str, expected: str) -> errors.UsageError:
        return errors.bad_thresholds(str(path), place, problem, expected)

    for key in entry:
        if key not in KEYS:
            raise complaint(f"unknown key {key!r}", f"one of {', '.join(KEYS)}")
    texts = {}
    for key in ("release", "sae", "measure", "reason"):
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            raise complaint(f"{key} is {value!r}", f"{key} = a text")
        texts[key] = value
    if texts["measure"] not in _MEASURES:
        raise complaint(f"measure {texts['measure']!r}", "a measure that docs/record.md lists, such as ce_increase")
    since = _time(entry.get("since"))
    if since is None:
        raise complaint(
            f"since is {entry.get('since')!r}", "since = 2026-11-22, or a time such as 2026-11-22T18:00:00Z"
        )
    return AcceptedShift(**texts, since=since, where=f"{path.name} {place}")


def _time(value: object) -> datetime | None:
    """A TOML date, a TOML time or the text of one, as UTC; a date is its first moment."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return datetime(value.year, value.month, value.day, tzinfo=UTC) if isinstance(value, date) else None
