"""What is written beside the weights of a result: the plan, the recipe, the report, its picture, the card."""

from __future__ import annotations

from pathlib import Path

from surgeon.api.card import model_card
from surgeon.api.picture import picture_page
from surgeon.graph import Graph
from surgeon.io import write_document, write_page, write_plan
from surgeon.plan import Plan, Report

__all__ = ["write_beside"]


def write_beside(
    folder: Path, plan: Plan, graph: Graph, report: Report, recipe: str | None, built: Plan
) -> None:
    """Write them into `folder`.

    Args:
        folder: exists.
        plan: what was carried out, for the model of `graph`.
        graph: of the original.
        report: of the result.
        recipe: the resolved recipe, where there is one.
        built: the Plan whose shapes the result has; it differs from `plan` where zeros are written.
    """
    write_plan(plan, graph, folder / "plan.json")
    write_page(model_card(report), folder / "README.md")
    if recipe is not None:
        write_page(recipe, folder / "surgeon.yaml")
    write_document(report.to_dict(), folder / "report.json")
    write_page(picture_page(report, plan, graph, built), folder / "report.html")
