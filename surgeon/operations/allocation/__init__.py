"""Allocations: one a file; from scored Pools to kept counts."""

from surgeon.operations.allocation.allocation import Allocation, Ladder, allocations

__all__ = ["Allocation", "Ladder", "allocations"]
