"""From (module or shards, Plan) to a smaller model; the masked view; config by probing."""

from surgeon.rebuild.forward import probe_tokens
from surgeon.rebuild.masked import MaskedView, masked
from surgeon.rebuild.rebuild import rebuild, renamed
from surgeon.rebuild.skeleton import architecture, load_into, skeleton
from surgeon.rebuild.symmetry import Proof, prove, randomised
from surgeon.rebuild.tensors import ModuleSource, TensorSource
from surgeon.rebuild.verify import Comparison, compare

__all__ = [
    "Comparison",
    "MaskedView",
    "ModuleSource",
    "Proof",
    "TensorSource",
    "architecture",
    "compare",
    "load_into",
    "masked",
    "probe_tokens",
    "prove",
    "randomised",
    "rebuild",
    "renamed",
    "skeleton",
]
