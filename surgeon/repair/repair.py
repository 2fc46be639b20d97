"""Repair: how what is kept takes over what is gone, as a recipe says it.

A tagged object of the steps that cut, chosen by ``repair:``. Each is one file, registered in `repairs`.
"""

from __future__ import annotations

from surgeon.graph.strict import Strict
from surgeon.registry import Registry

__all__ = ["Repair", "repairs"]


class Repair(Strict):
    """Base of all repairs; a subclass has ``repair: Literal["its_name"]`` and its options."""

    repair: str


repairs: Registry[type[Repair]] = Registry("repair", "surgeon.repair")
