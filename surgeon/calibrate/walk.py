"""Walk: run one Block of a model at a time on stored states, so that each Block is run once, not L times.

The states that enter the current Block are held for every batch; a pass runs what stands before the
Blocks (embeddings, masks, positions), steps over earlier Blocks, puts the stored state in, runs the Block
and stops. Two walks side by side, of the original and of a cut model, show where they part. A model whose
Blocks hand each other more than the residual stream is refused, by comparing with a whole run of a few
tokens. States wait where `keep` puts them.

Not here: what is measured on the way (`gap`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from surgeon.calibrate.packing import Samples
from surgeon.calibrate.probe import Forward, Keep, Probe, StateShape, Stop, apart, stopped
from surgeon.calibrate.ranks import Ranks
from surgeon.rebuild import Fixed

__all__ = ["Forward", "Keep", "Walk", "as_it_is"]


def as_it_is(tensor: Tensor) -> Tensor:
    """Keep it in memory."""
    return tensor


@dataclass(eq=False)
class Walk:
    """The states of one model before the current Block, for every batch of the samples.

    Of several `ranks` each has its batches; `samples` and predicted `tokens` are counted over all. Blocks at
    `unchecked` places are still to be compared with the probe.
    """

    module: nn.Module
    blocks: Sequence[str]
    batches: tuple[Samples, ...]
    probe: Probe
    unchecked: set[int]
    at: int = 0
    states: list[Tensor] = field(default_factory=list)
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
        alongside: bool = False,
    ) -> Walk:
        """Before the first Block, with the batches of this one of `ranks`.

        Args:
            module: the model.
            blocks: module paths, in the order in which they run.
            samples: what is read.
            batch_size: samples at a time.
            forward: runs all of the module, or of a masked view of it.
            keep: what becomes of states that wait.
            ranks: the processes that share the samples.
            alongside: the whole run that tells how Blocks are called goes on as the Walk does, with the
                weights that are held for it. Such a Walk is to be closed.

        Raises:
            SurgeonError: a Block takes no state of the shape that it returns.
        """
        every = tuple(samples.unpadded(batch_size))
        walk = cls.over(module, blocks, ranks.share(every), forward, keep, alongside)
        walk.ranks = ranks
        walk.samples, walk.tokens = sum(map(len, every)), sum(batch.predicted for batch in every)
        return walk

    @classmethod
    def over(
        cls,
        module: nn.Module,
        blocks: Sequence[str],
        batches: Sequence[Samples],
        forward: Forward,
        keep: Keep = as_it_is,
        alongside: bool = False,
    ) -> Walk:
        """`begin` with these `batches`, of this process alone.

        Raises:
            SurgeonError: a Block takes no state of the shape that it returns.
        """
        probe = (Probe.alongside if alongside else Probe.of)(module, blocks, batches[0], forward, keep)
        walk = cls(module, tuple(blocks), tuple(batches), probe, set(range(len(blocks))), keep=keep)
        walk.samples, walk.tokens = sum(map(len, batches)), sum(batch.predicted for batch in batches)
        try:
            probe.reach(0, {})
            for batch in walk.batches:
                walk.states.append(keep(walk._entering_first(forward, batch)))
        except BaseException:
            walk.close()
            raise
        return walk

    def beside(self, forward: Forward) -> Walk:
        """A walk of another version of the same model, before its first Block."""
        other = replace(self, at=0, states=[], unchecked=set())
        other.states = [self.keep(other._entering_first(forward, batch)) for batch in self.batches]
        return other

    def run(self, forward: Forward, number: int) -> Tensor:
        """What the current Block gives for batch `number`; hooks of the caller see it run."""
        return self._run(forward, self.batches[number], self.states[number])

    def taped(self, forward: Forward, number: int, state: Tensor) -> Tensor:
        """What the current Block makes of `state`, batch `number`, with the way back to leaves."""
        return self._run(forward, self.batches[number], state, taped=True)

    def finish(self, forward: Forward, batch: Samples, state: Tensor, taped: bool) -> object:
        """What the model returns for `batch` where its last Block gives `state`; `taped`: with the way back.

        The Walk stands behind the last Block.
        """
        shape = self.probe.shapes[-1]

        def before(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            return shape.replaced(args, kwargs, state)

        hook = self.module.get_submodule(self.blocks[-1]).register_forward_pre_hook(before, with_kwargs=True)
        with self._stepped_over():
            return stopped(self.module, forward, batch, [hook], taped)

    def call(self, forward: Forward, number: int) -> tuple[tuple, dict[str, Any]]:
        """How the model calls the current Block for batch `number`: arguments and keywords."""
        shape, found = self.probe.shapes[self.at], []

        def before(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            found.append(shape.replaced(args, kwargs, self.states[number]))
            raise Stop

        part = self.module.get_submodule(self.blocks[self.at])
        with self._stepped_over():
            hook = part.register_forward_pre_hook(before, with_kwargs=True)
            stopped(self.module, forward, self.batches[number], [hook])
        return found[0]

    def advance(self, forward: Forward) -> None:
        """Check and take the current Block.

        Raises:
            SurgeonError: run alone, it does not give what it gives in a whole run.
        """
        self.check(forward)
        self.go_on([self.keep(self.run(forward, number)) for number in range(len(self.batches))])

    def go_on(self, states: list[Tensor]) -> None:
        """Take the current Block, which gave `states`, batch by batch."""
        self.states = states
        self.at += 1

    def check(self, forward: Forward) -> None:
        """Compare the current Block with the probe, once; a walk beside another has nothing to compare.

        Raises:
            SurgeonError: run alone, it does not give what it gives in a whole run.
        """
        self.probe.reach(self.at, forward.tensors if isinstance(forward, Fixed) else {})
        if self.at in self.unchecked:
            self.unchecked.remove(self.at)
            try:
                got = self._run(forward, self.probe.samples, self.probe.states[self.at])
            except Exception as error:
                raise apart(f"run alone, block '{self.blocks[self.at]}' fails", error) from error
            self.probe.check(self.blocks[self.at], self.at, got)

    def close(self) -> None:
        """End what runs alongside."""
        self.probe.close()

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

    def _entering_first(self, forward: Forward, batch: Samples) -> Tensor:
        found: list[Tensor] = []

        def before(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            found.append(self.probe.shapes[0].entering(args, kwargs).detach())
            raise Stop

        first = self.module.get_submodule(self.blocks[0])
        stopped(self.module, forward, batch, [first.register_forward_pre_hook(before, with_kwargs=True)])
        return found[0]

    def _run(self, forward: Forward, batch: Samples, state: Tensor, taped: bool = False) -> Tensor:
        shape, found = self.probe.shapes[self.at], []

        def before(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            return shape.replaced(args, kwargs, state)

        def after(block: nn.Module, args: tuple, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)
            raise Stop

        part = self.module.get_submodule(self.blocks[self.at])
        hooks = [part.register_forward_pre_hook(before, with_kwargs=True), part.register_forward_hook(after)]
        with self._stepped_over():
            stopped(self.module, forward, batch, hooks, taped)
        return found[0] if taped else found[0].detach()

    @contextmanager
    def _stepped_over(self) -> Iterator[None]:
        """Blocks before the current one return the state that they are given, and compute nothing."""
        parts = [self.module.get_submodule(name) for name in self.blocks[: self.at]]
        try:
            for part, shape in zip(parts, self.probe.shapes, strict=False):
                part.forward = _identity(shape)  # type: ignore[method-assign]
            yield
        finally:
            for part in parts:
                del part.forward


def _identity(shape: StateShape) -> Callable[..., object]:
    def forward(*args: Any, **kwargs: Any) -> object:
        return shape.returned(shape.entering(args, kwargs))

    return forward
