"""A record -> a folder with the report: index.html, summary.md, and the plots as PNG."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from sae_checks import errors
from sae_checks.record.results import Record
from sae_checks.report import contents, html, png, summary
from sae_checks.report.contents import Contents
from sae_checks.report.plots import Plot

PLOTS = "plots"


def write(run: Record, folder: Path) -> tuple[str, ...]:
    """
    Write the report of *run* into *folder*. Creates the folder; removes the PNGs of an earlier report.

    Returns:
        Lines for the user: what was written, and what was not and why.

    Raises:
        RecordError: the record has a check that this version does not know.
        UsageError: the folder cannot be written.
    """
    found = contents.build(run)
    page, text = html.page(found), summary.markdown(found)
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        (folder / "index.html").write_text(page, encoding="utf-8")
        (folder / "summary.md").write_text(text, encoding="utf-8")
        for old in (folder / PLOTS).glob("*.png"):
            old.unlink()
        if find_spec("matplotlib") is None:
            return f"report: {folder / 'index.html'}", errors.no_matplotlib()
        for name, title, drawn in _pictures(found):
            png.write(drawn, title, folder / PLOTS / f"{name}.png")
    except OSError as problem:
        raise errors.report_not_written(str(folder), str(problem)) from None
    return (f"report: {folder / 'index.html'}",)


def _pictures(found: Contents) -> Iterator[tuple[str, str, Sequence[Plot]]]:
    """(file name, title, plots) of each picture: one per SAE with curves, one per kind of plot across the release."""
    release = found.run.release.name
    for name, drawn in (("profiles", found.profiles), ("propagation", found.matrices), ("stacked", found.stacked)):
        if drawn:
            yield name, f"{release}: {name}", drawn
    for sae in found.saes:
        if sae.plots:
            yield f"{sae.anchor}-{re.sub('[^A-Za-z0-9.-]+', '_', sae.name)[:80]}", sae.name, sae.plots
