"""From (module or shards, Plan) to a smaller model; the masked view; config by probing."""

from surgeon.rebuild.apply import apply_plan, config_of
from surgeon.rebuild.config_limits import ConfigLimits
from surgeon.rebuild.config_probe import ConfigSpace, Field, probe
from surgeon.rebuild.config_solve import Solution, solve
from surgeon.rebuild.doctor import diagnose
from surgeon.rebuild.forward import probe_tokens
from surgeon.rebuild.layout import Arrangement, ExportLayout, arrange, limited_part, limits_of
from surgeon.rebuild.masked import MaskedView, masked
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
