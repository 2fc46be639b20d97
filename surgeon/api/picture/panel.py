"""A panel: one column of the picture with a row for every layer, as wide as the page gives it.

Places from left to right are percentages and sizes of text are pixels, so that a panel is readable at the
width of a phone and of a desk alike. All panels of a Stack have rows of one height.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from surgeon.api.picture.markup import Markup, joined, tag

__all__ = ["Rows", "line", "panel", "rect", "text"]

HEADER = 22
"""Pixels above the first row, for the scale."""
SIZES = ((24, 24, 12), (48, 18, 11))
"""Up to so many layers: pixels of a row, and of its text."""
DENSE = (14, 10)


@dataclass(frozen=True)
class Rows:
    """Heights of the rows of one Stack, in pixels."""

    count: int

    @property
    def height(self) -> int:
        """Of one row."""
        return self._sizes[0]

    @property
    def font(self) -> int:
        """Of the text in a row."""
        return self._sizes[1]

    @property
    def bar(self) -> int:
        """Of a bar in a row."""
        return round(self.height * 0.62)

    @property
    def total(self) -> int:
        """Of the panel."""
        return HEADER + self.count * self.height + 4

    def middle(self, place: int) -> float:
        """Of the row at `place`."""
        return HEADER + (place + 0.5) * self.height

    @property
    def _sizes(self) -> tuple[int, int]:
        return next(((row, font) for most, row, font in SIZES if self.count <= most), DENSE)


def panel(
    key: str,
    title: str,
    summary: str,
    rows: Rows,
    scale: Iterable[Markup],
    drawn: Sequence[tuple[str, Markup]],
) -> Markup:
    """A figure of one panel.

    Args:
        key: unique in the page.
        title: what is shown, above the panel.
        summary: the same in words, for those who do not see it.
        rows: heights.
        scale: what stands above the first row.
        drawn: of every row, its text on hovering and what is drawn.
    """
    lines = (_row(rows, place, hover, shapes) for place, (hover, shapes) in enumerate(drawn))
    svg = tag(
        "svg",
        tag("desc", summary, id=f"{key}-desc"),
        *scale,
        *lines,
        role="img",
        aria_labelledby=f"{key}-title",
        aria_describedby=f"{key}-desc",
        width="100%",
        height=rows.total,
        font_size=rows.font,
    )
    return tag(
        "figure", tag("figcaption", title, id=f"{key}-title"), svg, class_=f"panel {key.split('-')[0]}"
    )


def rect(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """A rectangle; `x` and `width` in percent, `y` and `height` in pixels."""
    return tag(
        "rect",
        x=f"{x:.4g}%",
        y=y,
        width=f"{width:.4g}%",
        height=height,
        rx=1.5 if width else None,
        class_=class_,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A line; `x1` and `x2` in percent, `y1` and `y2` in pixels."""
    return tag("line", x1=f"{x1:.4g}%", y1=y1, x2=f"{x2:.4g}%", y2=y2, class_=class_)


def text(x: float, y: float, said: str, class_: str = "", anchor: str = "start", dx: float = 0) -> Markup:
    """Text around the height `y`; `x` in percent, `dx` in pixels."""
    return tag(
        "text",
        said,
        x=f"{x:.4g}%",
        y=y,
        dx=dx or None,
        dy="0.35em",
        text_anchor=None if anchor == "start" else anchor,
        class_=class_ or None,
    )


def _row(rows: Rows, place: int, hover: str, shapes: Markup) -> Markup:
    top = rows.middle(place) - rows.height / 2
    hit = tag("rect", x=0, y=top, width="100%", height=rows.height, class_="hit")
    return tag("g", tag("title", hover), hit, joined([shapes]), class_="row")
