"""A Report as tables: what each step chose, what the config became, what was checked and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from surgeon.api.alike import alike, is_of_blocks, named_together
from surgeon.api.numbers import cost_rows, setting_text
from surgeon.cli.console import print_table, say, warn

if TYPE_CHECKING:
    from surgeon.plan import Report, StepRecord

__all__ = ["print_cost", "print_measured", "print_steps"]

COLUMNS = ("what", "before", "after", "change")


def print_steps(report: Report) -> None:
    """What each step chose, what the config becomes, what loads it, and warnings."""
    for record in report.steps:
        _print_step(record)
    if report.ledger:
        rows = [(row.field, setting_text(row.old), setting_text(row.new), row.why) for row in report.ledger]
        print_table("config", ("field", "old", "new", "why"), rows, numbers=("old", "new"))
    if report.loads:
        rows = [(one.loader, one.verdict, one.why) for one in report.loads]
        print_table("loads in", ("loader", "loads", "why"), rows)
    for message in report.warnings:
        warn(message)


def print_cost(report: Report) -> None:
    """What the model takes, before and after; as planned, where nothing was measured."""
    print_table(report.model, COLUMNS, cost_rows(report), numbers=COLUMNS[1:])


def print_measured(report: Report) -> None:
    """Before and after, a sentence by both, and the checks that were passed."""
    print_cost(report)
    measured = cast("dict[str, Any]", report.measured)
    protocol = measured.get("protocol")
    if protocol:
        say(f"perplexity measured with {protocol}")
    sample = measured.get("sample")
    if sample:
        say()
        for which in ("prompt", "before", "after"):
            say(f"{which:<8}{sample[which]!r}")
        say()
    for check in measured.get("checks", ()):
        say(f"checked: {check}")


def _print_step(record: StepRecord) -> None:
    title = f"step {record.step}: {record.op}"
    if is_of_blocks(record):
        gone = sum(not choice.kept for choice in record.choices)
        rows = [
            (choice.axis, "stays" if choice.kept else "goes", choice.why)
            for choice in record.choices
            if choice.why or not choice.kept
        ]
        total = len(record.choices)
        print_table(f"{title}, {gone} of {total} taken out", ("block", "", "why"), rows)
    elif record.choices:
        rows = [
            (
                named_together([choice.axis for choice in row]),
                row[0].size,
                row[0].kept if row[0].requested is None else f"{row[0].kept} (asked {row[0].requested})",
                row[0].why,
            )
            for row in alike(record.choices)
        ]
        print_table(title, ("axis", "size", "kept", "removed"), rows, numbers=("size", "kept"))
    else:
        say(title)
    for refused in record.refused:
        say(f"left alone: {refused.axis}: {refused.reason}", indent=2)
    for note in record.notes:
        say(note, indent=2)
