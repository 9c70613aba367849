"""Contents -> one page that stands alone: no script, nothing fetched, every name escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from sae_checks import __version__, checks
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.report import explaining, figures, svg, wording
from sae_checks.report.contents import Contents, Subject

N_LEVELS = 8
"""shades of a matrix."""
LEVELS_NATS = (0.1, 0.5, 1.0, 2.0, 4.0)
"""where one shade of a token ends and the next begins."""
_N_COSTLIEST = 6
_N_REASONS = 4
"""of a red release that are unfolded: what is red everywhere is not better understood by a longer list."""
N_BYTES_MOST = 1_000_000
"""of a page: mails and viewers take no more, and a reader neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """How much of each SAE is shown."""

    n_worst: int = 5
    """sequences of an SAE that is red."""
    n_worst_of_green: int = 5
    n_flips: int = 10
    """each way."""
    has_measures: bool = True
    """those that nothing limits."""
    has_positions: bool = True
    """the curves as numbers."""

    @property
    def is_short(self) -> bool:
        """Whether anything is left out."""
        return self != Detail()


_DETAILS = (
    Detail(),
    Detail(n_worst=3, n_worst_of_green=1, n_flips=4),
    Detail(n_worst=1, n_worst_of_green=0, n_flips=3, has_measures=False),
    Detail(n_worst=0, n_worst_of_green=0, n_flips=0, has_measures=False),
    Detail(n_worst=0, n_worst_of_green=0, n_flips=0, has_measures=False, has_positions=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A run of text in one shade; 0: none."""

    text: str
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costly:
    """One of the tokens that cost most, with what stands before it."""

    before: str
    token: str
    position: int
    increase: float


def page(contents: Contents) -> str:
    """The whole page, with as much detail as fits into N_BYTES_MOST."""
    written = ""
    for detail in _DETAILS:
        written = _rendered(contents, detail)
        if len(written.encode()) <= N_BYTES_MOST:
            break
    return written


def _rendered(contents: Contents, detail: Detail) -> str:
    style = resources.files("sae_checks.report").joinpath("page", "page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        c=contents,
        detail=detail,
        version=__version__,
        style=Markup(style),  # noqa: S704 -- ours, from the package
        csp=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        smoothing=figures.SMOOTHING,
        levels=LEVELS_NATS,
        n_reasons=_N_REASONS,
    )


def pieces(sequence: WorstSequence) -> tuple[Piece, ...]:
    """The text of *sequence*, neighbouring tokens of no shade in one piece; the spaces before a token have no shade."""
    found: list[Piece] = []
    for token, increase in zip(sequence.tokens, sequence.increase_nats, strict=True):
        level = 0 if increase is None else sum(increase >= limit for limit in LEVELS_NATS)
        shown = wording.token(token)
        word = shown.lstrip(" ") if level else ""
        plain = shown.removesuffix(word)
        if plain and found and found[-1].level == 0:
            found[-1] = Piece(text=found[-1].text + plain, level=0)
        elif plain:
            found.append(Piece(text=plain, level=0))
        if word:
            found.append(Piece(text=word, level=level))
    return tuple(found)


def costliest(sequence: WorstSequence) -> tuple[Costly, ...]:
    """The tokens of *sequence* that cost most, the worst first."""
    ranked = sorted(
        ((x, i) for i, x in enumerate(sequence.increase_nats) if x is not None and x > 0),
        key=lambda pair: (-pair[0], pair[1]),
    )
    return tuple(
        Costly(
            before="".join(map(wording.token, sequence.tokens[max(0, i - 4) : i])),
            token=wording.token(sequence.tokens[i]),
            position=sequence.position + i,
            increase=x,
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
        limited=wording.limited,
        unit=wording.unit,
        seconds=wording.seconds,
        name=wording.breakable,
        pieces=pieces,
        costliest=costliest,
        explained=explaining.told,
    )
    environment.globals.update(
        OUTCOMES=wording.OUTCOMES,
        VERDICTS=wording.VERDICTS,
        N_LEVELS=N_LEVELS,
        named=checks.named,
        interval=wording.interval,
        draw_lines=svg.lines,
        draw_dots=svg.dots,
        position_table=_position_table,
        lines_of=_lines_of,
    )
    return environment.get_template("page.html.j2")


def _source(name: str) -> str:
    return resources.files("sae_checks.report").joinpath("page", name).read_text("utf-8")


def _shown(value: Any) -> Any:  # Any: whatever a template puts out
    """Names and texts on their way into the page: no control character, no half of a pair, no reversed text."""
    return wording.text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _position_table(sae: Subject) -> figures.PositionTable:
    return figures.position_table([curve for result in sae.results for curve in result.curves], sae.n_training)


def _lines_of(reason: str) -> Iterator[str]:
    """What a verdict says, line by line."""
    yield from reason.splitlines()
