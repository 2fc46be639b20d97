"""The panel of one width: for every layer how much of the Axis is kept, where it is small index by index."""

from __future__ import annotations

from surgeon.api.alike import ranges
from surgeon.api.picture.layers import Layer, StackView, Width
from surgeon.api.picture.markup import Markup, joined
from surgeon.api.picture.panel import Rows, line, panel, rect, text
from surgeon.api.picture.stack_panel import hover_text

__all__ = ["width_panel"]

NUMBER, START, LENGTH = 9.0, 12.0, 64.0
"""Percent from the left: the layer number's end, the bar's start; its whole length."""
CELLS = 32
"""An Axis of at most so many indices is drawn index by index."""
GAP = 0.16
"""Share of a cell that is left free."""


def width_panel(view: StackView, column: str, key: str) -> Markup:
    """Kept of all indices of the Axis called `column`, in every layer."""
    rows = Rows(len(view.layers))
    found = {layer.before: _of(layer, column) for layer in view.layers}
    widths = [width for width in found.values() if width is not None]
    most = max(width.size for width in widths)
    ends = ("first", "last") if most <= CELLS else ("0", str(most))
    scale = (text(START, 9, ends[0], "scale"), text(START + LENGTH, 9, ends[1], "scale", "end"))
    drawn = [
        (hover_text(layer, view) + _merges(found[layer.before]), _row(layer, found[layer.before], rows, most))
        for layer in view.layers
    ]
    return panel(key, f"Kept: {column}, of {most}", _summary(view, column), rows, scale, drawn)


def _of(layer: Layer, column: str) -> Width | None:
    return next((width for width in layer.widths if width.column == column), None)


def _row(layer: Layer, width: Width | None, rows: Rows, most: int) -> Markup:
    middle = rows.middle(layer.before)
    number = text(NUMBER, middle, str(layer.before), "number", "end")
    if width is None:
        return joined([number])
    if layer.after is None:
        return joined([number, text(START, middle, layer.fate, "fate")])
    top, height = middle - rows.bar / 2, rows.bar
    draw = _cells if most <= CELLS else _bar
    shapes = draw(width, top, height, LENGTH / most)
    if width.requested is not None:
        asked = START + LENGTH * width.requested / most
        shapes.append(line(asked, top - 2, asked, top + height + 2, "asked"))
    said = (
        str(len(width.kept))
        if width.stored == len(width.kept)
        else f"{len(width.kept)}+{width.stored - len(width.kept)}"
    )
    return joined(
        [number, *shapes, text(100, middle, said, "share" if width.is_cut else "share whole", "end")]
    )


def _bar(width: Width, top: float, height: float, unit: float) -> list[Markup]:
    kept = len(width.kept)
    ends = ((0, kept, "kept"), (kept, width.stored, "zeros"), (width.stored, width.size, "gone"))
    return [rect(START + unit * a, top, unit * (b - a), height, sort) for a, b, sort in ends if b > a]


def _cells(width: Width, top: float, height: float, unit: float) -> list[Markup]:
    kept = set(width.kept)
    shapes = []
    for index in range(width.size):
        sort = "kept" if index in kept else ("merged" if index in width.merged else "gone")
        shapes.append(rect(START + unit * index, top, unit * (1 - GAP), height, sort))
    return shapes


def _merges(width: Width | None) -> str:
    if width is None or not width.merged:
        return ""
    return "\n" + ", ".join(f"{index} into {into}" for index, into in sorted(width.merged.items()))


def _summary(view: StackView, column: str) -> str:
    alike: dict[tuple[int, int], list[int]] = {}
    for layer in view.layers:
        width = _of(layer, column)
        if width is not None and layer.after is not None:
            alike.setdefault((len(width.kept), width.size), []).append(layer.before)
    said = (f"{kept} of {size} in layers {ranges(layers)}" for (kept, size), layers in alike.items())
    return f"{column} kept: {'; '.join(said)}."
