"""surgeon: structured surgery on transformer models.

The verbs, loaded when first used, so that ``import surgeon`` stays quick:

- `trace` a model into a Graph of coupled axes; `load_recipe` from YAML or JSON;
- `plan` what a recipe would do, `apply` a plan to a model in memory, `verify` the result;
- `run` all of it from checkpoint to checkpoint, `load` what came out, `evaluate` it.

Where a verb and a package share a name (`plan`, `trace`, `evaluate`), the attribute of this package
is the verb; the package is imported from: ``from surgeon.plan import Plan``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from surgeon.errors import SurgeonError

if TYPE_CHECKING:
    from surgeon.api.apply import apply
    from surgeon.api.evaluate import evaluate
    from surgeon.api.load import load
    from surgeon.api.load_recipe import load_recipe
    from surgeon.api.plan import plan
    from surgeon.api.run import run
    from surgeon.api.trace import trace
    from surgeon.api.verify import verify

__all__ = ["SurgeonError", "apply", "evaluate", "load", "load_recipe", "plan", "run", "trace", "verify"]

_VERBS = frozenset(__all__) - {"SurgeonError"}


class _Package(ModuleType):
    """This package as a module: importing ``surgeon.plan`` must not replace the verb `plan`."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _VERBS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> object:
        if name not in _VERBS:
            raise AttributeError(f"module 'surgeon' has no attribute '{name}'")
        verb = getattr(importlib.import_module(f"surgeon.api.{name}"), name)
        setattr(self, name, verb)
        return verb


sys.modules[__name__].__class__ = _Package
