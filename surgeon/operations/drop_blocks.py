"""Operation ``drop_blocks``: whole Blocks of a Stack go; what is left moves up.

Which ones: a list, or the lowest by a block criterion, one by one or as one run. Where the config cannot
build what is left (layers of several sorts in a fixed pattern), runs are tried from the lowest on. Not
here: what Blocks are worth (`surgeon.criteria.blocks`), and the smaller model (`surgeon.rebuild`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from surgeon.criteria.blocks import BlockCriterion, Candidates, block_criteria
from surgeon.errors import InfeasibleError, SurgeonError
from surgeon.graph import BlockSelector
from surgeon.graph.strict import Many
from surgeon.operations.bridging import bridged, unfit_for_gaps
from surgeon.operations.operation import Operation, Proposal, operations
from surgeon.operations.stack_state import block_params, left_blocks
from surgeon.operations.state import State
from surgeon.plan import Amount, Choice, DropBlock, Refused, tagged_field
from surgeon.repair import NoRepair, Repair, repairs

__all__ = ["DropBlocks"]


@operations.register("drop_blocks")
class DropBlocks(Operation):
    """Depth pruning: ShortGPT, the deeper layers, SLEB, Shortened LLaMA by their block criteria.

    YAML::

        - op: drop_blocks
          keep: {fraction: 0.75}
          criterion: perplexity
          shots: each
    """

    op: Literal["drop_blocks"] = "drop_blocks"
    select: BlockSelector = BlockSelector()
    """Which Blocks may go."""
    keep: Amount | None = None
    """How many Blocks of the Stack stay: a fraction or a count of those that the step finds."""
    drop: Annotated[tuple[int, ...], Field(min_length=1), Many()] | None = None
    """In place of `keep` and `criterion`: which ones go, by their places in the traced Stack."""
    criterion: Annotated[BlockCriterion, tagged_field(block_criteria, "criterion")] | None = None
    """What makes a Block worth keeping."""
    contiguous: bool = False
    """One run of neighbouring Blocks goes."""
    shots: Annotated[int, Field(ge=1)] | Literal["each"] = 1
    """Drop in so many parts, or ``each`` on its own; each part scores again what is left."""
    repair: Annotated[Repair, tagged_field(repairs, "repair")] = NoRepair()
    """How the Blocks before the gaps take over what is gone."""

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> Self:
        if (self.drop is None) == (self.keep is None):
            raise ValueError("give either drop, a list of blocks, or keep and a criterion")
        if (self.keep is None) != (self.criterion is None):
            raise ValueError("keep and criterion go together: how many blocks stay, and which")
        if self.keep is not None and self.keep.params is not None:
            raise ValueError("keep: params is not for blocks; give fraction or count")
        if self.contiguous and self.shots != 1:
            raise ValueError("contiguous: true drops one run in one shot; leave shots out")
        if unfit := unfit_for_gaps(self.repair):
            raise ValueError(unfit)
        return self

    @property
    def reads_weights(self) -> bool:
        """Whether the criterion does."""
        return self.repair.needs_text or (self.criterion is not None and self.criterion.reads_weights)

    def milder(self, state: State) -> DropBlocks | None:
        """Half as many Blocks go; a list is not shortened."""
        if self.keep is None:
            return None
        left = len(left_blocks(state, self.select))
        kept = left - (left - self.keep.kept(left)) // 2
        return None if kept == left else self.model_copy(update={"keep": Amount(count=kept)})

    def propose(self, state: State) -> Proposal:
        """One DropBlock for every Block that goes."""
        if self.keep is not None and self.criterion is not None:
            cut = self._chosen(state, self.keep, self.criterion)
        else:
            cut = self._listed(state, self.drop or ())
        mended = bridged(self.repair, self.select, state, state.after(cut.edits))
        return replace(
            cut, edits=(*cut.edits, *mended.edits), values=mended.values, notes=(*cut.notes, *mended.notes)
        )

    def _listed(self, state: State, places: Sequence[int]) -> Proposal:
        named = self.select.model_copy(update={"blocks": tuple(places)})
        names = named.on(state.graph)
        gone = [name for name in names if name in state.plan.dropped]
        if gone:
            raise InfeasibleError(f"'{gone[0]}' was dropped by an earlier step")
        choices = tuple(Choice(axis=name, size=1, kept=0, why="listed") for name in names)
        return Proposal(tuple(DropBlock(name, state.step) for name in names), choices)

    def _chosen(self, state: State, keep: Amount, criterion: BlockCriterion) -> Proposal:
        began = left_blocks(state, self.select)
        count = len(began) - keep.kept(len(began))
        if count == 0:
            return Proposal((), notes=(f"all {len(began)} blocks stay",))
        now, scores = state, {}
        for part in self._parts(count):
            worth, lowest = self._lowest(now, part, criterion)
            scores = {**worth, **scores, **{name: worth[name] for name in lowest if name in worth}}
            now = now.after(DropBlock(name, state.step) for name in lowest)
        names = tuple(name for name in began if name in now.plan.dropped)
        names, refused = self._built(state, began, names, criterion)
        choices = tuple(_choice(name, names, scores, criterion) for name in began)
        return Proposal(tuple(DropBlock(name, state.step) for name in names), choices, refused)

    def _parts(self, count: int) -> tuple[int, ...]:
        """How many Blocks go in each shot, the larger parts first."""
        shots = count if self.shots == "each" else min(self.shots, count)
        return tuple(len(part) for part in np.array_split(np.arange(count), shots))

    def _lowest(
        self, now: State, count: int, criterion: BlockCriterion
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """Scores of what is left (of runs by their first Block), and the `count` Blocks to drop."""
        shown = self._candidates(now)
        run = count if self.contiguous else 1
        order, scores = _ranked(criterion, shown, run)
        needed = 1 if self.contiguous else count
        if len(order) < needed:
            raise InfeasibleError(
                f"{count} of {len(shown.blocks)} blocks should go{' in one run' if self.contiguous else ''}, "
                f"and only {len(order)} {'such runs' if self.contiguous else 'of them'} may",
                hint="keep more, select more, or let the criterion protect fewer",
            )
        places = [place for start in order[:needed] for place in range(start, start + run)]
        return scores, tuple(shown.blocks[place] for place in sorted(places))

    def _candidates(self, now: State) -> Candidates:
        blocks = left_blocks(now, self.select)
        allowed = set(self.select.on(now.graph))
        return Candidates(
            blocks=blocks,
            open=frozenset(place for place, name in enumerate(blocks) if name in allowed),
            params={name: block_params(now.graph, name) for name in blocks},
            weights=now.weights,
            plan=now.plan,
            statistics=now.statistics,
            bench=now.trial,
        )

    def _built(
        self, state: State, began: Sequence[str], names: tuple[str, ...], criterion: BlockCriterion
    ) -> tuple[tuple[str, ...], tuple[Refused, ...]]:
        """`names`, or where no config builds what they leave, the lowest run of as many that one does."""
        reason = self._refusal(state, names)
        if reason is None:
            return names, ()
        refused = (Refused(axis=", ".join(names), reason=reason),)
        alone = replace(self._candidates(state), blocks=tuple(began))
        order, _ = _ranked(criterion, alone, len(names))
        for start in order:
            run = tuple(began[start : start + len(names)])
            if run != names and self._refusal(state, run) is None:
                return run, refused
        raise InfeasibleError(
            f"no config builds the model without {', '.join(names)}, nor without any run of {len(names)} "
            f"blocks that may go: {reason}",
            hint="another number of blocks, such as one period of the pattern, or a list of your own: drop",
        )

    def _refusal(self, state: State, names: Sequence[str]) -> str | None:
        return state.inexpressible(state.after(DropBlock(name, state.step) for name in names).plan)


def _ranked(
    criterion: BlockCriterion, shown: Candidates, run: int
) -> tuple[tuple[int, ...], dict[str, float]]:
    """Starts of runs that may go, lowest score first, of equal ones the deeper; and all scores.

    Raises:
        SurgeonError: a score is NaN.
    """
    values = criterion.score(shown, run)
    if np.isnan(values).any():
        first = shown.blocks[int(np.isnan(values).argmax())]
        raise SurgeonError(
            f"criterion '{criterion.criterion}' gave NaN for '{first}'",
            hint="check the weights for NaN, or load the model in float32: float16 overflows early",
        )
    starts = [start for start in shown.starts(run) if np.isfinite(values[start])]
    order = tuple(sorted(starts, key=lambda start: (values[start], -start)))
    return order, {shown.blocks[start]: float(values[start]) for start in starts}


def _choice(
    name: str, dropped: Sequence[str], scores: Mapping[str, float], criterion: BlockCriterion
) -> Choice:
    why = f"{criterion.criterion} {scores[name]:.4g}" if name in scores else ""
    return Choice(axis=name, size=1, kept=int(name not in dropped), score=scores.get(name), why=why)
