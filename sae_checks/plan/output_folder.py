"""The folder that --sae-out names, and the files that a run writes into it. Standard library only."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from sae_checks import errors

RECORD, JUNIT, BENCHMARK = "record.json", "junit.xml", "benchmark.json"
LAST_GREEN = "last-green.json"
"""record of the last run that was green and whole: the baseline `last`."""
REPORT = "report"
"""a folder."""


def prepare(folder: Path) -> None:
    """
    Create *folder* with its parents, and write a file of no name into it to see that a run can.

    Raises:
        UsageError: it cannot be created or written, or something else stands where a file of the run belongs.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except OSError as problem:
        raise errors.out_not_writable(str(folder), str(problem)) from None
    for name in (RECORD, LAST_GREEN, JUNIT, BENCHMARK):
        if (folder / name).is_dir():
            raise errors.out_not_writable(str(folder), f"a folder with the name {name}")
    if (folder / REPORT).exists() and not (folder / REPORT).is_dir():
        raise errors.out_not_writable(str(folder), f"a file with the name {REPORT}")
