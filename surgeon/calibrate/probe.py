"""Probe: a whole run of a few tokens, which tells how Blocks are called and what each is to give alone.

It reads every weight once and computes next to nothing; alongside a Walk, which waits for it at every Block,
it reads nothing more than that does. Blocks that return more tensors than the state may hand them on, in the
length of the text that they read; there, a whole batch is run.

Not here: running Blocks one at a time (`walk`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.calibrate.gather import model_inputs
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.turns import Turns
from surgeon.errors import SurgeonError
from surgeon.rebuild.placed import placed

__all__ = ["TOKENS", "Apart", "Forward", "Keep", "Probe", "StateShape", "Stop", "apart", "stopped"]

Forward = Callable[..., object]
"""Runs the module, or a masked view of it, on keyword inputs."""
Keep = Callable[[Tensor], Tensor]
"""Gives a tensor of the same elements, which may wait in a file until it is read."""

TOKENS = 16
"""Of the first sample, where no more are needed."""
_TOLERANCE = 1e-3
"""Largest difference, relative to the largest state, that rounding may make between the two ways to run."""


class Stop(Exception):
    """Raised in a hook to end a forward pass."""


@dataclass(frozen=True)
class StateShape:
    """How a Block takes the state (an argument's place or a keyword) and what else it returns."""

    place: int | str
    rest: tuple[object, ...] | None

    @property
    def more(self) -> bool:
        """Whether a Block returns more tensors than the state."""
        return any(isinstance(one, Tensor) for one in self.rest or ())

    def entering(self, args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
        """The state among the arguments of a call."""
        return args[self.place] if isinstance(self.place, int) else kwargs[self.place]

    def replaced(self, args: tuple, kwargs: dict[str, Any], state: Tensor) -> tuple[tuple, dict[str, Any]]:
        """The arguments of a call with another state."""
        if isinstance(self.place, str):
            return args, {**kwargs, self.place: state}
        return (*args[: self.place], state, *args[self.place + 1 :]), kwargs

    def returned(self, state: Tensor) -> object:
        """What a Block returns that hands on `state`."""
        return state if self.rest is None else (state, *self.rest)


@dataclass(eq=False)
class Probe:
    """What was seen so far in a whole run over `samples`: of each Block the shape, and the states.

    `states` stand before each Block and, the last, behind all.
    """

    module: nn.Module
    blocks: Sequence[str]
    samples: Samples
    forward: Forward
    keep: Keep
    shapes: list[StateShape] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    turns: Turns | None = None
    whole: Samples | None = None

    @classmethod
    def of(
        cls, module: nn.Module, blocks: Sequence[str], batch: Samples, forward: Forward, keep: Keep
    ) -> Probe:
        """Run a few tokens of `batch`, or all of it where Blocks return more tensors than the state.

        Raises:
            SurgeonError: a Block takes no state of the shape that it returns.
        """
        found = cls(module, tuple(blocks), _few(batch), forward, keep)
        found._run(lambda: None)
        if any(shape.more for shape in found.shapes):
            found._begin_anew(batch)
        return found

    @classmethod
    def alongside(
        cls, module: nn.Module, blocks: Sequence[str], batch: Samples, forward: Forward, keep: Keep
    ) -> Probe:
        """The same, but every Block is run when it is asked for, by `reach`; to be closed.

        Raises:
            SurgeonError: the first Block takes no state of the shape that it returns.
        """
        found = cls(module, tuple(blocks), _few(batch), forward, keep)
        found.turns = Turns(found._run)
        found.whole = batch
        return found

    def reach(self, at: int, tensors: Mapping[str, Tensor]) -> None:
        """Let the whole run go through the Block at `at`, with these tensors of the module in place.

        Raises:
            SurgeonError: a Block takes no state of the shape that it returns.
        """
        while self.turns is not None and len(self.shapes) <= at:
            try:
                with placed(self.module, tensors):
                    self.turns.go_on()
            except Exception:  # by itself, or as other runs left something in the module
                self._begin_anew(self.samples)
                return
            if self.turns.ended and len(self.shapes) < len(self.blocks):
                raise Apart(f"the model ends before block '{self.blocks[len(self.shapes)]}' is run")
            if self.shapes[-1].more and self.whole is not None:
                self._begin_anew(self.whole)

    def close(self) -> None:
        """End the whole run where it stands."""
        if self.turns is not None:
            self.turns.close()
            self.turns = None

    def _begin_anew(self, batch: Samples) -> None:
        self.close()
        self.samples, self.shapes, self.states = batch, [], []
        self._run(lambda: None)

    def _run(self, give: Callable[[], None]) -> None:
        """The whole run; `give` is called before every Block but the first."""
        shapes, states = self.shapes, self.states

        def before(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            if self._ours and shapes:
                place = _place(block, args, kwargs, states[-1])
                states.append(self.keep(StateShape(place, None).entering(args, kwargs).detach()))
                give()

        def after(block: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            if not self._ours:
                return
            shapes.append(_shape(block, args, kwargs, output))
            if len(shapes) == 1:
                states.append(self.keep(shapes[0].entering(args, kwargs).detach()))
            if len(shapes) == len(self.blocks):
                states.append(self.keep((output[0] if isinstance(output, tuple) else output).detach()))
                raise Stop

        hooks = []
        for part in map(self.module.get_submodule, self.blocks):
            hooks.append(part.register_forward_pre_hook(before, with_kwargs=True))
            hooks.append(part.register_forward_hook(after, with_kwargs=True))
        stopped(self.module, self.forward, self.samples, hooks)

    @property
    def _ours(self) -> bool:
        """Whether it is this run that a hook sees, and not another one while this one waits."""
        return self.turns is None or self.turns.here

    def check(self, block: str, at: int, got: Tensor) -> None:
        """Compare what `block`, at place `at`, makes alone of its state here with the whole run.

        Raises:
            SurgeonError: they differ by more than rounding.
        """
        want = self.states[at + 1]
        error = float((got - want).abs().max() / want.abs().max().clamp(min=torch.finfo(want.dtype).tiny))
        if not error <= _TOLERANCE:
            what = f"run alone, block '{block}' gives other states than in the whole model"
            raise apart(what, f"{error:.2g} of the largest")


class Apart(SurgeonError):
    """A Block alone is not what it is in the whole model."""


def apart(what: str, how: object) -> Apart:
    """`what` is not as in the whole model, and how that shows."""
    said = f"{type(how).__name__}: {how}" if isinstance(how, Exception) else how
    return Apart(
        f"{what} ({said}): the blocks hand each other more than the residual stream",
        hint="do not stream; where it is a repair that runs blocks alone, {repair: refit, target: layer}",
    )


def stopped(
    module: nn.Module, forward: Forward, batch: Samples, hooks: Sequence[Any], taped: bool = False
) -> object:
    """Run until a hook says Stop, and take the hooks away; what the model returns where none does."""
    with ExitStack() as stack, torch.set_grad_enabled(taped):
        for hook in hooks:
            stack.callback(hook.remove)
        stack.enter_context(_evaluating(module))
        try:
            return forward(**model_inputs(module, batch))
        except Stop:
            return None


def _few(batch: Samples) -> Samples:
    """The first tokens of text of the first sample."""
    begin = int(batch.mask[0].nonzero()[0])
    part = slice(begin, begin + TOKENS)
    return Samples(batch.ids[:1, part], batch.mask[:1, part], batch.domains[:1])


def _shape(block: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> StateShape:
    rest = tuple(output[1:]) if isinstance(output, tuple) else None
    state = output[0] if isinstance(output, tuple) else output
    return StateShape(_place(block, args, kwargs, state), rest)


def _place(block: nn.Module, args: tuple, kwargs: dict[str, Any], state: Tensor) -> int | str:
    """Where among the arguments of a Block something like `state` is."""
    for place, given in (*enumerate(args), *kwargs.items()):
        if isinstance(given, Tensor) and given.shape == state.shape and given.is_floating_point():
            return place
    raise Apart(
        f"{type(block).__name__} takes no tensor of the shape that it returns, so it cannot be run alone",
        hint="repair: {repair: refit, target: layer}",
    )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = {part: part.training for part in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for part, mode in training.items():
            part.training = mode
