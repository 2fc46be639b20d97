"""The same in rows: the layers one by one, what each step was asked and did, config, loaders, checks.

The table of layers is the picture's text alternative. Not here: drawings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from surgeon.api.alike import alike, is_of_blocks, named_together, ranges
from surgeon.api.numbers import setting_text, size_text
from surgeon.api.picture.layers import Layer, StackView
from surgeon.api.picture.markup import Markup, joined, tag
from surgeon.plan import Report, StepRecord

__all__ = ["checks", "config_table", "layer_table", "loads_table", "steps_table"]

Cell = str | Markup


def layer_table(view: StackView) -> Markup:
    """One row for every layer: all that the picture shows, in words and numbers."""
    head = ["layer", "becomes", "before", "after", *view.columns, *(s.title for s in view.scores), "what"]
    rows = [_layer_row(layer, view) for layer in view.layers]
    return _table(head, rows, numbers=range(1, len(head) - 1), name="Layer by layer")


def steps_table(report: Report) -> Markup:
    """What every step was asked for, and what came of it."""
    rows = [
        (
            str(record.step),
            tag("code", record.op),
            _asked(record.options),
            _lines(_achieved(record)),
            _notes(record),
        )
        for record in report.steps
    ]
    return _table(("step", "operation", "asked for", "came out", "notes"), rows, name="Steps", class_="steps")


def config_table(report: Report) -> Markup:
    """The ledger: every changed field of the config."""
    rows = [
        (tag("code", row.field), setting_text(row.old), setting_text(row.new), row.why)
        for row in report.ledger
    ]
    return _table(("field", "old", "new", "why"), rows, name="Config changes")


def loads_table(report: Report) -> Markup:
    """What loads the result."""
    rows = [(one.loader, one.verdict, one.why) for one in report.loads]
    return _table(("loader", "loads", "why"), rows, name="Loads in")


def checks(report: Report) -> Markup:
    """What was proven and measured before the result was published, and warnings."""
    measured = cast("dict[str, Any]", report.measured)
    said = [*(f"Warning: {message}" for message in report.warnings), *measured.get("checks", ())]
    if measured.get("protocol"):
        said.append(f"perplexity measured with {measured['protocol']}")
    return tag("ul", *(tag("li", one) for one in said), class_="checks") if said else Markup()


def _layer_row(layer: Layer, view: StackView) -> list[Cell]:
    widths = {width.column: width for width in layer.widths}
    before, after = layer.sizes
    cells: list[Cell] = ["" if layer.after is None else str(layer.after), size_text(before)]
    cells.append("" if layer.after is None else size_text(after))
    for column in view.columns:
        width = widths.get(column)
        shown = width is not None and layer.after is not None
        cells.append(f"{len(width.kept)} of {width.size}" if width is not None and shown else "")
    for scores in view.scores:
        score = scores.values.get(layer.before)
        cells.append("" if score is None else f"{score:.4g}")
    return [str(layer.before), *cells, layer.fate]


def _asked(options: Mapping[str, object]) -> Markup:
    said = ((key.replace("_", " "), _option(key, value)) for key, value in options.items())
    return _lines(f"{key}: {value}" for key, value in said if value)


def _option(key: str, value: object) -> str:
    """An option as a person says it; a tagged one by its tag first."""
    if isinstance(value, Mapping):
        tagged = value.get(key)
        others = ", ".join(
            f"{name.replace('_', ' ')} {said}"
            for name, one in value.items()
            if name != key and (said := _option(name, one))
        )
        return others if tagged is None else f"{tagged}" + (f" ({others})" if others else "")
    if isinstance(value, list):
        if value and all(isinstance(one, int) for one in value):
            return ranges(cast("list[int]", value))
        return ", ".join(_option("", one) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _achieved(record: StepRecord) -> Iterator[str]:
    if is_of_blocks(record):
        gone = [choice.axis for choice in record.choices if not choice.kept]
        kept = len(record.choices) - len(gone)
        yield f"{len(gone)} taken out" + (f", {kept} kept" if kept else "")
        if gone:
            yield named_together(gone)
        return
    for row in alike(record.choices):
        first = row[0]
        asked = "" if first.requested is None else f" (asked for {first.requested})"
        yield f"{named_together([choice.axis for choice in row])}: {first.size} → {first.kept}{asked}"


def _notes(record: StepRecord) -> Markup:
    said = [*record.notes, *(f"left alone: {one.axis}: {one.reason}" for one in record.refused)]
    if len(said) < 4:
        return _lines(said)
    return tag("details", tag("summary", f"{len(said)} notes"), _lines(said))


def _lines(said: Iterator[str] | Sequence[str]) -> Markup:
    return joined(tag("div", one) for one in said)


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    name: str,
    numbers: Sequence[int] = (),
    class_: str | None = None,
) -> Markup:
    """A table in a frame that scrolls sideways where the page is narrow."""

    def cells(kind: str, row: Sequence[Cell], **more: str) -> Iterator[Markup]:
        for place, cell in enumerate(row):
            yield tag(kind, cell, class_="n" if place in numbers else None, **more)

    header = tag("thead", tag("tr", *cells("th", head, scope="col")))
    body = tag("tbody", *(tag("tr", *cells("td", row)) for row in rows))
    return tag(
        "div",
        tag("table", header, body, class_=class_),
        class_="scroll",
        role="region",
        aria_label=name,
        tabindex=0,
    )
