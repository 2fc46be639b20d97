"""The panel of the Stack itself: every layer a bar of its parameters before, and of what is left of it."""

from __future__ import annotations

from surgeon.api.alike import ranges
from surgeon.api.numbers import size_text
from surgeon.api.picture.layers import Layer, Part, StackView, part_name
from surgeon.api.picture.markup import Markup, joined, tag
from surgeon.api.picture.panel import Rows, line, panel, rect, text
from surgeon.graph import SublayerRole

__all__ = ["hover_text", "legend", "stack_panel", "summary"]

NUMBER, BEFORE, PLACE, AFTER, BAR = 6.0, 8.0, 54.0, 56.0, 30.0
"""Percent from the left: the old number's end, the bar before, the new number's end, the bar after; a bar's
whole length."""
TRUNK = 46.0
"""Where merges run down."""


def stack_panel(view: StackView, key: str) -> Markup:
    """Bars before and after, side by side, with a line from each to what became of it."""
    rows = Rows(len(view.layers))
    most = max((layer.sizes[0] for layer in view.layers), default=0) or 1
    scale = (
        text(BEFORE, 9, "before", "scale"),
        text(AFTER, 9, "after", "scale"),
        text(100, 9, "parameters left", "scale", "end"),
    )
    drawn = [(hover_text(layer, view), _row(layer, rows, most)) for layer in view.layers]
    return panel(
        key, f"Parameters of each layer, at most {size_text(most)}", summary(view), rows, scale, drawn
    )


def legend(view: StackView) -> Markup:
    """What the colours and marks of the picture mean; only those that it shows."""
    parts = (part for layer in view.layers for part in layer.parts)
    roles: dict[SublayerRole | None, None] = dict.fromkeys(part.role for part in parts)
    shown = [(f"p-{role or 'rest'}", part_name(role)) for role in roles]
    gone = any(layer.after is None or any(p.dropped for p in layer.parts) for layer in view.layers)
    widths = [width for layer in view.layers if layer.after is not None for width in layer.widths]
    marks = [
        (bool(view.columns), "kept", "kept"),
        (gone or bool(view.columns), "gone", "taken out"),
        (any(layer.into is not None for layer in view.layers), "merge", "merged into"),
        (any(width.merged for width in widths), "merged", "merged into another one"),
        (any(width.requested is not None for width in widths), "asked", "asked for"),
        (
            any(len(width.kept) < width.stored for width in widths),
            "zeros",
            "zeros up to one width",
        ),
        (any(p.fitted for layer in view.layers for p in layer.parts), "fitted", "fitted again"),
    ]
    shown += [(name, said) for used, name, said in marks if used]
    return tag(
        "ul", *(tag("li", tag("i", class_=f"key {name}"), said) for name, said in shown), class_="legend"
    )


def summary(view: StackView) -> str:
    """The Stack before and after in words."""
    dropped = [layer.before for layer in view.layers if layer.after is None and layer.into is None]
    said = [f"{len(view.layers)} layers before, {view.left} after."]
    if dropped:
        said.append(f"Dropped: {ranges(dropped)}.")
    for layer in view.layers:
        if layer.takes:
            said.append(f"Merged into {layer.before}: {ranges(layer.takes)}.")
    cut = [
        layer.before for layer in view.layers if layer.after is not None and layer.sizes[1] < layer.sizes[0]
    ]
    if cut:
        said.append(f"Made smaller: {ranges(cut)}.")
    return " ".join(said)


def hover_text(layer: Layer, view: StackView) -> str:
    """All that is known of a layer, line by line."""
    before, after = layer.sizes
    lines = [f"layer {layer.before}: {layer.fate}" + ("" if layer.step is None else f" (step {layer.step})")]
    if layer.after is not None:
        lines.append(f"becomes layer {layer.after}, {size_text(before)} → {size_text(after)} parameters")
        lines += [f"{w.column} {w.size} → {len(w.kept)}" for w in layer.widths if w.is_cut]
    else:
        lines.append(f"had {size_text(before)} parameters")
    for scores in view.scores:
        if layer.before in scores.values:
            lines.append(f"{scores.title} {scores.values[layer.before]:.4g}")
    return "\n".join(lines)


def _row(layer: Layer, rows: Rows, most: int) -> Markup:
    middle = rows.middle(layer.before)
    top = middle - rows.bar / 2
    ends = BEFORE + BAR * layer.sizes[0] / most
    shapes = [text(NUMBER, middle, str(layer.before), "number", "end")]
    shapes += _bar(layer, BEFORE, top, rows.bar, most, before=True)
    if layer.after is None:
        shapes.append(text(BEFORE, middle, _fate(layer), "fate", dx=6))
        if layer.into is not None:
            shapes += _merge(ends, middle, rows.middle(layer.into))
        return joined(shapes)
    shapes.append(line(ends, middle, PLACE - 5, middle, "link"))
    shapes.append(text(PLACE, middle, str(layer.after), "number", "end"))
    shapes += _bar(layer, AFTER, top, rows.bar, most, before=False)
    left = layer.sizes[1] / layer.sizes[0] if layer.sizes[0] else 1.0
    if any(part.fitted for part in layer.parts):
        shapes.append(_diamond(AFTER + BAR * layer.sizes[1] / most, middle, rows.bar))
    shapes.append(text(100, middle, f"{left:.0%}", "share" if left < 1 else "share whole", "end"))
    return joined(shapes)


def _bar(layer: Layer, x: float, top: float, height: float, most: int, before: bool) -> list[Markup]:
    if layer.after is None:
        return [rect(x, top, BAR * layer.sizes[0] / most, height, "gone")]
    shapes, at = [], x
    for part in layer.parts:
        width = BAR * (part.before if before else part.after) / most
        if width:
            shapes.append(rect(at, top, width, height, _class(part, before)))
        at += width
    return shapes


def _class(part: Part, before: bool) -> str:
    if before and part.dropped:
        return "gone"
    return f"p-{part.role or 'rest'}" + (" was" if before else "")


def _fate(layer: Layer) -> str:
    return "dropped" if layer.into is None else f"into {layer.into}"


def _merge(ends: float, middle: float, target: float) -> list[Markup]:
    """From a layer that is gone to the one that took it in."""
    arrow = tag("svg", tag("path", d="M-6-3.5 0 0-6 3.5z", class_="arrow"), x=f"{PLACE - 4:.4g}%", y=target)
    return [
        line(ends, middle, TRUNK, middle, "merge"),
        line(TRUNK, middle, TRUNK, target, "merge"),
        line(TRUNK, target, PLACE - 4, target, "merge"),
        arrow,
    ]


def _diamond(x: float, middle: float, height: float) -> Markup:
    half = max(3.0, height / 3.2)
    corners = ((half, 0.0), (2 * half, half), (half, 2 * half), (0.0, half))
    points = " ".join(f"{x + 5:.4g},{y - half:.4g}" for x, y in corners)
    return tag("svg", tag("polygon", points=points), x=f"{x:.4g}%", y=middle, class_="fitted")
