"""Which Blocks of a Stack go, or which sublayers of them: what steps that take some away have in common.

A list, or the lowest by a block criterion, one by one or as one run. Where the config cannot build what is
left (layers of several sorts in a fixed pattern), runs are tried from the lowest on. Not here: what Blocks
are worth (`surgeon.criteria.blocks`), and what becomes of those that stay (`drop_blocks`, `replace`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from surgeon.criteria.blocks import BlockCriterion, Candidates, block_criteria
from surgeon.errors import InfeasibleError, SelectorError, SurgeonError
from surgeon.graph import BlockSelector
from surgeon.graph.strict import Many
from surgeon.operations.mending import unfit_for_gaps
from surgeon.operations.operation import Operation, Proposal
from surgeon.operations.stack_state import drops, left_blocks, left_parts, params_below
from surgeon.operations.state import State
from surgeon.plan import Amount, Choice, Refused, tagged_field
from surgeon.repair import NoRepair, Repair, repairs

__all__ = ["BlockChoice"]


class BlockChoice(Operation):
    """A step that takes Blocks away, by a list or by a criterion."""

    spared: ClassVar[int] = 0
    """So many Blocks at the start of the Stack, and of every run, stay."""

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
    """Choose in so many parts, or ``each`` on its own; each part scores again what is left."""
    repair: Annotated[Repair, tagged_field(repairs, "repair")] = NoRepair()
    """How what stays takes over what is gone."""

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
        if self.contiguous and self.select.sublayer is not None:
            raise ValueError("contiguous: true drops a run of whole blocks; leave sublayer out")
        if unfit := unfit_for_gaps(self.repair):
            raise ValueError(unfit)
        return self

    @property
    def reads_weights(self) -> bool:
        """Whether the criterion or the repair does."""
        return self.repair.needs_text or (self.criterion is not None and self.criterion.reads_weights)

    def milder(self, state: State) -> BlockChoice | None:
        """Half as many go; a list is not shortened."""
        if self.keep is None:
            return None
        left = len(self._left(state))
        kept = left - (left - self.keep.kept(left)) // 2
        return None if kept == left else self.model_copy(update={"keep": Amount(count=kept)})

    def cut(self, state: State) -> Proposal:
        """One DropBlock for every Block or sublayer that goes."""
        if self.keep is not None and self.criterion is not None:
            return self._chosen(state, self.keep, self.criterion)
        return self._listed(state, self.drop or ())

    def _left(self, state: State) -> tuple[str, ...]:
        """What no step has dropped, selected or not: Blocks, or their sublayers of the role."""
        if self.select.sublayer is None:
            return left_blocks(state, self.select)
        found = left_parts(state, self.select)
        if not found:
            raise SelectorError(f"no block has a sublayer '{self.select.sublayer}' left", key="sublayer")
        return found

    def _listed(self, state: State, places: Sequence[int]) -> Proposal:
        named = self.select.model_copy(update={"blocks": tuple(places)})
        wanted = named.on(state.graph)
        left = self._left(state)
        owners = _owners(left, wanted)
        gone = [name for name in wanted if name not in owners]
        if gone:
            raise InfeasibleError(
                f"'{gone[0]}' was dropped by an earlier step"
                if self.select.sublayer is None or gone[0] in state.plan.dropped
                else f"'{gone[0]}' has no sublayer '{self.select.sublayer}', or lost it in an earlier step"
            )
        names = [owners[name] for name in wanted]
        choices = tuple(Choice(axis=name, size=1, kept=0, why="listed") for name in names)
        if self.select.sublayer is not None and (reason := self._refusal(state, names)):
            raise InfeasibleError(reason, hint="export: {layout: per_layer}, or padded")
        return Proposal(drops(state, names), choices)

    def _chosen(self, state: State, keep: Amount, criterion: BlockCriterion) -> Proposal:
        began = self._left(state)
        count = len(began) - keep.kept(len(began))
        if count == 0:
            return Proposal((), notes=(f"all {len(began)} blocks stay",))
        now, scores, gone = state, {}, set()
        for part in self._parts(count):
            worth, lowest = self._lowest(now, part, criterion)
            scores = {**worth, **scores, **{name: worth[name] for name in lowest if name in worth}}
            gone |= set(lowest)
            now = now.after(drops(now, lowest))
        names = tuple(name for name in began if name in gone)
        names, refused = self._built(state, began, names, criterion)
        choices = tuple(_choice(name, names, scores, criterion) for name in began)
        return Proposal(drops(state, names), choices, refused)

    def _parts(self, count: int) -> tuple[int, ...]:
        """How many go in each shot, the larger parts first."""
        shots = count if self.shots == "each" else min(self.shots, count)
        return tuple(len(part) for part in np.array_split(np.arange(count), shots))

    def _lowest(
        self, now: State, count: int, criterion: BlockCriterion
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """Scores of what is left (of runs by their first Block), and the `count` ones to drop."""
        shown = self._candidates(now)
        run = count + self.spared if self.contiguous else 1
        order, scores = _ranked(criterion, shown, run)
        needed = 1 if self.contiguous else count
        if len(order) < needed:
            raise InfeasibleError(
                f"{count} of {len(shown.blocks)} blocks should go{' in one run' if self.contiguous else ''}, "
                f"and only {len(order)} {'such runs' if self.contiguous else 'of them'} may",
                hint="keep more, select more, or let the criterion protect fewer",
            )
        first = self.spared if self.contiguous else 0
        places = [place for start in order[:needed] for place in range(start + first, start + run)]
        return scores, tuple(shown.blocks[place] for place in sorted(places))

    def _candidates(self, now: State) -> Candidates:
        left, whole = self._left(now), left_blocks(now, self.select)
        owners = _owners(left, self.select.on(now.graph))
        allowed = set(owners.values()) - (set() if self.contiguous else set(whole[: self.spared]))
        return Candidates(
            blocks=left,
            open=frozenset(place for place, name in enumerate(left) if name in allowed),
            params={name: params_below(now, name) for name in left},
            weights=now.weights,
            plan=now.plan,
            statistics=now.statistics,
            bench=now.trial,
            stack=whole,
        )

    def _built(
        self, state: State, began: Sequence[str], names: tuple[str, ...], criterion: BlockCriterion
    ) -> tuple[tuple[str, ...], tuple[Refused, ...]]:
        """`names`, or where no config builds what they leave, the lowest run of as many that one does."""
        reason = self._refusal(state, names)
        if reason is None:
            return names, ()
        if self.select.sublayer is not None:
            raise InfeasibleError(reason, hint="export: {layout: per_layer}, or padded")
        refused = (Refused(axis=", ".join(names), reason=reason),)
        alone = replace(self._candidates(state), blocks=tuple(began))
        order, _ = _ranked(criterion, alone, len(names))
        for start in (start for start in order if start >= self.spared):
            run = tuple(began[start : start + len(names)])
            if run != names and self._refusal(state, run) is None:
                return run, refused
        raise InfeasibleError(
            f"no config builds the model without {', '.join(names)}, nor without any run of {len(names)} "
            f"blocks that may go: {reason}",
            hint="another number of blocks, such as one period of the pattern, or a list of your own: drop",
        )

    def _refusal(self, state: State, names: Sequence[str]) -> str | None:
        return state.inexpressible(state.after(drops(state, names)).plan)


def _owners(left: Sequence[str], blocks: Sequence[str]) -> dict[str, str]:
    """For each of `blocks` that is left, or has one of its sublayers left, which of `left` that is."""
    found: dict[str, str] = {}
    for block in blocks:
        for name in left:
            if name == block or name.startswith(f"{block}."):
                found[block] = name
    return found


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
