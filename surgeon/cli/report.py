"""A Report as tables: what each step chose, what the config became, what was checked and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from surgeon.cli.console import print_table, say, size_text, warn

if TYPE_CHECKING:
    from surgeon.plan import Choice, Report, StepRecord

__all__ = ["print_cost", "print_measured", "print_steps"]

BYTES = ("B", "B/token")


def print_steps(report: Report) -> None:
    """What each step chose, what the config becomes, what loads it, and warnings."""
    for record in report.steps:
        _print_step(record)
    if report.ledger:
        rows = [(row.field, row.old, row.new, row.why) for row in report.ledger]
        print_table("config", ("field", "old", "new", "why"), rows, numbers=("old", "new"))
    if report.loads:
        rows = [(one.loader, one.verdict, one.why) for one in report.loads]
        print_table("loads in", ("loader", "loads", "why"), rows)
    for message in report.warnings:
        warn(message)


def print_cost(report: Report) -> None:
    """What the model takes, before and after."""
    costs = [
        (name.replace("_", " "), _amount(before, unit), _amount(after, unit), _change(before, after))
        for name, unit in (("parameters", ""), ("bytes", "B"), ("kv_cache_bytes_per_token", "B/token"))
        if (before := getattr(report.before, name)) is not None
        and (after := getattr(report.after, name)) is not None
    ]
    print_table(
        report.model, ("what", "before", "after", "change"), costs, numbers=("before", "after", "change")
    )


def print_measured(report: Report) -> None:
    """Before and after, a sentence by both, and the checks that were passed."""
    measured = cast("dict[str, Any]", report.measured)
    rows = [
        (name.replace("_", " "), _amount(m["before"], m["unit"]), _amount(m["after"], m["unit"]), _of(m))
        for name, m in measured.get("metrics", {}).items()
    ]
    if rows:
        print_table(
            f"{report.model}, before and after",
            ("what", "before", "after", "change"),
            rows,
            numbers=("before", "after", "change"),
        )
    protocol = measured.get("protocol")
    if protocol:
        say(f"measured with {protocol}")
    sample = measured.get("sample")
    if sample:
        say(f"\nprompt  {sample['prompt']!r}\nbefore  {sample['before']!r}\nafter   {sample['after']!r}\n")
    for check in measured.get("checks", ()):
        say(f"checked: {check}")


def _print_step(record: StepRecord) -> None:
    rows = [
        (
            _names([choice.axis for choice in alike]),
            len(alike),
            alike[0].size,
            alike[0].kept,
            "" if alike[0].requested is None else alike[0].requested,
            alike[0].why,
        )
        for alike in _alike(record.choices)
    ]
    title = f"step {record.step}: {record.op}"
    if rows:
        columns = ("axis", "groups", "size", "kept", "requested", "why")
        print_table(title, columns, rows, numbers=("groups", "size", "kept", "requested"))
    else:
        say(title)
    for refused in record.refused:
        say(f"  left alone: {refused.axis}: {refused.reason}")
    for note in record.notes:
        say(f"  {note}")


def _alike(choices: Sequence[Choice]) -> list[list[Choice]]:
    """Choices that differ in nothing but the block, together."""
    rows: dict[tuple[object, ...], list[Choice]] = {}
    for choice in choices:
        role = choice.axis.rpartition(".")[2]
        rows.setdefault((role, choice.size, choice.kept, choice.requested, choice.why), []).append(choice)
    return list(rows.values())


def _names(axes: Sequence[str]) -> str:
    return axes[0] if len(axes) == 1 else f"{axes[0]} .. {axes[-1]}"


def _of(metric: Mapping[str, Any]) -> str:
    return _change(metric["before"], metric["after"])


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.1%}" if before else ""


def _amount(number: float, unit: str) -> str:
    if unit in BYTES:
        return size_text(number, unit)
    if unit:
        return f"{number:.4g} {unit}"
    return size_text(number) if number == int(number) else f"{number:.4g}"
