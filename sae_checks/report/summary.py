"""Contents -> Markdown for a job summary on GitHub: tables, folded sections, Unicode sparklines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from sae_checks import checks
from sae_checks.judging.position_readings import Curve
from sae_checks.record.results import Result
from sae_checks.report import explaining, figures, wording
from sae_checks.report.contents import RED, Contents, Subject
from sae_checks.report.plots import DotPlot, MatrixPlot

N_BYTES_MOST = 900_000
"""GitHub refuses the whole summary of a step above 1 MiB."""
_BARS = "▁▂▃▄▅▆▇█"
_ON_SPARKLINES = (
    "From the first token to the last, some bars per doubling of the context. Each line is scaled from zero to its own "
    "maximum. │ is the end of the training context, · is below zero.\n"
)
_N_TOKENS = 60
_N_EXPLAINED = 2
"""predictions explained per SAE."""
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~#$@]|:(?=[/\w])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=[wW])\.")


def markdown(contents: Contents) -> str:
    """The summary of *contents*, cut to N_BYTES_MOST; if it was cut, the last line says so."""
    written: list[str] = []
    n_bytes = 0
    for section in _sections(contents):
        n_bytes += len(section.encode()) + 1
        if n_bytes > N_BYTES_MOST - 200:
            written.append("*Shortened: the record and `index.html` have the rest.*\n")
            break
        written.append(section)
    return "\n".join(written)


def escaped(value: str) -> str:
    """
    *value* as plain text for Markdown, tables and HTML: special characters become entities.

    WHY no backslashes: some readers end a cell at an escaped `|`, and `<summary>` shows the backslash.
    """
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", wording.text(value))


def sparkline(curve: Curve, n_training: int | None) -> str:
    """*curve* as bars from zero to its maximum, · below zero, and │ at the end of the training context."""
    found = figures.windows(curve, n_training)
    most = max((window.value for window in found), default=0.0)
    bars = []
    for window in found:
        if n_training is not None and window.first >= n_training and "│" not in bars:
            bars.append("│")
        share = window.value / most if most > 0 else 0.0
        bars.append("·" if window.value < 0 else _BARS[min(len(_BARS) - 1, int(share * len(_BARS)))])
    return "".join(bars)


def _sections(contents: Contents) -> Iterator[str]:
    run, verdict = contents.run, contents.verdict
    sign, word = wording.VERDICTS[verdict.word]
    yield f"# {escaped(run.release.name)}: {sign} {word}\n"
    yield f"{escaped(verdict.sentence)}\n"
    yield from (f"> {escaped(note)}\n" for note in verdict.notes)
    if verdict.reasons:
        yield "## Why\n"
        yield _table(("SAE", "check", "outcome", "value", "95 % interval", "limit"), _reasons(verdict.reasons))
        yield from (_reason_details(subject) for subject in verdict.reasons)
    if contents.saes:
        yield "## Every SAE, every check\n"
        yield _table(("SAE", *(check.title for check in contents.checks)), _grid(contents))
    positions = list(_positions(contents.saes))
    if positions:
        yield "## Increase by position\n"
        yield _ON_SPARKLINES
        yield _table(("SAE", "cross-entropy increase", "maximum, nats/token"), positions)
    yield from (_folded(plot.title, _dots(plot)) for plot in contents.stacked)
    yield from (
        _folded(matrix.title, f"{escaped(matrix.description)}\n\n{_matrix(matrix)}") for matrix in contents.matrices
    )
    yield _folded("Provenance", _table(("what", "which"), _provenance(contents)))


def _reasons(subjects: Iterable[Subject]) -> Iterator[tuple[str, ...]]:
    for subject in subjects:
        for result in subject.red:
            estimate = result.judged
            name = escaped(subject.name)
            title = escaped(checks.named(result.check).title)
            if estimate is None:
                yield name, title, _outcome(result), "", "", escaped(wording.limit(result.limit))
            else:
                unit = escaped(wording.unit(estimate.unit))
                value = f"**{wording.number(estimate.value)}** {unit}".strip()
                yield (
                    name,
                    title,
                    _outcome(result),
                    value,
                    _interval(estimate.low, estimate.high),
                    wording.limit(result.limit),
                )


def _reason_details(subject: Subject) -> str:
    """The messages of *subject*'s red checks, its worst sequence, and its explanation."""
    parts = []
    for result in subject.red:
        lines = [escaped(line) for line in result.reason.splitlines()]
        if result.limit is not None and result.outcome != "error":
            lines.append(f"limit written in {escaped(result.limit.where)}: {escaped(result.limit.source)}")
        parts.append(f"- **{escaped(result.check)}** {_outcome(result)}: " + "<br>".join(lines))
    for each in subject.worst_sequences[:1]:
        costly = [
            f"**{escaped(wording.token(token))}**"
            if increase is not None and increase >= 1
            else escaped(wording.token(token))
            for token, increase in zip(each.tokens[:_N_TOKENS], each.increase_nats, strict=False)
        ]
        parts.append(
            f"- costs most over document {each.document_index} ({wording.number(each.mean_increase_nats_per_token)} "
            f"nats/token; **bold**: a nat or more): {_joined(costly)}"
        )
    explained = () if subject.explanation is None else explaining.explain_tokens(subject.explanation)
    for token in explained[:_N_EXPLAINED]:
        parts.append(f"- where the loss comes from, {escaped(token.title)}")
        parts += [f"{'    ' if line.startswith(' ') else '  '}- {escaped(line.strip())}" for line in token.lines]
    return _folded(subject.name, "\n".join(parts) + "\n")


def _joined(tokens: Iterable[str]) -> str:
    """*tokens* as one text. TRAP: bold text must not begin or end with the spaces that tokens bring."""
    text = "".join(tokens)
    return re.sub(r"\*\*( *)(.*?)( *)\*\*", lambda m: f"{m[1]}**{m[2]}**{m[3]}" if m[2] else m[1] + m[3], text)


def _grid(contents: Contents) -> Iterator[tuple[str, ...]]:
    for sae in contents.saes:
        by_check = {result.check: result for result in sae.results}
        cells = (_cell(by_check.get(check.name)) for check in contents.checks)
        yield escaped(sae.name), *cells


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    sign, word = wording.OUTCOMES[result.outcome]
    estimate = result.judged
    value = "" if estimate is None else f" {wording.number(estimate.value)}"
    limit = f" ({wording.limit(result.limit)})" if result.limit is not None and estimate is not None else ""
    return f"**{sign} {word}**{value}{limit}" if result.outcome in RED else f"{sign}{value or ' ' + word}{limit}"


def _positions(saes: Iterable[Subject]) -> Iterator[tuple[str, str, str]]:
    for sae in saes:
        for curve in (c for r in sae.results for c in r.curves if c.measure == "ce_increase" and c.position):
            most = max(window.value for window in figures.windows(curve, sae.n_training))
            yield escaped(sae.name), f"`{sparkline(curve, sae.n_training)}`", wording.number(most)


def _dots(plot: DotPlot) -> str:
    rows = (
        (
            escaped(dot.label),
            wording.number(dot.value),
            _interval(dot.low, dot.high),
            ", ".join(map(wording.number, dot.limits)),
        )
        for dot in plot.dots
    )
    return _table(("spliced in", escaped(plot.x_title), "95 % interval", "limit"), rows)


def _matrix(matrix: MatrixPlot) -> str:
    rows = (
        (
            escaped(name),
            *("" if cell is None else wording.number(cell) for cell in cells),
            "" if most is None else f"≤ {wording.number(most)}",
        )
        for name, cells, most in zip(matrix.rows, matrix.cells, matrix.limits, strict=True)
    )
    return _table((matrix.corner, *map(escaped, matrix.columns), "limit at the last"), rows)


def _provenance(contents: Contents) -> Iterator[tuple[str, str]]:
    run = contents.run
    at = f" at {run.release.revision}" if run.release.revision else ""
    yield "release", escaped(f"{run.release.name}, {run.release.source}{at}")
    yield "run", escaped(f"{run.started}, {wording.seconds(run.wall_s)}, {run.platform}")
    for model in contents.models:
        yield (
            "model",
            escaped(f"{model.source}: {model.architecture} in {model.backend}, {model.dtype} on {model.device}"),
        )
    for corpus in contents.corpora:
        size = f"{corpus.n_sequences} sequences, {corpus.n_scored_tokens} scored tokens"
        yield escaped(corpus.kind), escaped(f"{corpus.source}: {size}, sha256 {corpus.sha256}")
    yield "software", escaped(", ".join(f"{package.name} {package.version}" for package in run.software))


def _outcome(result: Result) -> str:
    return " ".join(wording.OUTCOMES[result.outcome])


def _interval(low: float | None, high: float | None) -> str:
    return escaped(wording.interval(low, high))


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{escaped(title)}</summary>\n\n{body}\n</details>\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
