"""The page: title, what the model takes before and after, the picture of every Stack, tables.

One file with its style inside: no script, no font, no image, nothing that is fetched; the page forbids
itself to. Not here: the panels and tables themselves.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from pathlib import PurePath

from surgeon.api.numbers import amount_text, change_text, cost_rows
from surgeon.api.picture.layers import StackView, Width, common_widths, stack_views
from surgeon.api.picture.markup import Markup, tag
from surgeon.api.picture.score_panel import score_panel
from surgeon.api.picture.stack_panel import legend, stack_panel
from surgeon.api.picture.tables import checks, config_table, layer_table, loads_table, steps_table
from surgeon.api.picture.width_panel import width_panel
from surgeon.graph import Graph
from surgeon.plan import Plan, Report

__all__ = ["picture_page"]

SAFE = "default-src 'none'; style-src 'unsafe-inline'"
"""What the page may load: its own style."""


def picture_page(report: Report, plan: Plan, graph: Graph, built: Plan | None = None) -> str:
    """The whole surgery as one HTML file.

    Args:
        report: what each step chose, and what was measured.
        plan: what is done.
        graph: of the model before.
        built: the Plan whose shapes are stored, where zeros are stored as well; by default `plan`.
    """
    built = built or plan
    views = stack_views(graph, plan, built, report)
    title = f"{_short(report.model)}: before and after"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=SAFE),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", _style()),
    )
    body = tag("main", *_parts(report, views, common_widths(graph, plan, built, report), graph.model_type))
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _parts(
    report: Report, views: tuple[StackView, ...], common: tuple[Width, ...], model_type: str
) -> Iterator[Markup]:
    yield _header(report, views, model_type)
    yield _tiles(report)
    if common:
        said = (f"{width.column} {width.size} → {len(width.kept)}" for width in common)
        yield tag("p", f"In the whole model: {', '.join(said)}.")
    for number, view in enumerate(views):
        yield _stack(view, number, len(views) > 1)
    for title, table, rows in (
        ("Steps", steps_table, report.steps),
        ("Config changes", config_table, report.ledger),
        ("Loads in", loads_table, report.loads),
    ):
        if rows:
            yield tag("section", tag("h2", title), table(report))
    if said := checks(report):
        yield tag("section", tag("h2", "Checked" if report.measured else "Warnings"), said)
    yield tag("footer", "Drawn by surgeon from the plan and its report.")


def _header(report: Report, views: tuple[StackView, ...], model_type: str) -> Markup:
    before, after = report.before.parameters, report.after.parameters
    sizes = f"{amount_text(before, '')} → {amount_text(after, '')} parameters ({change_text(before, after)})"
    depth = ", ".join(
        f"{len(view.layers)} layers"
        if view.left == len(view.layers)
        else f"{len(view.layers)} → {view.left} layers"
        for view in views
    )
    kicker = f"{'Surgery' if report.measured else 'Planned surgery'} on a model of type {model_type}"
    return tag(
        "header",
        tag("p", kicker, class_="kicker"),
        tag("h1", _short(report.model)),
        tag("p", sizes + (f", {depth}" if depth else ""), class_="lede"),
    )


def _tiles(report: Report) -> Markup:
    tiles = (
        tag(
            "div",
            tag("dt", name),
            tag("dd", tag("span", before, class_="old"), " → ", tag("b", after)),
            tag("dd", change, class_="change"),
        )
        for name, before, after, change in cost_rows(report)
    )
    return tag("dl", *tiles, class_="tiles")


def _stack(view: StackView, number: int, several: bool) -> Markup:
    panels = [stack_panel(view, f"stack-{number}")]
    panels += [
        width_panel(view, column, f"width-{number}-{place}") for place, column in enumerate(view.columns)
    ]
    panels += [
        score_panel(view, scores, f"score-{number}-{place}") for place, scores in enumerate(view.scores)
    ]
    return tag(
        "section",
        tag("h2", f"The stack {view.container}" if several else "The stack, before and after"),
        legend(view),
        tag("div", *panels, class_="panels"),
        tag("details", tag("summary", "Layer by layer, as a table"), layer_table(view)),
    )


def _style() -> Markup:
    found = pkgutil.get_data("surgeon.api.picture", "page.css")
    assert found is not None, "the package's own style sheet"
    return Markup(found.decode("utf-8"))


def _short(model: str) -> str:
    """A hub id as it is, of a folder's path its last name: the file may travel further than the folder."""
    path = PurePath(model)
    return model if len(path.parts) <= 2 and not path.is_absolute() else path.name
