"""Repair: what makes the kept weights take over what was removed."""

from surgeon.repair.cut import Cut, bias_name, cuts_made, lacking_biases, projections
from surgeon.repair.none import NoRepair
from surgeon.repair.repair import Along, Evidence, Gap, Repair, Repaired, repairs

__all__ = [
    "Along",
    "Cut",
    "Evidence",
    "Gap",
    "NoRepair",
    "Repair",
    "Repaired",
    "bias_name",
    "cuts_made",
    "lacking_biases",
    "projections",
    "repairs",
]
