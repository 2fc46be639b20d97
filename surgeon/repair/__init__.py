"""Repair: what makes the kept weights take over what was removed."""

from surgeon.repair.cut import Cut, cuts_made
from surgeon.repair.none import NoRepair
from surgeon.repair.repair import Evidence, Gap, Repair, Repaired, repairs

__all__ = ["Cut", "Evidence", "Gap", "NoRepair", "Repair", "Repaired", "cuts_made", "repairs"]
