"""Plots -> SVG, inside a page or as files of their own. Colours are CSS classes; labels stay text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources

from markupsafe import Markup

from sae_checks.report import plots, wording
from sae_checks.report.plots import Dot, DotPlot, LinePlot, Point, ReferenceLine, Scale, ScatterPlot

WIDTH = 380
"""pixels. WHY: fits a telephone without scaling; wide pages put several side by side."""
_HEIGHT = 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 8, 20, 38
_ROW = 36
_N_COLOURS = 8
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


def scatter(plot: ScatterPlot, *, is_file: bool = False) -> Markup:
    """Draw *plot*: colours by layer, shapes by group, limits as dashed lines; points off the axes as arrows."""
    box = _Box(
        plots.scatter_scale([p.x for p in plot.points], is_whole=True),
        plots.scatter_scale([p.y for p in plot.points], [limit for p in plot.points for limit in p.limits]),
        bottom=_HEIGHT - _BOTTOM,
        right=14,
    )
    parts = [*_y_axis(box, plot.y_title), *_x_axis(box, plot.x_title)]
    for at in plot.common_limits:
        mark = ReferenceLine(along="y", at=at, label=f"limit {wording.number(at)}")
        parts += _mark(box, mark, box.top)
    for point in plot.points if not plot.common_limits else ():
        x = box.x(point.x)
        parts += [_rule("limit", x - 6, box.y(at), x + 6, box.y(at)) for at in point.limits]
    for point in sorted(plot.points, key=lambda p: p.is_red):
        parts.append(_point(box, plot, point))
    keys, height = _keys(plot)
    return _svg(plot.name, plot.title, plot.description, height, [*parts, *keys], is_file=is_file)


def _point(box: _Box, plot: ScatterPlot, point: Point) -> Markup:
    x, y = box.x(point.x), box.y(point.y)
    kind = f"k{_colour(plot, point.layer)}{' red' if point.is_red else ''}"
    said = f"{point.label}: {wording.number(point.x)}, {wording.number(point.y)}"
    title = Markup("<title>{}</title>").format(wording.text(said))
    scale = box.y_scale
    if not scale.low <= point.y <= scale.high:
        way = 1 if point.y < scale.low else -1
        shape = _element("path", kind, d=f"M{_px(x - 5)} {_px(y - 5 * way)}h10l-5 {8 * way}z")
        anchor, aside = ("end", -8) if x > WIDTH / 2 else ("start", 8)
        label = _text(wording.number(point.y), "label", x + aside, y - 5 * way + 4, anchor=anchor)
        return Markup("<g>{}{}{}</g>").format(title, shape, label)
    return Markup("<g>{}{}</g>").format(title, _marker(plot.groups.index(point.group), kind, x, y))


def _marker(group: int, kind: str, x: float, y: float) -> Markup:
    """The shape of the group number *group*: a disc, square, triangle, diamond or cross; then from the first again."""
    shapes = (
        "",
        "m-4-4h8v8h-8z",
        "m0-5l5 9h-10z",
        "m0-5.5l5.5 5.5-5.5 5.5-5.5-5.5z",
        "m-5-2h3v-3h4v3h3v4h-3v3h-4v-3h-3z",
    )
    drawn = shapes[group % len(shapes)]
    if not drawn:
        return _element("circle", kind, cx=_px(x), cy=_px(y), r="4.2")
    return _element("path", kind, d=f"M{_px(x)} {_px(y)}{drawn}")


def _colour(plot: ScatterPlot, layer: int | None) -> str:
    """The number of the colour of *layer*, or `none`."""
    if layer is None:
        return "none"
    return str(round(plot.layers.index(layer) * (_N_COLOURS - 1) / max(1, len(plot.layers) - 1)))


def _keys(plot: ScatterPlot) -> tuple[list[Markup], float]:
    """What colours and shapes mean, in rows below the plot, and the height of it all."""
    layers: dict[str, list[int]] = {}
    for layer in plot.layers:
        layers.setdefault(_colour(plot, layer), []).append(layer)
    words = [(0, f"k{colour}", f"block {_range(found)}") for colour, found in layers.items()]
    words += [(i, "knone", group or "unknown") for i, group in enumerate(plot.groups)]
    parts: list[Markup] = []
    x, y = 6.0, float(_HEIGHT + 12)
    for group, kind, word in words:
        width = 14 + 6.2 * min(len(word), _N_CHARACTERS_MOST) + 10
        if x + width > WIDTH and x > 6:
            x, y = 6.0, y + 17
        parts += [_marker(group, kind, x, y - 4), _text(word[:_N_CHARACTERS_MOST], "label", x + 9, y)]
        x += width
    return parts, y + 6


def _range(layers: Sequence[int]) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}\N{EN DASH}{layers[-1]}"


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
    if not box.x_scale.low <= dot.value <= box.x_scale.high:
        yield from _beyond(box, dot, y)
        return
    yield _rule(f"whisker {dot.outcome}", box.x(dot.low), y, box.x(dot.high), y)
    yield _shape(dot.outcome, box.x(dot.value), y)


def _beyond(box: _Box, dot: Dot, y: float) -> Iterator[Markup]:
    """An arrow at the end of the axis, and the value, of a *dot* that is not on it."""
    way = 1 if dot.value > box.x_scale.high else -1
    x = box.x(dot.value)
    yield _element("path", f"dot {dot.outcome}", d=f"M{_px(x - 8 * way)} {_px(y - 5)}v10l{8 * way}-5z")
    yield _text(wording.number(dot.value), "label", x - 12 * way, y + 4, anchor="end" if way > 0 else "start")


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
