"""Text to Statistics, of the original model or of a masked view.

What is named here is imported when it is first used: a plan that measures nothing needs no torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from surgeon.deferred import Deferred

if TYPE_CHECKING:
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

_HOMES = {
    "Bench": "bench",
    "Collector": "statistic",
    "Memory": "memory",
    "Observation": "statistic",
    "Progress": "gather",
    "Ranks": "ranks",
    "Run": "statistic",
    "Samples": "packing",
    "Statistic": "statistic",
    "Statistics": "results",
    "Store": "store",
    "check_ids": "tokens",
    "digest": "store",
    "encode": "tokens",
    "gather": "gather",
    "model_inputs": "gather",
    "next_token_loss": "gather",
    "pack": "packing",
    "rows": "packing",
    "shares": "packing",
    "statistics": "statistic",
}
"""The file of this package that each name is in."""

sys.modules[__name__].__class__ = Deferred
