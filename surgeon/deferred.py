"""Deferred: a package whose names are imported when they are first used.

Why: a verb that needs neither torch nor transformers must not wait for them because a package that it takes
one name from has others that do. The package keeps `_HOMES`, the file that each of its names is in, and says
``sys.modules[__name__].__class__ = Deferred``; for type checkers it imports them under ``TYPE_CHECKING``.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["Deferred"]


class Deferred(ModuleType):
    """Such a package; where a file has the name of what is in it, the attribute is what is in it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in self.__dict__["_HOMES"] and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> object:
        home = self.__dict__.get("_HOMES", {}).get(name)
        if home is None:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        found = getattr(importlib.import_module(f"{self.__name__}.{home}"), name)
        setattr(self, name, found)
        return found
