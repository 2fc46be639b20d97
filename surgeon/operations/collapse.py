"""Operation ``collapse``: groups of later Blocks fold into an earlier one while the output stays alike.

Greedy, from the deep end, each trial compared with the model as the step found it. Not here: how tensors
are fused (`fusing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from surgeon.calibrate.last_hidden import Likeness
from surgeon.calibrate.packing import Samples
from surgeon.graph import BlockSelector
from surgeon.operations.fusing import Fusion, Vectors, alike, difference_sum, fused, last
from surgeon.operations.mending import bridged, unfit_for_gaps
from surgeon.operations.operation import Operation, Proposal, operations
from surgeon.operations.stack_state import left_blocks
from surgeon.operations.state import State
from surgeon.plan import Assign, Choice, DropBlock, Edit, Refused, tagged_field
from surgeon.repair import NoRepair, Repair, repairs

__all__ = ["Collapse"]


@operations.register("collapse")
class Collapse(Operation):
    """LaCo (Yang, Cao, Zhao 2024, arXiv 2402.11187): reserve the differences, seek the common.

    ``mode: difference_sum`` is the paper's formula, ``W + sum_k (W_k - W)``. ``mode: replace_by_last`` is
    what the released code comes to: it subtracts the already updated copy, so that the sum telescopes to
    the last Block's matrices, beside the first one's norms.

    YAML::

        - op: collapse
          size: 3
          threshold: 0.7
    """

    op: Literal["collapse"] = "collapse"
    select: BlockSelector = BlockSelector()
    """Which Stack; only whole ones."""
    size: Annotated[int, Field(ge=2)]
    """Blocks that become one, fewer at the end of the Stack."""
    threshold: Annotated[float, Field(ge=-1, le=1)]
    """A fold is accepted where the mean cosine of the final states with the original's is above this."""
    interval: Annotated[int, Field(ge=1)] = 1
    """Places to go down after an accepted fold."""
    low: Annotated[int, Field(ge=0)] = 0
    """Lowest place of a Block that others fold into."""
    high: Annotated[int, Field(ge=1)] | None = None
    """Highest place to start from; absent: the last Block."""
    mode: Literal["difference_sum", "replace_by_last"] = "difference_sum"
    """How matrices are folded."""
    merge_norms: Vectors = "keep_first"
    """What becomes of norms and biases."""
    probe: Annotated[int, Field(ge=1)] | None = None
    """Calibration samples to compare on, the first ones; absent: all."""
    repair: Annotated[Repair, tagged_field(repairs, "repair")] = NoRepair()
    """How the folded Blocks take over what is gone."""

    @model_validator(mode="after")
    def _bridges(self) -> Self:
        if unfit := unfit_for_gaps(self.repair):
            raise ValueError(unfit)
        if self.select.sublayer is not None:
            raise ValueError("collapse folds whole blocks; leave sublayer out")
        if self.select.blocks is not None:
            raise ValueError("collapse works on a whole stack; low and high bound it")
        return self

    def propose(self, state: State) -> Proposal:
        """Assignments to the Blocks that others fold into, and a DropBlock for every other one."""
        search = _Search(self, state)
        search.run()
        mended = bridged(self.repair, self.select, state, search.now) if search.edits else None
        values = {name: search.now.plan.values[name] for name in search.assigned}
        return Proposal(
            (*search.edits, *(mended.edits if mended else ())),
            search.choices(),
            tuple(search.refused),
            (*search.notes, *(mended.notes if mended else ())),
            {**values, **(mended.values if mended else {})},
        )

    def matrices(self) -> Fusion:
        """How matrices are folded."""
        return difference_sum if self.mode == "difference_sum" else last

    def vectors(self) -> Fusion:
        """How norms and biases are."""
        return difference_sum if self.merge_norms == "difference_sum" else lambda tensors: tensors[0]


@dataclass
class _Search:
    """The greedy search: the State as folded so far, and what was tried."""

    step: Collapse
    begin: State
    edits: list[Edit] = field(default_factory=list)
    assigned: dict[str, None] = field(default_factory=dict)
    into: dict[str, str] = field(default_factory=dict)
    similarity: dict[str, float] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = self.begin
        bench = self.begin.trial()
        samples = Samples(bench.samples.ids[: self.step.probe], bench.samples.mask[: self.step.probe])
        self.likeness = Likeness(bench, self.begin.plan, samples)

    def run(self) -> None:
        """Try folds from the deep end down to `low`."""
        left = left_blocks(self.now, self.step.select)
        high = len(left) - 1 if self.step.high is None else min(self.step.high, len(left) - 1)
        place = high - self.step.size
        while place >= self.step.low:
            left = left_blocks(self.now, self.step.select)
            accepted = self._fold(left[place : place + self.step.size])
            place -= self.step.interval if accepted else 1
            depth = len(left_blocks(self.now, self.step.select))
            if accepted and place >= depth:
                place = depth - 1 - self.step.size

    def choices(self) -> tuple[Choice, ...]:
        """What became of every Block."""
        blocks = left_blocks(self.begin, self.step.select)
        takers = set(self.into.values())
        return tuple(
            Choice(
                axis=name,
                size=1,
                kept=0 if name in self.into else 1,
                why=f"folded into {self.into[name]}"
                if name in self.into
                else ("others fold into it" if name in takers else ""),
                score=self.similarity.get(name),
                into=self.into.get(name),
            )
            for name in blocks
        )

    def _fold(self, blocks: Sequence[str]) -> bool:
        if len(blocks) < 2:
            return False
        reason = alike(self.begin.graph, blocks) or self._unbuildable(blocks)
        if reason is not None:
            self.refused.append(Refused(axis=", ".join(blocks), reason=reason))
            return False
        edits, trial = self._trial(blocks)
        similarity = self.likeness.of(trial.plan)
        accepted = similarity > self.step.threshold
        said = "accepted" if accepted else "rejected"
        self.notes.append(f"{blocks[0]} to {blocks[-1]}: similarity {similarity:.4f}, {said}")
        if accepted:
            self.edits += edits
            self.assigned |= {edit.param: None for edit in edits if isinstance(edit, Assign)}
            self.into |= dict.fromkeys(blocks[1:], blocks[0])
            self.similarity |= dict.fromkeys(blocks[1:], similarity)
            self.now = trial
        return accepted

    def _unbuildable(self, blocks: Sequence[str]) -> str | None:
        drops = (DropBlock(name, self.begin.step) for name in blocks[1:])
        return self.begin.inexpressible(self.now.after(drops).plan)

    def _trial(self, blocks: Sequence[str]) -> tuple[list[Edit], State]:
        values = fused(self.now, blocks, self.step.matrices(), self.step.vectors())
        args = {"blocks": list(blocks), "merge_norms": self.step.merge_norms}
        edits: list[Edit] = [
            Assign(name, f"collapse.{self.step.mode}", args, self.begin.step) for name in values
        ]
        edits += [DropBlock(name, self.begin.step) for name in blocks[1:]]
        return edits, replace(self.now.after(edits, dict(values)))
