"""Contents -> one HTML page without scripts and without anything to fetch; every name in it is escaped."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from sae_checks import __version__, checks
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.report import diagnosing, explaining, figures, svg, wording
from sae_checks.report.contents import Contents, Subject

N_LEVELS = 8
"""shades of a matrix."""
LEVELS_NATS = (0.1, 0.5, 1.0, 2.0, 4.0)
"""increase at which each shade of a token begins."""
_N_COSTLIEST = 6
_N_REASONS = 4
"""red SAEs of which is said what is wrong; the others are folded."""
_N_ROWS = 30
"""SAEs in a table; the others are folded."""
_N_SAES_IN_DETAIL = 60
"""of more SAEs the page shows the least detail. WHY: nothing else would fit, and each try takes seconds."""
_N_COMPARED = 15
"""regressions that are not folded."""
_N_ROWS_OF_PLOT = 12
"""SAEs in a matrix or the steps of a stack; longer ones are folded."""
N_BYTES_MOST = 1_000_000
"""of a page. WHY: many mail systems and viewers take no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """How much a page shows of each SAE."""

    n_worst: int = 5
    """worst sequences of a red SAE."""
    n_worst_of_green: int = 5
    n_flips: int = 10
    """changed answers, each way."""
    has_measures: bool = True
    """shows the measures without a limit."""
    has_positions: bool = True
    """shows the curves as numbers."""
    has_plots_of_green: bool = True

    @property
    def is_short(self) -> bool:
        """Whether anything is left out."""
        return self != Detail()


_DETAILS = (  # from most to least
    Detail(),
    Detail(n_worst=3, n_worst_of_green=1, n_flips=4),
    Detail(n_worst=1, n_worst_of_green=0, n_flips=3, has_measures=False),
    Detail(n_worst=1, n_worst_of_green=0, n_flips=0, has_measures=False, has_positions=False),
    Detail(n_worst=0, n_worst_of_green=0, n_flips=0, has_measures=False, has_positions=False, has_plots_of_green=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadedText:
    """Text in one shade, 0 for none up to the number of LEVELS_NATS."""

    text: str
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedToken:
    """A row of the table of a sequence's costliest tokens."""

    before: str
    """the tokens before it."""
    token: str
    position: int
    increase_nats: float


def page(contents: Contents) -> str:
    """The page of *contents*, with as much detail as fits into N_BYTES_MOST."""
    written = ""
    for detail in _DETAILS if len(contents.saes) <= _N_SAES_IN_DETAIL else _DETAILS[-1:]:
        written = _rendered(contents, detail)
        if len(written.encode()) <= N_BYTES_MOST:
            break
    return written


def _rendered(contents: Contents, detail: Detail) -> str:
    style = svg.style_sheet() + _source("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        c=contents,
        detail=detail,
        version=__version__,
        style=Markup(style),  # noqa: S704 -- from the package
        csp=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        smoothing=figures.SMOOTHING,
        levels=LEVELS_NATS,
        n_reasons=_N_REASONS,
        n_rows=_N_ROWS,
        n_compared=_N_COMPARED,
        n_rows_of_matrix=_N_ROWS_OF_PLOT,
        n_rows_of_stack=_N_ROWS_OF_PLOT,
    )


def shaded_texts(sequence: WorstSequence) -> tuple[ShadedText, ...]:
    """The text of *sequence* by shade: unshaded neighbours are joined, the spaces before a token are unshaded."""
    found: list[ShadedText] = []
    for token, increase in zip(sequence.tokens, sequence.increase_nats, strict=True):
        level = 0 if increase is None else sum(increase >= limit for limit in LEVELS_NATS)
        shown = wording.token(token)
        word = shown.lstrip(" ") if level else ""
        plain = shown.removesuffix(word)
        if plain and found and found[-1].level == 0:
            found[-1] = ShadedText(text=found[-1].text + plain, level=0)
        elif plain:
            found.append(ShadedText(text=plain, level=0))
        if word:
            found.append(ShadedText(text=word, level=level))
    return tuple(found)


def costliest_tokens(sequence: WorstSequence) -> tuple[RankedToken, ...]:
    """The tokens of *sequence* with the highest increase, the worst first."""
    ranked = sorted(
        ((x, i) for i, x in enumerate(sequence.increase_nats) if x is not None and x > 0),
        key=lambda pair: (-pair[0], pair[1]),
    )
    return tuple(
        RankedToken(
            before="".join(map(wording.token, sequence.tokens[max(0, i - 4) : i])),
            token=wording.token(sequence.tokens[i]),
            position=sequence.first_position + i,
            increase_nats=x,
        )
        for x, i in ranked[:_N_COSTLIEST]
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(
        number=wording.number,
        limit=wording.limit,
        corrections=diagnosing.corrections,
        numbers=diagnosing.numbers,
        unit=wording.unit,
        seconds=wording.seconds,
        name=wording.breakable,
        shaded_texts=shaded_texts,
        costliest_tokens=costliest_tokens,
        explain_tokens=explaining.explain_tokens,
    )
    environment.globals.update(
        OUTCOMES=wording.OUTCOMES,
        VERDICTS=wording.VERDICTS,
        N_LEVELS=N_LEVELS,
        named=checks.named,
        interval=wording.interval,
        draw_lines=svg.lines,
        draw_dots=svg.dots,
        draw_scatter=svg.scatter,
        position_table=_position_table,
    )
    return environment.get_template("page.html.j2")


def _source(name: str) -> str:
    return resources.files("sae_checks.report").joinpath("page", name).read_text("utf-8")


def _shown(value: Any) -> Any:  # Any: a template prints values of all types
    """*value* as the page prints it: texts without control characters, lone surrogates or reversed writing."""
    return wording.text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _position_table(sae: Subject) -> figures.PositionTable:
    return figures.position_table([curve for result in sae.results for curve in result.curves], sae.n_training)
