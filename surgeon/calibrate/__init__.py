"""Text to Statistics, of the original model or of a masked view."""

from surgeon.calibrate.gather import Progress, gather, next_token_loss
from surgeon.calibrate.packing import Samples, pack, rows, shares
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics
from surgeon.calibrate.tokens import check_ids, encode

__all__ = [
    "Collector",
    "Observation",
    "Progress",
    "Run",
    "Samples",
    "Statistic",
    "Statistics",
    "check_ids",
    "encode",
    "gather",
    "next_token_loss",
    "pack",
    "rows",
    "shares",
    "statistics",
]
