"""Criteria: one score a file; from a Group, its tensors and Statistics to one number an index.

What is named here is imported when it is first used: not every criterion needs torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from surgeon.deferred import Deferred

if TYPE_CHECKING:
    from surgeon.criteria.coupled import Reduce, channels, coupled, trainable
    from surgeon.criteria.criterion import Criterion, criteria
    from surgeon.criteria.saliency import sum_to_dim, widened
    from surgeon.criteria.scores import Scores

__all__ = [
    "Criterion",
    "Reduce",
    "Scores",
    "channels",
    "coupled",
    "criteria",
    "sum_to_dim",
    "trainable",
    "widened",
]

_HOMES = {
    "Criterion": "criterion",
    "Reduce": "coupled",
    "Scores": "scores",
    "channels": "coupled",
    "coupled": "coupled",
    "criteria": "criterion",
    "sum_to_dim": "saliency",
    "trainable": "coupled",
    "widened": "saliency",
}
"""The file of this package that each name is in."""

sys.modules[__name__].__class__ = Deferred
