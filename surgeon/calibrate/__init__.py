"""Text to Statistics, of the original model or of a masked view."""

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.gather import Progress, gather, model_inputs, next_token_loss
from surgeon.calibrate.memory import Memory
from surgeon.calibrate.packing import Samples, pack, rows, shares
from surgeon.calibrate.ranks import Ranks
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics
from surgeon.calibrate.store import Store, digest
from surgeon.calibrate.tokens import check_ids, encode

__all__ = [
    "Bench",
    "Collector",
    "Memory",
    "Observation",
    "Progress",
    "Ranks",
    "Run",
    "Samples",
    "Statistic",
    "Statistics",
    "Store",
    "check_ids",
    "digest",
    "encode",
    "gather",
    "model_inputs",
    "next_token_loss",
    "pack",
    "rows",
    "shares",
    "statistics",
]
