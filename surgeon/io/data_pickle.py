"""Pickles that may hold data only: what they name must be a class of this package, or of Python's own.

A pickle can run code while it is read; one that names anything else is refused before it does. Not here: who
needs more (`findings`).
"""

from __future__ import annotations

import pickle
from typing import Any

__all__ = ["DataUnpickler"]

BUILTINS = frozenset({"set", "frozenset", "slice", "range", "complex"})


class DataUnpickler(pickle.Unpickler):
    """Refuses whatever is no plain data."""

    def find_class(self, module: str, name: str) -> Any:
        """The class that a pickle names.

        Raises:
            UnpicklingError: it is none that data is made of.
        """
        part = module.partition(".")[0]
        found = super().find_class(module, name) if self.may_hold(part, name) else None
        if not self.is_data(part, found):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of what is found of a model")
        return found

    def may_hold(self, part: str, name: str) -> bool:
        """Whether something of this name in a package called `part` may be looked at."""
        return name in BUILTINS if part == "builtins" else part in ("surgeon", "fractions", "collections")

    def is_data(self, part: str, found: object) -> bool:
        """Whether what was looked at is data."""
        return found is not None and (part != "surgeon" or isinstance(found, type))
