"""surgeon: structured surgery on transformer models.

The verbs, loaded when first used, so that ``import surgeon`` stays quick:

- `trace` a model into a Graph of coupled axes; `load_recipe` from YAML or JSON;
- `plan` what a recipe would do, `apply` a plan to a model in memory, `verify` the result;
- `run` all of it from checkpoint to checkpoint, `load` what came out, `evaluate` it.

Where a verb and a package share a name (`plan`, `trace`, `evaluate`), the attribute of this package
is the verb; the package is imported from: ``from surgeon.plan import Plan``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from surgeon.deferred import Deferred
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

_HOMES = {name: f"api.{name}" for name in __all__ if name != "SurgeonError"}
"""The file that each verb is in."""

sys.modules[__name__].__class__ = Deferred
