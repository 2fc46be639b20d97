"""How sizes, amounts and changes are written for people; tables and the picture share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from surgeon.plan import Report

__all__ = ["amount_text", "change_text", "cost_rows", "setting_text", "size_text"]

BYTES = ("B", "B/token")
LABELS = {"bytes": "weights", "kv_cache_bytes_per_token": "kv cache"}
"""Names of metrics whose unit says the rest."""


def size_text(number: float, unit: str = "") -> str:
    """A large number with a prefix: ``1.24 M``, ``2.48 MB``."""
    for factor, prefix in ((1e12, "T"), (1e9, "G" if unit else "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor:
            return f"{number / factor:.4g} {prefix}{unit}"
    return f"{number:g} {unit}".rstrip()


def amount_text(number: float, unit: str) -> str:
    """A number in its unit: whole numbers and bytes with a prefix, others to four digits."""
    if unit in BYTES:
        return size_text(number, unit)
    if unit:
        return f"{number:.4g} {unit}"
    return size_text(number) if number == int(number) else f"{number:.4g}"


def change_text(before: float, after: float) -> str:
    """How much more or less, in percent; nothing where there was nothing before."""
    if before == after:
        return "same"
    return f"{after / before - 1:+.1%}" if before else ""


def setting_text(value: object) -> str:
    """A value of a config's field."""
    return "unset" if value is None else str(value)


def cost_rows(report: Report) -> tuple[tuple[str, str, str, str], ...]:
    """What the model takes, and what else was measured: name, before, after, change.

    Sizes are those of the plan where nothing was measured.
    """
    metrics = cast("dict[str, Any]", report.measured).get("metrics") or _planned(report)
    return tuple(
        (
            LABELS.get(name, name.replace("_", " ")),
            amount_text(metric["before"], metric["unit"]),
            amount_text(metric["after"], metric["unit"]),
            change_text(metric["before"], metric["after"]),
        )
        for name, metric in metrics.items()
    )


def _planned(report: Report) -> dict[str, dict[str, Any]]:
    units = {"parameters": "", "bytes": "B", "kv_cache_bytes_per_token": "B/token"}
    both = {name: (getattr(report.before, name), getattr(report.after, name)) for name in units}
    return {
        name: {"unit": units[name], "before": before, "after": after}
        for name, (before, after) in both.items()
        if before is not None and after is not None
    }
