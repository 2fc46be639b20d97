"""Repair ``none``: what is cut is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from surgeon.repair.cut import Cut
from surgeon.repair.repair import Evidence, Repair, Repaired, repairs

__all__ = ["NoRepair"]


@repairs.register("none")
class NoRepair(Repair):
    """Kept weights stay as they are."""

    repair: Literal["none"] = "none"

    @property
    def needs_text(self) -> bool:
        """Nothing is measured."""
        return False

    def mend(self, cuts: Sequence[Cut], evidence: Evidence) -> Repaired:
        """Nothing."""
        return Repaired()
