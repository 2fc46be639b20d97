"""Text to Statistics, of the original model or of a masked view."""

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.gather import Progress, gather, model_inputs, next_token_loss
from surgeon.calibrate.packing import Samples, pack, rows, shares
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics
from surgeon.calibrate.tokens import check_ids, encode

__all__ = [
    "Bench",
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
    "model_inputs",
    "next_token_loss",
    "pack",
    "rows",
    "shares",
    "statistics",
]
