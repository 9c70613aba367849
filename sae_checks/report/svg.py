"""Plots -> SVG, inside a page or as files of their own. Colours are CSS classes; labels stay text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources

from markupsafe import Markup

from sae_checks.report import plots, wording
from sae_checks.report.plots import Dot, DotPlot, LinePlot, ReferenceLine, Scale

WIDTH = 380
"""pixels. WHY: fits a telephone without scaling; wide pages put several side by side."""
_HEIGHT = 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 8, 20, 38
_ROW = 36
_MARGIN, _HEADING = 12, 22  # of a file
_N_CHARACTERS_MOST = 54  # of a label


@cache
def style_sheet() -> str:
    """The style sheet of all plots, with the colours of light and dark."""
    return resources.files("sae_checks.report").joinpath("page", "plot.css").read_text("utf-8")


def lines(plot: LinePlot) -> Markup:
    """Draw *plot*: the band, the line, and the limits and other marks."""
    x_scale, y_scale = plots.line_scales(plot)
    box = _Box(x_scale, y_scale, bottom=_HEIGHT - _BOTTOM)
    upper = [(box.x(x), box.y(y)) for x, y in zip(plot.x, plot.high, strict=True)]
    lower = [(box.x(x), box.y(y)) for x, y in zip(plot.x, plot.low, strict=True)]
    middle = [(box.x(x), box.y(y)) for x, y in zip(plot.x, plot.value, strict=True)]
    parts = [*_y_axis(box, plot.y_title), *_x_axis(box, plot.x_title)]
    parts.append(_element("polygon", "band", points=_points([*upper, *reversed(lower)])))
    parts.append(_element("polyline", "line", points=_points(middle)))
    parts += [_element("circle", "dot", cx=f"{x:.1f}", cy=f"{y:.1f}", r="2.4") for x, y in middle if len(middle) == 1]
    has_limit_on_top = any(box.y(mark.at) < box.top + 24 for mark in plot.marks if mark.along == "y")
    at = box.bottom - 6 if has_limit_on_top else box.top + 10
    parts += [piece for mark in plot.marks for piece in _mark(box, mark, at)]
    return _svg(plot.name, plot.title, plot.description, _HEIGHT, parts)


def dots(plot: DotPlot, *, is_file: bool = False) -> Markup:
    """
    Draw *plot*, a row per value: label, interval as a bar, value in the shape of its outcome, limits as ticks.

    With *is_file* the SVG stands alone: it has a heading, a background and its style.
    """
    scale = plots.dot_scale(plot.dots)
    height = _ROW * len(plot.dots) + _BOTTOM + 4
    box = _Box(scale, Scale(low=0, high=1), top=2, bottom=height - _BOTTOM, left=10, right=14)
    parts = _x_axis(box, plot.x_title)
    rows = [(dot, 2 + _ROW * i + 25.0) for i, dot in enumerate(plot.dots)]
    if plot.is_joined:
        parts.append(_element("polyline", "joint", points=_points([(box.x(dot.value), y) for dot, y in rows])))
    for dot, y in rows:
        parts += _dot(box, dot, y)
    return _svg(plot.name, plot.title, plot.description, height, parts, is_file=is_file)


class _Box:
    """The rectangle inside the axes, and the pixels of values in it."""

    def __init__(
        self,
        x_scale: Scale,
        y_scale: Scale,
        *,
        bottom: float,
        left: float = _LEFT,
        top: float = _TOP,
        right: float = _RIGHT,
    ) -> None:
        self.x_scale, self.y_scale = x_scale, y_scale
        self.left, self.right, self.top, self.bottom = left, WIDTH - right, top, bottom

    def x(self, value: float) -> float:
        return self.left + self.x_scale.at(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - self.y_scale.at(value) * (self.bottom - self.top)


def _y_axis(box: _Box, title: str) -> list[Markup]:
    ticks = box.y_scale.ticks()
    parts = [
        _text(title, "title", 2, box.top - 9),
        *_grid(ticks, [_from(box.left, box.y(t), "H", box.right) for t in ticks]),
    ]
    parts += [_text(wording.number(tick), "ytick", box.left - 6, box.y(tick) + 4) for tick in ticks]
    return parts


def _x_axis(box: _Box, title: str) -> list[Markup]:
    ticks = box.x_scale.ticks()
    parts = _grid(ticks, [_from(box.x(tick), box.top, "V", box.bottom) for tick in ticks])
    for tick in ticks:
        x = box.x(tick)
        inside = min(max(x, box.left + 4), box.right - 4)
        parts.append(_text(wording.number(tick), "xtick", inside, box.bottom + 14))
    parts.append(_text(title, "xtitle", box.right, box.bottom + 31))
    return parts


def _grid(ticks: Sequence[float], rules: Sequence[str]) -> list[Markup]:
    """All grid lines in one path, that of zero in another."""
    by_kind = {"grid": [r for t, r in zip(ticks, rules, strict=True) if t != 0]}
    by_kind["zero"] = [r for t, r in zip(ticks, rules, strict=True) if t == 0]
    return [_element("path", kind, d="".join(found)) for kind, found in by_kind.items() if found]


def _from(x: float, y: float, way: str, to: float) -> str:
    return f"M{_px(x)} {_px(y)}{way}{_px(to)}"


def _mark(box: _Box, mark: ReferenceLine, label_y: float) -> Iterator[Markup]:
    """A line across the box and its label; the label of a vertical line stands at *label_y*."""
    if mark.along == "y":
        y = box.y(mark.at)
        above = y - box.top > 16
        yield _rule("limit", box.left, y, box.right, y)
        yield _text(mark.label, "limit-label", box.left + 4, y - 4 if above else y + 13)
        return
    x = box.x(mark.at)
    yield _rule("context", x, box.top, x, box.bottom)
    is_right = x > (box.left + box.right) / 2
    anchor, aside = ("end", -4) if is_right else ("start", 4)
    yield _text(mark.label, "context-label", x + aside, label_y, anchor=anchor)


def _dot(box: _Box, dot: Dot, y: float) -> Iterator[Markup]:
    label = dot.label if len(dot.label) <= _N_CHARACTERS_MOST else dot.label[: _N_CHARACTERS_MOST - 1] + "…"
    yield _text(label, "label", box.left, y - 10)
    for limit in dot.limits:
        yield _rule("limit", box.x(limit), y - 7, box.x(limit), y + 7)
    yield _rule(f"whisker {dot.outcome}", box.x(dot.low), y, box.x(dot.high), y)
    yield _shape(dot.outcome, box.x(dot.value), y)


def _shape(outcome: str, x: float, y: float) -> Markup:
    """The shape of *outcome*: a disc for passed, a cross for failed, a triangle for inconclusive, else a ring."""
    if outcome == "passed":
        return _element("circle", "dot passed", cx=f"{x:.1f}", cy=f"{y:.1f}", r="4")
    if outcome == "failed":
        return _element("path", "cross", d=f"M{x - 5:.1f} {y - 5:.1f}l10 10m0-10l-10 10")
    if outcome == "inconclusive":
        return _element("path", "dot inconclusive", d=f"M{x:.1f} {y - 5.5:.1f}l5.5 10h-11z")
    return _element("circle", "ring", cx=f"{x:.1f}", cy=f"{y:.1f}", r="4")


def _svg(
    name: str, title: str, description: str, height: float, parts: Sequence[Markup], *, is_file: bool = False
) -> Markup:
    names = Markup(
        'role="img" aria-labelledby="{}-t {}-d"><title id="{}-t">{}</title><desc id="{}-d">{}</desc>'
    ).format(name, name, name, wording.text(title), name, wording.text(description))
    body = Markup("").join(parts) + Markup("</svg>")
    if not is_file:
        return Markup('<svg class="plot" viewBox="0 0 {} {}" ').format(WIDTH, math.ceil(height)) + names + body
    whole = WIDTH + 2 * _MARGIN, math.ceil(height) + 2 * _MARGIN + _HEADING
    box = Markup('<svg xmlns="http://www.w3.org/2000/svg" class="plot" width="{}" height="{}" viewBox="{} {} {} {}" ')
    style = Markup("<style>{}</style>").format(Markup(style_sheet()))  # noqa: S704 -- from the package
    paper = Markup('<rect class="paper" x="{}" y="{}" width="100%" height="100%"/>').format(
        -_MARGIN, -_MARGIN - _HEADING
    )
    heading = _text(title, "heading", 2, -_HEADING + 8)
    return box.format(*whole, -_MARGIN, -_MARGIN - _HEADING, *whole) + names + style + paper + heading + body


def _text(content: str, kind: str, x: float, y: float, *, anchor: str = "start") -> Markup:
    at = {"text_anchor": anchor} if anchor != "start" else {}
    return _element("text", kind, content, x=_px(x), y=_px(y), **at)


def _rule(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return _element("path", kind, d=f"M{_px(x1)} {_px(y1)}L{_px(x2)} {_px(y2)}")


def _px(x: float) -> str:
    """*x* to a tenth of a pixel; more digits would only make large releases larger."""
    return f"{x:.1f}".removesuffix(".0")


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_px(x)},{_px(y)}" for x, y in points)


def _element(tag: str, kind: str, content: str = "", **attributes: str) -> Markup:
    written = Markup("").join(
        Markup(' {}="{}"').format(name.replace("_", "-"), value) for name, value in attributes.items()
    )
    start = Markup('<{} class="{}"').format(tag, kind) + written
    return start + (Markup(">{}</{}>").format(wording.text(content), tag) if content else Markup("/>"))
