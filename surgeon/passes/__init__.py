"""Recipe steps that rewrite the Graph: the contract, the pipeline, one built-in pass a file."""

from surgeon.passes.contract import GraphPass, passes
from surgeon.passes.pipeline import run_passes

__all__ = ["GraphPass", "passes", "run_passes"]
