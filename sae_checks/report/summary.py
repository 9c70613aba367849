"""Contents -> a short summary in Markdown, for a job summary on GitHub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from sae_checks import checks
from sae_checks.record.results import Result
from sae_checks.report import wording
from sae_checks.report.contents import Comparison, Contents, Subject

N_REASONS = 6
"""red SAEs of which is said what is wrong."""
N_COMPARED = 5
"""regressions that are named."""
N_ROWS = 15
"""SAEs in the table."""
_FACTS = ("Model", "SAEs", "Limits", "Run")
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~#$@]|:(?=[/\w])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=[wW])\.")


def markdown(contents: Contents) -> str:
    """The summary of *contents*: verdict, what is wrong, what became worse, a row per SAE; at most 60 lines."""
    return "\n".join(_lines(contents)) + "\n"


def escaped(value: str) -> str:
    """
    *value* as plain text for Markdown, tables and HTML: special characters become entities.

    WHY no backslashes: some readers end a cell at an escaped `|`.
    """
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", wording.text(value))


def _lines(contents: Contents) -> Iterator[str]:
    run, verdict = contents.run, contents.verdict
    yield f"# {escaped(run.release.name)}: {' '.join(wording.VERDICTS[verdict.word])}"
    yield from ("", escaped(verdict.sentence))
    for note in verdict.notes:
        yield from ("", f"> {escaped(note)}")
    yield from ("", " · ".join(f"{label}: {escaped(text)}" for label, text in contents.facts if label in _FACTS))
    if verdict.reasons:
        yield from ("", "## What is wrong", "")
        for subject in verdict.reasons[:N_REASONS]:
            yield from _reason(subject)
        yield from _more(len(verdict.reasons) - N_REASONS, "that failed")
    if verdict.undecided:
        n = sum(len(subject.red) for subject in verdict.undecided)
        names = ", ".join(escaped(subject.name) for subject in verdict.undecided[:N_REASONS])
        rest = len(verdict.undecided) - N_REASONS
        yield from ("", f"Undecided: {n} checks of {names}{f' and {rest} more' if rest > 0 else ''}.")
    if contents.comparisons:
        yield from _baseline(contents.comparisons)
    if contents.saes:
        yield from _table(contents)
    yield from ("", "The report's `index.html` has the rest.")


def _reason(subject: Subject) -> Iterator[str]:
    """The name and the diagnosis, then each red check with its value against the limit."""
    diagnosis = "" if subject.diagnosis is None else f": {escaped(subject.diagnosis.sentence)}"
    yield f"- **{escaped(subject.name)}**{diagnosis}"
    yield f"  - {'; '.join(f'{escaped(checks.named(r.check).title)} {_against(r)}' for r in subject.red)}"


def _against(result: Result) -> str:
    """`✕ 2.06 > 0.0282`, or the reason."""
    sign = wording.OUTCOMES[result.outcome][0]
    judged, limit = result.judged, result.limit
    if judged is None or limit is None or judged.measure != limit.measure:
        return f"{sign} {escaped(result.reason.partition(chr(10))[0][:200])}"
    measure = f"{escaped(limit.measure)} " if result.other_limits else ""
    return f"{sign} {measure}**{wording.number(judged.value)}** ({escaped(wording.limit(limit))})"


def _baseline(comparisons: Sequence[Comparison]) -> Iterator[str]:
    worse = [c for c in comparisons if c.result.outcome not in ("passed", "not_measured")]
    yield from ("", "## Against the baseline", "")
    yield f"{len(worse)} of {len(comparisons)} comparisons are worse or undecided."
    yield from [""] if worse else []
    for row in worse[:N_COMPARED]:
        yield f"- **{escaped(row.name)}** {escaped(row.check)}: {_against(row.result)}"
    yield from _more(len(worse) - N_COMPARED, "that are worse")


def _table(contents: Contents) -> Iterator[str]:
    rows = {row.sae_id: row for row in contents.tradeoff}
    yield from ("", "## SAEs", "")
    yield "| SAE | L0 | explained variance | CE increase | checks |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for sae in contents.saes[:N_ROWS]:
        row = rows[sae.name]
        cells = (
            escaped(sae.name),
            *("" if x is None else wording.number(x) for x in (row.l0, row.explained_variance, row.ce_increase)),
            " ".join(wording.OUTCOMES[row.outcome]),
        )
        yield f"| {' | '.join(cells)} |"
    n_more = len(contents.saes) - N_ROWS
    if n_more > 0:
        yield from ("", f"… and {n_more} more SAEs.")


def _more(n: int, what: str) -> Iterable[str]:
    return (f"- … and {n} more {what}",) if n > 0 else ()
