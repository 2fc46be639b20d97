"""Edits, composition, checks, cost and Report. Without torch."""

from surgeon.plan.amount import Amount
from surgeon.plan.cuts import Cuts, cuts_of
from surgeon.plan.edits import Assign, DropBlock, Edit, Keep
from surgeon.plan.plan import Plan
from surgeon.plan.tagged import tagged_field

__all__ = ["Amount", "Assign", "Cuts", "DropBlock", "Edit", "Keep", "Plan", "cuts_of", "tagged_field"]
