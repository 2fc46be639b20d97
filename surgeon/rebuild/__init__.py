"""From (module or shards, Plan) to a smaller model; the masked view; config by probing.

What is named here is imported when it is first used: a plan whose answers are known builds no model.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from surgeon.deferred import Deferred

if TYPE_CHECKING:
    from surgeon.rebuild.apply import apply_plan, config_of
    from surgeon.rebuild.config_limits import ConfigLimits
    from surgeon.rebuild.config_probe import ConfigSpace, Field, probe
    from surgeon.rebuild.config_solve import Solution, solve
    from surgeon.rebuild.doctor import diagnose
    from surgeon.rebuild.export_layout import ExportLayout
    from surgeon.rebuild.forward import probe_tokens
    from surgeon.rebuild.layout import Arrangement, arrange, limited_part, limits_of
    from surgeon.rebuild.masked import Fixed, MaskedView, masked
    from surgeon.rebuild.rebuild import rebuild, renamed
    from surgeon.rebuild.skeleton import architecture, load_into, skeleton
    from surgeon.rebuild.symmetry import Proof, prove, randomised
    from surgeon.rebuild.tensors import ModuleSource, TensorSource
    from surgeon.rebuild.verify import Comparison, compare

__all__ = [
    "Arrangement",
    "Comparison",
    "ConfigLimits",
    "ConfigSpace",
    "ExportLayout",
    "Field",
    "Fixed",
    "MaskedView",
    "ModuleSource",
    "Proof",
    "Solution",
    "TensorSource",
    "apply_plan",
    "architecture",
    "arrange",
    "compare",
    "config_of",
    "diagnose",
    "limited_part",
    "limits_of",
    "load_into",
    "masked",
    "probe",
    "probe_tokens",
    "prove",
    "randomised",
    "rebuild",
    "renamed",
    "skeleton",
    "solve",
]

_HOMES = {
    "Arrangement": "layout",
    "Comparison": "verify",
    "ConfigLimits": "config_limits",
    "ConfigSpace": "config_probe",
    "ExportLayout": "export_layout",
    "Field": "config_probe",
    "Fixed": "masked",
    "MaskedView": "masked",
    "ModuleSource": "tensors",
    "Proof": "symmetry",
    "Solution": "config_solve",
    "TensorSource": "tensors",
    "apply_plan": "apply",
    "architecture": "skeleton",
    "arrange": "layout",
    "compare": "verify",
    "config_of": "apply",
    "diagnose": "doctor",
    "limited_part": "layout",
    "limits_of": "layout",
    "load_into": "skeleton",
    "masked": "masked",
    "probe": "config_probe",
    "probe_tokens": "forward",
    "prove": "symmetry",
    "randomised": "symmetry",
    "rebuild": "rebuild",
    "renamed": "rebuild",
    "skeleton": "skeleton",
    "solve": "config_solve",
}
"""The file of this package that each name is in."""

sys.modules[__name__].__class__ = Deferred
