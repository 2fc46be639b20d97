"""HTML and SVG elements as text; every string that goes in is escaped, save what is Markup already."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

__all__ = ["Markup", "joined", "tag"]

VOID = frozenset({"br", "meta"})
"""Elements that have no end."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str | Markup, **attributes: object) -> Markup:
    """One element.

    Args:
        name: of the element.
        children: text, which is escaped, and elements.
        attributes: ``class_="row"`` and ``stroke_width=1`` become ``class="row"`` and ``stroke-width="1"``;
            None leaves one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def joined(parts: Iterable[str | Markup]) -> Markup:
    """One after the other; text is escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
