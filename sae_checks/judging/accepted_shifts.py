"""
Accepted shifts: changes of level that a person has checked and explained, `[[accepted_shift]]` in thresholds.toml.

They appear beside a series of runs and change no verdict.
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
    """A change of level of one measure of some SAEs, for a known reason."""

    release: str
    """fnmatch pattern, like *sae*."""
    sae: str
    measure: str
    since: datetime
    """UTC; runs that started then or later are at the new level."""
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
    Read the accepted shifts of all of *paths*.

    Raises:
        UsageError: a file cannot be read, or has an invalid entry.
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
    The accepted shifts of *document*, parsed from *text*, the content of *path*.

    Raises:
        UsageError: an entry is invalid.
    """
    entries = document.get(KEY, [])
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        where = f"line {lines[0]}" if lines else KEY
        raise errors.bad_thresholds(
            str(path), where, f"{KEY} is not a list of tables", f"[[{KEY}]], one for each shift"
        )
    # TRAP: a text may contain what looks like a header; then messages give the entry's number instead of its line
    places = [f"line {n} [[{KEY}]]" for n in lines] if len(lines) == len(entries) else [
        f"[[{KEY}]] number {i}" for i in range(1, len(entries) + 1)
    ]  # fmt: skip
    return tuple(_shift(entry, place, path) for entry, place in zip(entries, places, strict=True))


def _shift(entry: dict[str, object], place: str, path: Path) -> AcceptedShift:
    def invalid(problem: str, expected: str) -> errors.UsageError:
        return errors.bad_thresholds(str(path), place, problem, expected)

    for key in entry:
        if key not in KEYS:
            raise invalid(f"unknown key {key!r}", f"one of {', '.join(KEYS)}")
    texts = {}
    for key in ("release", "sae", "measure", "reason"):
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            raise invalid(f"{key} is {value!r}", f"{key} = a text")
        texts[key] = value
    if texts["measure"] not in _MEASURES:
        raise invalid(f"measure {texts['measure']!r}", "a measure that docs/record.md lists, such as ce_increase")
    since = _time(entry.get("since"))
    if since is None:
        raise invalid(f"since is {entry.get('since')!r}", "since = 2026-11-22, or a time such as 2026-11-22T18:00:00Z")
    return AcceptedShift(**texts, since=since, where=f"{path.name} {place}")


def _time(value: object) -> datetime | None:
    """*value*, a TOML date or time or the text of one, in UTC; None: it is none. A date means its first moment."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return datetime(value.year, value.month, value.day, tzinfo=UTC) if isinstance(value, date) else None
