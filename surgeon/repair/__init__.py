"""Repair: what makes the kept weights take over what was removed."""

from surgeon.repair.none import NoRepair
from surgeon.repair.repair import Repair, repairs

__all__ = ["NoRepair", "Repair", "repairs"]
