"""From (module or shards, Plan) to a smaller model; the masked view; config by probing."""

from surgeon.rebuild.skeleton import architecture, load_into, skeleton

__all__ = ["architecture", "load_into", "skeleton"]
