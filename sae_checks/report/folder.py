"""A record -> a folder with the report: index.html, summary.md, and the plots of the release as SVG."""

from __future__ import annotations

import re
from pathlib import Path

from sae_checks import errors
from sae_checks.record.results import Record
from sae_checks.report import contents, html, summary, svg
from sae_checks.report.contents import Contents

PLOTS = "plots"
_OURS = re.compile(r"(l0|profile|stack)-[a-z0-9_]+\.svg")


def write(run: Record, folder: Path) -> tuple[str, ...]:
    """
    Write the report of *run* into *folder*. Creates the folder; removes the plots of an earlier report.

    Returns:
        Lines for the user: what was written.

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
        write_plots(found, folder / PLOTS)
    except OSError as problem:
        raise errors.report_not_written(str(folder), str(problem)) from None
    return (f"report: {folder / 'index.html'}",)


def write_plots(found: Contents, folder: Path) -> None:
    """Write the plots across the release into *folder*, which exists, instead of those of an earlier report."""
    for old in folder.iterdir():
        if _OURS.fullmatch(old.name):
            old.unlink()
    for cloud in found.scatters:
        (folder / f"{cloud.name}.svg").write_text(svg.scatter(cloud, is_file=True), encoding="utf-8")
    for plot in (*found.profiles, *found.stacked):
        (folder / f"{plot.name}.svg").write_text(svg.dots(plot, is_file=True), encoding="utf-8")
