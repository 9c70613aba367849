"""A record -> a block of Markdown for the README of a release, with the files that it shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from sae_checks import errors
from sae_checks.judging.limits import Limit
from sae_checks.record.results import Record
from sae_checks.report import command, overview, summary, svg, tradeoff, wording
from sae_checks.report.tradeoff import Row

NAME = "model-card.md"
BADGE = "sae-checks-badge.svg"
_COLOURS = {"passed": "#1c6b4a", "failed": "#a8261d", "not_decided": "#946200"}


def model_card(run: Record) -> str:
    """The block: verdict, what was judged, a row per SAE, plots, and the command that repeats the run."""
    _, word = wording.VERDICTS[run.verdict]
    found = tradeoff.rows(run, is_of_all=True)
    name = summary.escaped(run.release.name)
    parts = [
        f"## Checked with sae-checks: {word}",
        f"![sae-checks: {word}]({BADGE})",
        f"{name} on {summary.escaped(run.started[:10])}: {summary.escaped(overview.sentence(run))}",
        "\n".join(f"- {label}: {summary.escaped(value)}" for label, value in overview.facts(run, with_command=False)),
        _table(found),
        "\n".join(f"![{summary.escaped(plot.title)}]({plot.name}.svg)" for plot in tradeoff.plots(found)),
        f"Repeat it:\n\n```\n{_fenced(command.typed(run))}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(run: Record, folder: Path) -> tuple[str, ...]:
    """
    Write the block, its badge and its plots into *folder*; creates the folder.

    Returns:
        Lines for the user.

    Raises:
        UsageError: the run stopped early, or the folder cannot be written.
    """
    options = dict(run.options)
    if (profile := str(options.get("profile"))) != "full":
        full = replace(run, options=tuple({**options, "profile": "full"}.items()))
        raise errors.no_model_card(profile, f"{command.typed(full)} --sae-out=full")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAME).write_text(model_card(run), encoding="utf-8")
        (folder / BADGE).write_text(badge(run), encoding="utf-8")
        for plot in tradeoff.plots(tradeoff.rows(run, is_of_all=True)):
            (folder / f"{plot.name}.svg").write_text(svg.scatter(plot, is_file=True), encoding="utf-8")
    except OSError as problem:
        raise errors.report_not_written(str(folder), str(problem)) from None
    return (f"model card: {folder / NAME}",)


def badge(run: Record) -> str:
    """The verdict as a badge, an SVG file."""
    _, word = wording.VERDICTS[run.verdict]
    left, right = 84, 20 + 8 * len(word)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{whole}" height="20">'
        "<title>sae-checks: {word}</title>"
        '<rect width="{left}" height="20" fill="#3c4046"/>'
        '<rect x="{left}" width="{right}" height="20" fill="{colour}"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11">'
        '<text x="{middle}" y="14">sae-checks</text><text x="{of_word}" y="14">{word}</text></g></svg>\n'
    ).format(
        whole=left + right,
        left=left,
        right=right,
        middle=left / 2,
        of_word=left + right / 2,
        colour=_COLOURS[run.verdict],
        word=word,
    )


def _table(found: Iterable[Row]) -> str:
    lines = [
        "| SAE | L0, latents/token | explained variance | CE increase, nats/token | checks |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    lines += [f"| {' | '.join(_cells(row))} |" for row in found]
    return "\n".join(lines)


def _cells(row: Row) -> Iterator[str]:
    yield summary.escaped(row.sae_id)
    yield _number(row.l0)
    yield _number(row.explained_variance, row.variance_limit)
    yield _number(row.ce_increase, row.ce_limit)
    yield " ".join(wording.OUTCOMES[row.outcome])


def _number(value: float | None, limit: Limit | None = None) -> str:
    if value is None:
        return "not measured"
    return f"{wording.number(value)}{f' ({wording.limit(limit)})' if limit is not None else ''}"


def _fenced(line: str) -> str:
    """*line* in a fence, which it must not end."""
    return wording.text(line).replace("```", "'''")
