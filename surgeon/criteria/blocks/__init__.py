"""Criteria of Blocks: one score a file; from the Blocks that are left to one number a run of them."""

from surgeon.criteria.blocks.criterion import BlockCriterion, Candidates, block_criteria

__all__ = ["BlockCriterion", "Candidates", "block_criteria"]
