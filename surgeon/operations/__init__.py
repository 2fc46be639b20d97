"""Operations: one structured operation a file; from a State to the Edits that it proposes."""

from surgeon.operations.allocation import Allocation, allocations
from surgeon.operations.operation import Operation, Proposal, operations
from surgeon.operations.state import Measure, State

__all__ = ["Allocation", "Measure", "Operation", "Proposal", "State", "allocations", "operations"]
