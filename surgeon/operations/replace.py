"""Operation ``replace``: runs of Blocks become one Block each, trained to give what the run gave.

Not here: which runs (`choosing`), the training itself (`surgeon.calibrate.training`), and runs that become
a linear map (`linear_run`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as replaced
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from surgeon.calibrate.training import Lesson, Schedule, Trained, divided, train
from surgeon.errors import InfeasibleError
from surgeon.graph.strict import Strict
from surgeon.operations.bridging import gaps_of
from surgeon.operations.choosing import BlockChoice
from surgeon.operations.linear_run import folded
from surgeon.operations.mending import bridged
from surgeon.operations.operation import Proposal, operations
from surgeon.operations.stack_state import block_params
from surgeon.operations.state import State
from surgeon.operations.walks import Walks
from surgeon.plan import Assign

__all__ = ["Replace", "Training"]


class Training(Strict):
    """How a Block learns its run.

    YAML::

        training: {epochs: 8, rate: 0.001}
    """

    epochs: Annotated[int, Field(ge=1)] = 8
    """Times over the calibration text, at most."""
    rate: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate at the start; it falls to zero by a cosine."""
    decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Samples a step."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the samples that says when to stop."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Epochs without gain on them before it stops."""
    seed: int = 0
    """Orders the samples."""

    def schedule(self, batches: int) -> Schedule:
        """For as many batches an epoch."""
        steps = self.epochs * batches
        return Schedule(steps, self.rate, batches, self.patience, self.decay, self.seed)


@operations.register("replace")
class Replace(BlockChoice):
    """LLM-Streamline (Chen et al. 2024, arXiv 2403.19135): a run of n+1 Blocks becomes one.

    The Block starts from the first of the run and learns to map the run's input to its output: mean squared
    error on the calibration text's states. The paper takes one run, ``contiguous: true``; several short
    ones, each behind the Block that it folds into, cost less. They are trained from the front, each on the
    states of the model as it is by then, toward the original's.

    ``replace: linear`` puts a least-squares map in the place of a run, without any Block: exact only where
    the run starts the Stack behind a plain embedding, which takes the map in; refused elsewhere.

    YAML::

        - op: replace
          keep: {fraction: 0.75}
          criterion: perplexity
          shots: each
          training: {epochs: 8, rate: 0.001}
    """

    spared: ClassVar[int] = 1

    op: Literal["replace"] = "replace"
    replace: Literal["layer", "linear"] = "layer"
    """What takes the place of a run."""
    training: Training = Training()
    """How a Block learns; not for ``linear``."""

    @model_validator(mode="after")
    def _whole_blocks(self) -> Self:
        if self.select.sublayer is not None:
            raise ValueError("replace works on whole blocks; leave sublayer out")
        if self.replace == "linear" and self.drop is None:
            raise ValueError("replace: linear takes a list, drop: the first blocks of the stack")
        return self

    @property
    def reads_weights(self) -> bool:
        """It trains them."""
        return True

    def propose(self, state: State) -> Proposal:
        """A DropBlock for every Block but the first of each run, and new tensors for that one."""
        if state.plan.kept():
            raise InfeasibleError(
                "replace trains whole blocks, and an earlier step has cut into their widths",
                hint="put replace before steps that remove",
            )
        cut = self.cut(state)
        if not cut.edits:
            return cut
        learnt = folded(state, cut, self.select) if self.replace == "linear" else self._trained(state, cut)
        after = state.after((*cut.edits, *learnt.edits), dict(learnt.values))
        mended = bridged(self.repair, self.select, state, after)
        return replaced(
            cut,
            edits=(*cut.edits, *learnt.edits, *mended.edits),
            values={**learnt.values, **mended.values},
            notes=(*cut.notes, *learnt.notes, *mended.notes),
        )

    def _trained(self, state: State, cut: Proposal) -> Proposal:
        """From the front, each Block before a gap."""
        after = state.after(cut.edits)
        gaps = gaps_of(self.select, state, after)
        if min(gaps) < 0:
            raise InfeasibleError(
                "the first block of the stack has none before it that could take its place",
                hint="leave it out of drop or select, or drop_blocks",
            )
        blocks = tuple(block.name for block in self.select.stack_of(state.graph).blocks)
        tokens = self.training.batch * state.trial().samples.ids.shape[1]
        walks = Walks.begin(after, after.plan, tokens, blocks)
        edits, values, notes = [], {}, []
        for place, end in sorted(gaps.items()):
            name = walks.blocks[place]
            walks.advance_to(name)
            fitted, epochs = self._fit(state, walks, name, end)
            new = _in_dtype({f"{name}.{tail}": tensor for tail, tensor in fitted.tensors.items()}, state)
            walks.put(new)
            args = {"run": list(walks.blocks[place : end + 1]), **self.training.model_dump(mode="json")}
            edits += [Assign(param, "replace.layer", args, state.step) for param in new]
            values |= new
            notes.append(
                f"{name} learnt {end - place + 1} blocks: held-out error {fitted.before:.4g} to "
                f"{fitted.after:.4g} of the target after {epochs} epochs"
            )
        return Proposal(tuple(edits), notes=tuple(notes), values=values)

    def _fit(self, state: State, walks: Walks, name: str, end: int) -> tuple[Trained, int]:
        """New tensors of a Block, and the epochs that they took."""
        walk, forward = walks.cut()
        inside = _below(name, forward.tensors)
        trained = [param.removeprefix(f"{name}.") for param in block_params(state.graph, name)]
        block = walk.module.get_submodule(name)
        own = dict(block.named_parameters(remove_duplicate=False))
        start = {t: inside.get(t, own[t]) for t in trained if own[t].is_floating_point()}
        fixed = {tail: tensor for tail, tensor in inside.items() if tail not in start}
        lessons = [
            Lesson(block, *walk.call(forward, number), target, fixed)
            for number, target in enumerate(walks.original_behind(end))
        ]
        used, held = divided(lessons, self.training.held_out, self.training.seed)
        schedule = self.training.schedule(len(used))
        fitted = train(
            used,
            held,
            start,
            schedule,
            lambda done: walks.bench.told(f"train {name}", done, schedule.steps),
        )
        return fitted, fitted.steps // len(used)


def _in_dtype(values: dict[str, Tensor], state: State) -> dict[str, Tensor]:
    """The values as the checkpoint will hold them: what comes after is measured on these."""
    return {name: value.to(state.weights.get(name).dtype) for name, value in values.items()}


def _below(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    head = f"{name}."
    return {key.removeprefix(head): tensor for key, tensor in tensors.items() if key.startswith(head)}
