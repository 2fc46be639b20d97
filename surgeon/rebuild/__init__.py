"""From (module or shards, Plan) to a smaller model; the masked view; config by probing."""

from surgeon.rebuild.rebuild import rebuild, renamed
from surgeon.rebuild.skeleton import architecture, load_into, skeleton
from surgeon.rebuild.tensors import ModuleSource, TensorSource

__all__ = ["ModuleSource", "TensorSource", "architecture", "load_into", "rebuild", "renamed", "skeleton"]
