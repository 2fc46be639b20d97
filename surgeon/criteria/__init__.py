"""Criteria: one score a file; from a Group, its tensors and Statistics to one number an index."""

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
