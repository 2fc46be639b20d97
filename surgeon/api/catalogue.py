"""Everything that is registered: what recipes can say, and what can be measured."""

from __future__ import annotations

from typing import Any

from surgeon.calibrate import statistics
from surgeon.criteria import criteria
from surgeon.criteria.blocks import block_criteria
from surgeon.evaluate import metrics
from surgeon.operations import allocations, operations
from surgeon.passes import passes
from surgeon.registry import Registry, load_entry_points

__all__ = ["catalogue"]


def catalogue() -> dict[str, Registry[Any]]:
    """The registries by the name that ``surgeon list`` knows them by, installed plugins included."""
    load_entry_points()
    return {
        "operations": operations,
        "passes": passes,
        "criteria": criteria,
        "block_criteria": block_criteria,
        "allocations": allocations,
        "statistics": statistics,
        "metrics": metrics,
    }
