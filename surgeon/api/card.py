"""The model card of a result: what it was made of, how, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from surgeon.io.documents import page_of
from surgeon.plan import Report

__all__ = ["copied_pages", "model_card"]


def model_card(report: Report) -> str:
    """``README.md`` of the output folder, with the front matter that a model hub reads."""
    return "\n".join(_lines(report)) + "\n"


def copied_pages(pages: Mapping[str, str], report: Report) -> dict[str, str]:
    """Text files of a result that is copied by a list: `pages` of its model, the card and the report."""
    return {**pages, "README.md": model_card(report), "report.json": page_of(report.to_dict())}


def _lines(report: Report) -> Iterator[str]:
    yield from ("---", "tags: [surgeon, pruned]", "---", "")
    yield from (f"# {report.model}, made smaller", "")
    yield "Made with [surgeon](https://pypi.org/project/torch-surgeon), which removes structures of models."
    yield "`surgeon.yaml` is the recipe, `plan.json` replays the surgery, `report.json` has all numbers."
    yield from ("", "| loads in | | why |", "|---|---|---|")
    for one in report.loads:
        yield f"| {one.loader} | {one.verdict} | {one.why} |"
    yield ""
    yield "| | before | after |"
    yield "|---|---:|---:|"
    measured = cast("dict[str, Any]", report.measured)
    for name, metric in measured.get("metrics", {}).items():
        unit = f" ({metric['unit']})" if metric["unit"] else ""
        yield f"| {name.replace('_', ' ')}{unit} | {metric['before']:.6g} | {metric['after']:.6g} |"
    if "protocol" in measured:
        yield from ("", f"Perplexity was measured with {measured['protocol']}.")
    yield from ("", "## Steps", "")
    for record in report.steps:
        cut = sum(choice.size - choice.kept for choice in record.choices)
        yield f"{record.step + 1}. `{record.op}`: {cut} indices of {len(record.choices)} axes removed"
    if report.ledger:
        yield from ("", "## Config", "", "| field | old | new | why |", "|---|---|---|---|")
        for row in report.ledger:
            yield f"| `{row.field}` | {row.old} | {row.new} | {row.why} |"
