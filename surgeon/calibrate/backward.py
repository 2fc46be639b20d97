"""Gradients of a model that does not fit: a sweep from the loss back, each Block computed once more.

The states before every Block were kept on the way there (`streamed`). Behind the last one the head and the
loss are computed, and what comes back is carried from Block to Block: one Block's weights, their gradients
and the sums over samples are in memory at a time. Not here: the way there, and what is summed (one
Statistic a file).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from surgeon.calibrate.gather import check_gradients, finite_loss, joined, next_token_loss
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.statistic import Observation, Run, Statistic
from surgeon.calibrate.taps import Taps
from surgeon.calibrate.walk import Forward, Walk
from surgeon.errors import SurgeonError
from surgeon.rebuild import MaskedView

__all__ = ["Sweep", "check_apart"]


@dataclass(eq=False)
class Sweep:
    """The gradients of each batch's loss by the states that leave the current Block.

    A batch in which nothing is predicted has none. `losses` are those of the batches.
    """

    view: MaskedView
    walk: Walk
    keys: tuple[Statistic, ...]
    params: frozenset[str]
    losses: list[float] = field(default_factory=list)
    flowing: list[Tensor | None] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Mean over all predicted tokens."""
        tokens = [batch.predicted for batch in self.walk.batches]
        own = sum(loss * count for loss, count in zip(self.losses, tokens, strict=True))
        return self.walk.ranks.total(own) / self.walk.tokens

    def begin(self) -> None:
        """Behind the last Block: the loss of every batch, and its gradient by the state.

        Raises:
            SurgeonError: a loss or a gradient is not finite.
        """
        walk = self.walk
        walk.at = len(walk.blocks)
        forward = self.view.fixed(walk.blocks, *self._behind())
        for number, batch in enumerate(walk.batches):
            found = self._lost(forward, number, batch) if batch.predicted else (0.0, None)
            self.losses.append(found[0])
            self.flowing.append(found[1])

    def _behind(self) -> tuple[str, ...]:
        """Paths of modules with tensors of their own that run behind the last Block, seen at the probe."""
        walk, found = self.walk, list[str]()
        inside = tuple(f"{block}." for block in walk.blocks)
        last = walk.module.get_submodule(walk.blocks[-1])
        with ExitStack() as hooks:
            hooks.callback(last.register_forward_hook(lambda *_: found.clear()).remove)
            for path, part in walk.module.named_modules():
                if not f"{path}.".startswith(inside) and any(True for _ in part.parameters(recurse=False)):
                    note = partial(_note, found, path)
                    hooks.callback(part.register_forward_pre_hook(note).remove)
            probe = walk.probe
            walk.finish(self.view.fixed(walk.blocks), probe.samples, probe.states[-1], taped=False)
        return tuple(found)

    def _lost(self, forward: Forward, number: int, batch: Samples) -> tuple[float, Tensor]:
        """The loss of a batch, and its gradient by the state behind the Blocks; one sample at a time."""
        loss, back = 0.0, []
        for sample, entering in zip(batch.batches(1), self.walk.states[number].split(1), strict=True):
            share, state = sample.predicted / batch.predicted, entering.detach().requires_grad_()
            output = self.walk.finish(forward, sample, state, taped=True)
            own = next_token_loss(output.logits, sample)  # type: ignore[attr-defined]
            loss += share * finite_loss(own, self._where(number))
            back.append(torch.autograd.grad(share * own, state)[0])
        return loss, torch.cat(back)

    def state(self) -> dict[str, Tensor]:
        """What flows back and the losses, by name."""
        flowing = {str(number): tensor for number, tensor in enumerate(self.flowing) if tensor is not None}
        return flowing | {"losses": torch.tensor(self.losses, dtype=torch.float64)}

    def take_up(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`, in the place of `begin`."""
        self.losses = state["losses"].tolist()
        self.flowing = [state.get(str(number)) for number in range(len(self.losses))]

    def back(
        self, at: int, states: Sequence[Tensor], own: Mapping[str, Tensor]
    ) -> Mapping[Statistic, Mapping[str, Tensor]]:
        """What is measured of the parameters of Block `at`, of its `own` tensors, which was given `states`.

        Raises:
            SurgeonError: a gradient is not finite.
        """
        walk = self.walk
        walk.at = at
        leaves, forward = self.view.learning(own, walk.blocks, self.params)
        run = Run(walk.module, walk.samples, walk.tokens, Taps(walk.module))
        collectors = tuple(key.collector(run) for key in self.keys)
        for number, batch in enumerate(walk.batches):
            flowing = self.flowing[number]
            if flowing is None:
                continue
            state = states[number].detach().requires_grad_()
            out = walk.taped(forward, number, state)
            before, *found = torch.autograd.grad(out, (state, *leaves.values()), flowing, allow_unused=True)
            self.flowing[number] = torch.zeros_like(state) if before is None else before
            gradients = {
                name: torch.zeros_like(leaf) if gradient is None else gradient
                for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
            }
            check_gradients(gradients, self._where(number))
            for collector in collectors:
                collector.observe(Observation(batch, batch.predicted, self.losses[number], gradients))
            del found, gradients, out, before  # or those of two samples would be held at once
        if walk.ranks.size > 1:
            collectors = joined(self.keys, collectors, run, walk.ranks)
        return {key: collector.result() for key, collector in zip(self.keys, collectors, strict=True)}

    def _where(self, number: int) -> str:
        done = sum(map(len, self.walk.batches[:number]))
        return f"calibration samples {done} to {done + len(self.walk.batches[number]) - 1}"


def _note(found: list[str], path: str, *_: object) -> None:
    found.append(path)


def check_apart(view: MaskedView, blocks: Collection[str], params: Collection[str]) -> None:
    """Refuse parameters that several Blocks share: their gradient is a sum over Blocks.

    Raises:
        SurgeonError: there are such.
    """
    owners: dict[int, tuple[str, str]] = {}
    for name, parameter in view.module.named_parameters(remove_duplicate=False):
        block = next((b for b in blocks if name.startswith(f"{b}.")), "")
        first, known = owners.setdefault(id(parameter), (name, block))
        if known != block and {first, name} & set(params):
            raise SurgeonError(
                f"the gradient of '{first}' cannot be streamed: '{name}' is the same tensor, "
                "and lies elsewhere",
                hint="do not stream, or select other axes",
            )
