"""The tables of the user's file of limits, matched with a release: a file that does not apply is an error."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sae_checks import checks, errors
from sae_checks.judging.thresholds import Table, Thresholds

Subjects = Mapping[Literal["sae", "stack"], Sequence[str]]
"""ids of the SAEs ("sae") and of the stacks ("stack") of a whole release, whatever --sae-id selects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLimits:
    """The user's file of limits, and those of its tables that match nothing of the release."""

    file: str
    n_tables: int
    unmatched: tuple[str, ...]
    """the tables, as they are written there."""


def match(written: Thresholds, release: str, subjects: Subjects) -> OwnLimits | None:
    """
    Match the tables of the user's file with a release; None: the user has no file.

    A table matches if its patterns match the release and an SAE (of a check of stacks: a stack). `[default]` tables do.

    Raises:
        UsageError: no table matches.
    """
    tables, file = written.own_tables, written.paths[0]
    if tables is None:
        return None
    unmatched = [table for table in tables if not _matches(table, release, subjects)]
    if len(unmatched) == len(tables) and (tables or not written.has_accepted_shifts):
        names = [table.name for table in tables]
        raise errors.no_table_matches(file, release, names, subjects["sae"], _fitting_name(tables, subjects))
    return OwnLimits(file=file, n_tables=len(tables), unmatched=tuple(table.name for table in unmatched))


def _matches(table: Table, release: str, subjects: Subjects) -> bool:
    if table.release is None:
        return True
    of_kind = subjects["stack" if checks.named(table.check).of == "stack" else "sae"]
    return fnmatch.fnmatchcase(release, table.release) and any(
        table.sae is None or fnmatch.fnmatchcase(each, table.sae) for each in of_kind
    )


def _fitting_name(tables: Sequence[Table], subjects: Subjects) -> str:
    """The name under which most tables would match *subjects*; empty: there is none."""
    names = dict.fromkeys(re.sub(r"\[([*?[])\]", r"\1", table.release) for table in tables if table.release is not None)

    def n_matching(name: str) -> int:
        return sum(_matches(table, name, subjects) for table in tables)

    best = max(names, key=n_matching, default="")
    return best if n_matching(best) else ""
