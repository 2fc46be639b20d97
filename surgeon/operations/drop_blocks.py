"""Operation ``drop_blocks``: whole Blocks of a Stack go, or sublayers of them; what is left moves up.

Not here: which ones (`choosing`), what Blocks are worth (`surgeon.criteria.blocks`), and the smaller model
(`surgeon.rebuild`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from surgeon.operations.choosing import BlockChoice
from surgeon.operations.mending import bridged
from surgeon.operations.operation import Proposal, operations
from surgeon.operations.state import State

__all__ = ["DropBlocks"]


@operations.register("drop_blocks")
class DropBlocks(BlockChoice):
    """Depth pruning: ShortGPT, the deeper layers, SLEB, Shortened LLaMA by their block criteria.

    With ``select: {sublayer: mlp}`` (or ``attention``) the sublayers of that role go and the norms that
    feed them, one by one (He et al. 2024, arXiv 2406.15786); the layer that is left needs ``export:
    {layout: per_layer}``, or ``padded``. A Block that has lost all its sublayers goes whole.

    YAML::

        - op: drop_blocks
          keep: {fraction: 0.75}
          criterion: perplexity
          shots: each
    """

    op: Literal["drop_blocks"] = "drop_blocks"

    def propose(self, state: State) -> Proposal:
        """One DropBlock for every Block or sublayer that goes, and what the repair assigns."""
        cut = self.cut(state)
        mended = bridged(self.repair, self.select, state, state.after(cut.edits))
        return replace(
            cut, edits=(*cut.edits, *mended.edits), values=mended.values, notes=(*cut.notes, *mended.notes)
        )
