"""Plots -> PNG, for slides and chats. Needs matplotlib (the extra `report`)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_checks.report import plots, wording
from sae_checks.report.plots import DotPlot, LinePlot, MatrixPlot, Plot, Scale

_N_ACROSS = 3
_HEAD, _ABOVE, _RIGHT = 0.4, 0.3, 0.15  # inches
_INK, _QUIET, _RULE = "#1e2126", "#5b6068", "#e2dfd7"
_GOOD, _BAD, _WARN, _LINE, _BAND, _CONTEXT = "#1c6b4a", "#a8261d", "#7a5200", "#1f4e9c", "#c9d7ee", "#6b5b95"
_SHAPES = {"passed": ("o", _GOOD), "failed": ("x", _BAD), "inconclusive": ("^", _WARN)}
_N_CHARACTERS = 40

Axes = Any  # Any: matplotlib is an extra, and types must check without it


def write(drawn: Sequence[Plot], title: str, path: Path) -> None:
    """
    Write *drawn* side by side under *title* into the file *path*.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False, "axes.unicode_minus": True}
    with rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # WHY: a name may have characters that the font lacks; it draws a box
        panels = [_Panel.of(plot) for plot in drawn]
        n_across = min(_N_ACROSS, len(panels))
        width, height = max(panel.width for panel in panels), max(panel.height for panel in panels)
        n_down = -(-len(panels) // n_across)
        whole = (width * n_across, height * n_down + _HEAD)
        figure = Figure(figsize=whole, facecolor="white")
        at = (0.1 / whole[0], 1 - 0.2 / whole[1])
        figure.text(*at, _short(title, 90), color=_INK, va="center", fontweight="bold")
        for i, (plot, panel) in enumerate(zip(drawn, panels, strict=True)):
            left, top = i % n_across * width + panel.left, _HEAD + i // n_across * height + _ABOVE
            size = (width - panel.left - _RIGHT, height - _ABOVE - panel.below)
            corner = (left / whole[0], 1 - (top + size[1]) / whole[1])
            _draw(figure.add_axes((*corner, size[0] / whole[0], size[1] / whole[1])), plot)
        FigureCanvasAgg(figure).print_png(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """The size of one plot in inches. WHY by hand: matplotlib's own layouts draw every plot three times."""

    width: float
    height: float
    left: float
    below: float

    @classmethod
    def of(cls, plot: Plot) -> _Panel:
        if isinstance(plot, LinePlot):
            return cls(width=4.6, height=3.3, left=0.7, below=0.55)
        labels = [dot.label for dot in plot.dots] if isinstance(plot, DotPlot) else list(plot.rows)
        left = 0.3 + 0.075 * max((len(_short(label, _N_CHARACTERS)) for label in labels), default=0)
        if isinstance(plot, DotPlot):
            return cls(width=left + 3.2, height=min(60.0, 1.3 + 0.34 * len(labels)), left=left, below=0.55)
        below = 0.3 + 0.045 * max(len(_short(name, _N_CHARACTERS)) for name in (*plot.columns, "limit at the last"))
        return cls(
            width=min(60.0, left + 0.62 * (len(plot.columns) + 1) + 0.3),
            height=min(60.0, 0.4 + 0.4 * len(labels) + below),
            left=left,
            below=below,
        )


def _draw(axes: Axes, plot: Plot) -> None:
    axes.set_title(_short(plot.title, 60), loc="left", fontsize=9.5, color=_INK)
    axes.tick_params(colors=_QUIET, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    if isinstance(plot, LinePlot):
        _draw_lines(axes, plot)
    elif isinstance(plot, DotPlot):
        _draw_dots(axes, plot)
    else:
        _draw_matrix(axes, plot)


def _draw_lines(axes: Axes, plot: LinePlot) -> None:
    x_scale, y_scale = plots.line_scales(plot)
    _draw_ticks(axes, x_scale, along="x")
    _draw_ticks(axes, y_scale, along="y")
    x = [x_scale.at(value) for value in plot.x]
    low, value, high = ([y_scale.at(y) for y in column] for column in (plot.low, plot.value, plot.high))
    axes.fill_between(x, low, high, color=_BAND, linewidth=0)
    axes.plot(x, value, color=_LINE, linewidth=1.6, marker="o" if len(x) == 1 else None)
    has_limit_on_top = any(y_scale.at(mark.at) > 0.9 for mark in plot.marks if mark.along == "y")
    label_y, ends = (0.0, "bottom") if has_limit_on_top else (1.0, "top")
    for mark in plot.marks:
        if mark.along == "y":
            at = y_scale.at(mark.at)
            axes.axhline(at, color=_BAD, linestyle="--", linewidth=1.3)
            axes.text(0.01, at, mark.label, color=_BAD, va="bottom", fontsize=8)
        else:
            at = x_scale.at(mark.at)
            axes.axvline(at, color=_CONTEXT, linestyle=":", linewidth=1.3)
            side = "right" if at > 0.5 else "left"
            axes.text(at, label_y, f" {mark.label} ", color=_CONTEXT, va=ends, ha=side, fontsize=8)
    axes.set_xlabel(plot.x_title, color=_QUIET)
    axes.set_ylabel(_short(plot.y_title, _N_CHARACTERS), color=_QUIET)


def _draw_dots(axes: Axes, plot: DotPlot) -> None:
    scale = plots.dot_scale(plot.dots)
    _draw_ticks(axes, scale, along="x")
    rows = range(len(plot.dots))
    if plot.is_joined:
        axes.plot([scale.at(dot.value) for dot in plot.dots], rows, color=_RULE, linewidth=1.3, zorder=1)
    for row, dot in zip(rows, plot.dots, strict=True):
        shape, colour = _SHAPES.get(dot.outcome, ("o", _QUIET))
        axes.plot([scale.at(dot.low), scale.at(dot.high)], [row, row], color=colour, linewidth=2.4, alpha=0.5)
        face = "white" if dot.outcome not in _SHAPES else colour
        axes.scatter(
            [scale.at(dot.value)],
            [row],
            marker=shape,
            s=44,
            color=colour,
            facecolor=None if shape == "x" else face,
            zorder=3,
        )
        for limit in dot.limits:
            axes.plot([scale.at(limit)] * 2, [row - 0.3, row + 0.3], color=_BAD, linestyle="--", linewidth=1.3)
    axes.set_yticks(rows, [_short(dot.label, _N_CHARACTERS) for dot in plot.dots])
    axes.set_ylim(len(plot.dots) - 0.4, -0.6)
    axes.set_xlabel(_short(plot.x_title, 60), color=_QUIET)


def _draw_matrix(axes: Axes, plot: MatrixPlot) -> None:
    n_levels = 16
    for i, (cells, most) in enumerate(zip(plot.cells, plot.limits, strict=True)):
        for j, value in enumerate(cells):
            if value is not None:
                is_over = j == len(cells) - 1 and most is not None and value > most
                shade = 0.04 + 0.5 * plot.level(value, n_levels) / (n_levels - 1)
                axes.fill(
                    [j - 0.48, j + 0.48, j + 0.48, j - 0.48],
                    [i - 0.48, i - 0.48, i + 0.48, i + 0.48],
                    color=_BAD,
                    alpha=shade,
                    linewidth=0,
                )
                axes.text(
                    j, i, f"{'✕ ' if is_over else ''}{wording.number(value)}", ha="center", va="center", color=_INK
                )
        limit = "" if most is None else f"≤ {wording.number(most)}"
        axes.text(len(plot.columns), i, limit, ha="center", va="center", color=_QUIET)
    names = [*plot.columns, "limit at the last"]
    axes.set_xticks(range(len(names)), [_short(name, _N_CHARACTERS) for name in names], rotation=30, ha="right")
    axes.set_yticks(range(len(plot.rows)), [_short(name, _N_CHARACTERS) for name in plot.rows])
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(len(plot.rows) - 0.4, -0.6)


def _draw_ticks(axes: Axes, scale: Scale, *, along: str) -> None:
    """Draw the same ticks as the page; the axis itself runs from 0 to 1."""
    ticks = scale.ticks()
    places, labels = [scale.at(tick) for tick in ticks], [wording.number(tick) for tick in ticks]
    if along == "x":
        axes.set_xticks(places, labels)
        axes.set_xlim(-0.01, 1.01)
    else:
        axes.set_yticks(places, labels)
        axes.set_ylim(-0.01, 1.01)
    axes.grid(visible=True, axis=along, color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def _short(text: str, n_most: int) -> str:
    shown = wording.text(text)
    return shown if len(shown) <= n_most else shown[: n_most - 1] + "…"
