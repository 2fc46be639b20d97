"""Edits, composition, checks, cost and Report. Without torch."""

from surgeon.plan.cuts import Cuts, cuts_of
from surgeon.plan.edits import Assign, DropBlock, Edit, Keep
from surgeon.plan.plan import Plan

__all__ = ["Assign", "Cuts", "DropBlock", "Edit", "Keep", "Plan", "cuts_of"]
