"""Walk: run one Block of a model at a time on stored states, so that each Block is run once, not L times.

The states that enter the current Block are held for every batch; a pass runs what stands before the
Blocks (embeddings, masks, positions), steps over earlier Blocks, puts the stored state in, runs the Block
and stops. Two walks side by side, of the original and of a cut model, show where they part. A model whose
Blocks hand each other more than the residual stream is refused, by comparing with a whole run. States wait
where `keep` puts them.

Not here: what is measured on the way (`gap`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.calibrate.gather import model_inputs
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.ranks import Ranks
from surgeon.errors import SurgeonError

__all__ = ["Forward", "Keep", "Walk", "as_it_is"]

Forward = Callable[..., object]
"""Runs the module, or a masked view of it, on keyword inputs."""
Keep = Callable[[Tensor], Tensor]
"""Gives a tensor of the same elements, which may wait in a file until it is read."""

_TOLERANCE = 1e-3
"""Largest difference, relative to the largest state, that rounding may make between the two ways to run."""


def as_it_is(tensor: Tensor) -> Tensor:
    """Keep it in memory."""
    return tensor


class _Stop(Exception):
    """Raised in a hook to end a forward pass."""


@dataclass(frozen=True)
class _Shape:
    """How a Block takes the state (an argument's place or a keyword) and what else it returns."""

    place: int | str
    rest: tuple[object, ...] | None

    def entering(self, args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
        return args[self.place] if isinstance(self.place, int) else kwargs[self.place]

    def replaced(self, args: tuple, kwargs: dict[str, Any], state: Tensor) -> tuple[tuple, dict[str, Any]]:
        if isinstance(self.place, str):
            return args, {**kwargs, self.place: state}
        return (*args[: self.place], state, *args[self.place + 1 :]), kwargs

    def returned(self, state: Tensor) -> object:
        return state if self.rest is None else (state, *self.rest)


@dataclass(eq=False)
class Walk:
    """The states of one model before the current Block, for every batch of the samples.

    Of several `ranks` each has its batches; `samples` and predicted `tokens` are counted over all.
    """

    module: nn.Module
    blocks: Sequence[str]
    batches: tuple[Samples, ...]
    at: int = 0
    states: list[Tensor] = field(default_factory=list)
    shapes: list[_Shape] = field(default_factory=list)
    reference: list[Tensor] = field(default_factory=list)
    keep: Keep = as_it_is
    samples: int = 0
    tokens: int = 0
    ranks: Ranks = field(default_factory=Ranks)

    @classmethod
    def begin(
        cls,
        module: nn.Module,
        blocks: Sequence[str],
        samples: Samples,
        batch_size: int,
        forward: Forward,
        keep: Keep = as_it_is,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ) -> Walk:
        """Before the first Block, with the batches of this one of `ranks`.

        Raises:
            SurgeonError: a Block takes no state of the shape that it returns.
        """
        every = tuple(samples.unpadded(batch_size))
        totals = {"samples": sum(map(len, every)), "tokens": sum(batch.predicted for batch in every)}
        walk = cls(module, tuple(blocks), ranks.share(every), keep=keep, ranks=ranks, **totals)
        walk._learn(forward)
        for batch in walk.batches:
            walk.states.append(keep(walk._entering_first(forward, batch)))
        return walk

    def beside(self, forward: Forward) -> Walk:
        """A walk of another version of the same model, before its first Block."""
        other = replace(self, at=0, states=[], reference=[])
        other.states = [self.keep(other._entering_first(forward, batch)) for batch in self.batches]
        return other

    def run(self, forward: Forward, number: int) -> Tensor:
        """What the current Block gives for batch `number`; hooks of the caller see it run."""
        return self._run(forward, self.batches[number], self.states[number])

    def taped(self, forward: Forward, number: int, state: Tensor) -> Tensor:
        """What the current Block makes of `state`, batch `number`, with the way back to leaves."""
        return self._run(forward, self.batches[number], state, taped=True)

    def finish(self, forward: Forward, number: int, state: Tensor) -> object:
        """What the model returns for batch `number` where its last Block hands on `state`; with the way back.

        The Walk stands behind the last Block.
        """
        shape = self.shapes[-1]

        def before(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            return shape.replaced(args, kwargs, state)

        hook = self.module.get_submodule(self.blocks[-1]).register_forward_pre_hook(before, with_kwargs=True)
        with self._stepped_over():
            return self._stopped(forward, self.batches[number], [hook], taped=True)

    def call(self, forward: Forward, number: int) -> tuple[tuple, dict[str, Any]]:
        """How the model calls the current Block for batch `number`: arguments and keywords."""
        shape, found = self.shapes[self.at], []

        def before(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            found.append(shape.replaced(args, kwargs, self.states[number]))
            raise _Stop

        part = self.module.get_submodule(self.blocks[self.at])
        with self._stepped_over():
            hook = part.register_forward_pre_hook(before, with_kwargs=True)
            self._stopped(forward, self.batches[number], [hook])
        return found[0]

    def advance(self, forward: Forward) -> None:
        """Take the current Block.

        Raises:
            SurgeonError: the states are not those of a whole run.
        """
        self.go_on([self.keep(self.run(forward, number)) for number in range(len(self.batches))])

    def go_on(self, states: list[Tensor]) -> None:
        """Take the current Block, which gave `states`, batch by batch.

        Raises:
            SurgeonError: the states are not those of a whole run.
        """
        self.states = states
        self.at += 1
        if self.at < len(self.reference):
            self._compare(self.states[0], self.reference[self.at])
            self.reference[self.at] = self.states[0].new_zeros(0)

    def state(self, name: str) -> dict[str, dict[str, Tensor]]:
        """The states, as a piece of that name to put aside."""
        return {f"{name}/{self.at}": {str(number): state for number, state in enumerate(self.states)}}

    def take_up(self, name: str, pieces: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from the piece of that name, if there is one."""
        for piece, states in pieces.items():
            if piece.startswith(f"{name}/"):
                self.at = int(piece.rpartition("/")[2])
                self.states = [states[str(number)] for number in range(len(states))]

    def step_over(self) -> None:
        """Leave the current Block out: its states are those of the next one."""
        self.at += 1

    def _compare(self, got: Tensor, want: Tensor) -> None:
        apart = float((got - want).abs().max() / want.abs().max().clamp(min=torch.finfo(want.dtype).tiny))
        if not apart <= _TOLERANCE:
            raise SurgeonError(
                f"run alone, block '{self.blocks[self.at - 1]}' gives other states than in the whole model "
                f"({apart:.2g} of the largest): the blocks hand each other more than the residual stream",
                hint="repair: {repair: refit, target: layer}",
            )

    def _learn(self, forward: Forward) -> None:
        """The first batch through all Blocks: how they take and return the state, and the states."""
        parts = [self.module.get_submodule(name) for name in self.blocks]

        def after(block: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            rest = tuple(output[1:]) if isinstance(output, tuple) else None
            state = output[0] if isinstance(output, tuple) else output
            given = [*enumerate(args), *kwargs.items()]
            places = [
                p
                for p, t in given
                if isinstance(t, Tensor) and t.shape == state.shape and t.is_floating_point()
            ]
            if not places:
                raise SurgeonError(
                    f"{type(block).__name__} takes no tensor of the shape that it returns, so it "
                    "cannot be run alone",
                    hint="repair: {repair: refit, target: layer}",
                )
            self.shapes.append(_Shape(places[0], rest))
            self.reference.append(self.keep(self.shapes[-1].entering(args, kwargs).detach()))
            if len(self.shapes) == len(parts):
                raise _Stop

        hooks = [part.register_forward_hook(after, with_kwargs=True) for part in parts]
        self._stopped(forward, self.batches[0], hooks)

    def _entering_first(self, forward: Forward, batch: Samples) -> Tensor:
        found: list[Tensor] = []

        def before(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            found.append(self.shapes[0].entering(args, kwargs).detach())
            raise _Stop

        first = self.module.get_submodule(self.blocks[0])
        self._stopped(forward, batch, [first.register_forward_pre_hook(before, with_kwargs=True)])
        return found[0]

    def _run(self, forward: Forward, batch: Samples, state: Tensor, taped: bool = False) -> Tensor:
        shape, found = self.shapes[self.at], []

        def before(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            return shape.replaced(args, kwargs, state)

        def after(block: nn.Module, args: tuple, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)
            raise _Stop

        part = self.module.get_submodule(self.blocks[self.at])
        hooks = [part.register_forward_pre_hook(before, with_kwargs=True), part.register_forward_hook(after)]
        with self._stepped_over():
            self._stopped(forward, batch, hooks, taped)
        return found[0] if taped else found[0].detach()

    def _stopped(self, forward: Forward, batch: Samples, hooks: list[Any], taped: bool = False) -> object:
        """Run until a hook says stop; what the model returns where none does."""
        with ExitStack() as stack, torch.set_grad_enabled(taped):
            for hook in hooks:
                stack.callback(hook.remove)
            stack.enter_context(_evaluating(self.module))
            try:
                return forward(**model_inputs(self.module, batch))
            except _Stop:
                return None

    @contextmanager
    def _stepped_over(self) -> Iterator[None]:
        """Blocks before the current one return the state that they are given, and compute nothing."""
        parts = [self.module.get_submodule(name) for name in self.blocks[: self.at]]
        try:
            for part, shape in zip(parts, self.shapes, strict=False):
                part.forward = _identity(shape)  # type: ignore[method-assign]
            yield
        finally:
            for part in parts:
                del part.forward


def _identity(shape: _Shape) -> Callable[..., object]:
    def forward(*args: Any, **kwargs: Any) -> object:
        return shape.returned(shape.entering(args, kwargs))

    return forward


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = {part: part.training for part in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for part, mode in training.items():
            part.training = mode
