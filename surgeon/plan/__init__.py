"""Edits, composition, checks, cost and Report. Without torch."""

from surgeon.plan.amount import Amount
from surgeon.plan.answers import AnsweredLimits, Answers, Unanswered, structure_of
from surgeon.plan.check import check_plan
from surgeon.plan.cost import kv_cache_elements, parameters_after, shapes_after, sizes, unit_cost
from surgeon.plan.cuts import Cuts, cuts_of
from surgeon.plan.document import plan_document, plan_from_document
from surgeon.plan.edits import Assign, DropBlock, Edit, Keep
from surgeon.plan.gone import dropped_parts, gone_modules, gone_prefixes, silent_params
from surgeon.plan.left import LeftLimits, gone_groups
from surgeon.plan.limits import Limits, Refusal, Unlimited
from surgeon.plan.members import GroupedLimits, kept_of, traced_edits
from surgeon.plan.plan import Plan
from surgeon.plan.report import Choice, Cost, LedgerRow, Loader, Loads, Refused, Report, StepRecord
from surgeon.plan.tagged import tagged_field

__all__ = [
    "Amount",
    "AnsweredLimits",
    "Answers",
    "Assign",
    "Choice",
    "Cost",
    "Cuts",
    "DropBlock",
    "Edit",
    "GroupedLimits",
    "Keep",
    "LedgerRow",
    "LeftLimits",
    "Limits",
    "Loader",
    "Loads",
    "Plan",
    "Refusal",
    "Refused",
    "Report",
    "StepRecord",
    "Unanswered",
    "Unlimited",
    "check_plan",
    "cuts_of",
    "dropped_parts",
    "gone_groups",
    "gone_modules",
    "gone_prefixes",
    "kept_of",
    "kv_cache_elements",
    "parameters_after",
    "plan_document",
    "plan_from_document",
    "shapes_after",
    "silent_params",
    "sizes",
    "structure_of",
    "tagged_field",
    "traced_edits",
    "unit_cost",
]
