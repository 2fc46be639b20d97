"""Repair ``none``: what is cut is gone."""

from __future__ import annotations

from typing import Literal

from surgeon.repair.repair import Repair, repairs

__all__ = ["NoRepair"]


@repairs.register("none")
class NoRepair(Repair):
    """Kept weights stay as they are."""

    repair: Literal["none"] = "none"
