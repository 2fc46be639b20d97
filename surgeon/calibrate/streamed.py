"""Statistics of a model that does not fit: one Block's weights in memory, all samples through it, the next.

The module's weights are read at each use (`surgeon.rebuild.unread`); those of the Block that runs are read
once and held. Between Blocks the states of all samples wait where `keep` puts them, and a run that was killed
goes on at its Block. What a model does outside of its Blocks happens as always, with the weights that it
reads there. Not here: where weights come from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from torch import Tensor

from surgeon.calibrate.at_block import gather_at_block
from surgeon.calibrate.backward import Sweep, check_apart
from surgeon.calibrate.between import Comparisons
from surgeon.calibrate.loss_gradient import asked_for
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.probe import Apart
from surgeon.calibrate.ranks import Ranks
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Run, Statistic
from surgeon.calibrate.streams import check_streams
from surgeon.calibrate.taps import Taps
from surgeon.calibrate.unfinished import Unfinished
from surgeon.calibrate.walk import Keep, Walk, as_it_is
from surgeon.rebuild import MaskedView
from surgeon.rebuild.reading import Reading, computes_elsewhere

__all__ = ["gather_streamed"]


def gather_streamed(
    view: MaskedView,
    blocks: Sequence[str],
    dropped: Collection[str],
    samples: Samples,
    wanted: Collection[Statistic],
    *,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
    keep: Keep = as_it_is,
    unfinished: Unfinished | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ahead: bool | None = None,
) -> Statistics:
    """Measure `wanted` Block by Block; the loss is known after it where gradients are wanted.

    Args:
        view: the model, under a Plan.
        blocks: module paths of the Blocks, in the order in which they run.
        dropped: those that the Plan leaves out.
        samples: what is read.
        wanted: keys of what happens inside single Blocks and between them, and of gradients of their
            parameters.
        batch_size: samples at a time; Statistics that need single samples set it to 1.
        progress: told Blocks done and Blocks in all; a way back counts as well.
        keep: what becomes of states and results that have to wait.
        unfinished: where a run that was killed is taken up and put aside.
        ranks: the processes that share the samples; all end with the same. With a Statistic that cannot be
            shared out, or fewer batches than ranks, each runs all of them.
        ahead: the next Block's weights are read while one computes; None: where a device computes.

    Raises:
        SurgeonError: a Statistic needs more, lies outside of the Blocks, or the Blocks hand each other more
            than the residual stream.
    """
    keys = tuple(dict.fromkeys(wanted))
    check_streams(blocks, keys)
    single = any(key.per_sample for key in keys)
    held = {} if unfinished is None else unfinished.resume(keep)
    size = 1 if single else batch_size
    own = _sharing(view, keys, samples, size, ranks)
    walk = Walk.begin(view.module, tuple(blocks), samples, size, view.fixed(), keep, own, alongside=True)
    ahead = computes_elsewhere(view.module) if ahead is None else ahead
    way = _Way(view, walk, keys, frozenset(dropped), keep, progress, unfinished, held, ahead)
    with closing(walk), closing(way.reading):
        try:
            way.there()
            loss = way.back() if any(key.gradients for key in keys) else None
        except Apart:
            if unfinished is not None:
                unfinished.over()  # nothing can go on from it
            raise
    if unfinished is not None:
        unfinished.over()
    return Statistics(way.results(), len(samples), samples.predicted, loss)


def _sharing(
    view: MaskedView, keys: Collection[Statistic], samples: Samples, size: int, ranks: Ranks
) -> Ranks:
    """`ranks` where they can share the samples, else this process alone."""
    run = Run(view.module, len(samples), samples.predicted, Taps(view.module))
    whole = all(key.collector(run).state() is not None for key in keys)
    enough = sum(1 for _ in samples.unpadded(size)) >= ranks.size
    return ranks if whole and enough and not any(key.in_order for key in keys) else Ranks()


@dataclass(frozen=True)
class _There:
    """Block `at`, on the way through the model."""

    at: int


@dataclass(frozen=True)
class _Back:
    """Block `at`, on the way back."""

    at: int


@dataclass(eq=False)
class _Way:
    """The way through the Blocks and, for gradients, back; `held` are its pieces.

    ``states/N`` enter Block N, ``found/N`` and ``back/N`` were measured in it, ``between/N`` where states
    that enter it were compared with earlier ones, ``flowing/N`` are the gradients by the states that enter
    it, with the losses.
    """

    view: MaskedView
    walk: Walk
    keys: tuple[Statistic, ...]
    dropped: frozenset[str]
    keep: Keep
    progress: Callable[[int, int], None] | None
    unfinished: Unfinished | None
    held: dict[str, dict[str, Tensor]]
    ahead: bool

    def __post_init__(self) -> None:
        self.backward = tuple(key for key in self.keys if key.gradients)
        self.comparisons = Comparisons(self.keys, self.walk)
        self.forward = tuple(key for key in self.keys if not (key.gradients or key.between))
        self.left = [at for at, block in enumerate(self.walk.blocks) if block not in self.dropped]
        self.reading = Reading(self._described, self.ahead)

    def there(self) -> None:
        """Through all Blocks, from the last one that was reached."""
        walk, blocks = self.walk, self.walk.blocks
        if self._reached("flowing"):
            return
        first = max(self._reached("states"), default=0)
        if first == 0:
            self._hold("states/0", dict(enumerate(walk.states)))
        walk.at, walk.states = first, self._entering(first)
        for at in range(first, len(blocks)):
            if blocks[at] in self.dropped:
                walk.step_over()
                self.held[f"states/{at + 1}"] = self.held[f"states/{at}"]
            else:
                self._measure(at)
            if self.comparisons.reach:
                self.held[f"between/{at + 1}"] = self.comparisons.at(at + 1, self._entering)
            self._let_go(at + 1)
            self._done(at + 1)

    def _measure(self, at: int) -> None:
        """Block `at` and on; its weights are let go of before those of the next are read."""
        later = self.left[self.left.index(at) + 1 :]
        then = _There(later[0]) if later else _Back(at) if self.backward else None
        forward = self.view.holding(self.reading.at(_There(at), then), self.walk.blocks)
        self.walk.check(forward)
        found = gather_at_block(self.walk, forward, self.forward)
        self._measured(f"found/{at}", found.statistics.results)
        self._hold(f"states/{at + 1}", dict(enumerate(found.states)))
        self.walk.go_on(self._entering(at + 1))

    def _let_go(self, place: int) -> None:
        """Of states that neither a way back nor a comparison behind Block `place` asks for."""
        first = place + 1 - max(1, self.comparisons.reach)
        for earlier in self._reached("states") if not self.backward else ():
            if earlier < first:
                del self.held[f"states/{earlier}"]

    def back(self) -> float:
        """From the loss, or the last Block that was reached, back to the first; the loss."""
        walk, blocks = self.walk, self.walk.blocks
        walk.probe.reach(len(blocks) - 1, {})
        params = asked_for(self.backward) or frozenset()
        check_apart(self.view, blocks, params)
        sweep, reached = Sweep(self.view, walk, self.backward, params), self._reached("flowing")
        if reached:
            sweep.take_up(self.held[f"flowing/{reached[0]}"])
        else:
            sweep.begin()
            del self.held[f"states/{len(blocks)}"]
        for at in reversed(range(reached[0] if reached else len(blocks))):
            if at in self.left:
                then = next((_Back(earlier) for earlier in reversed(self.left) if earlier < at), None)
                own = self.reading.at(_Back(at), then)
                self._measured(f"back/{at}", sweep.back(at, self._entering(at), own))
                del own
            self.held.pop(f"flowing/{at + 1}", None)
            del self.held[f"states/{at}"]
            self.held[f"flowing/{at}"] = sweep.state()
            self._done(2 * len(blocks) - at)
        return sweep.loss

    def _described(self, place: _There | _Back) -> dict[str, Tensor]:
        """A Block's tensors: in force, or, where gradients are taken of them, its own."""
        block = self.walk.blocks[place.at]
        return self.view.inside(block) if isinstance(place, _There) else self.view.own(block)

    def results(self) -> dict[Statistic, dict[str, Tensor]]:
        """All that was measured."""
        found: dict[Statistic, dict[str, Tensor]] = {key: {} for key in self.keys}
        for sort, keys in (("found", self.forward), ("back", self.backward)):
            for at in self._reached(sort):
                for name, tensor in self.held[f"{sort}/{at}"].items():
                    place, _, param = name.partition("/")
                    found[keys[int(place)]][param] = tensor
        compared = [self.held[f"between/{place}"] for place in self._reached("between")]
        return found | self.comparisons.results(compared)

    def _reached(self, sort: str) -> tuple[int, ...]:
        return tuple(sorted(int(n.rpartition("/")[2]) for n in self.held if n.startswith(f"{sort}/")))

    def _entering(self, place: int) -> list[Tensor]:
        """The states that enter Block `place`, batch by batch."""
        held = self.held[f"states/{place}"]
        return [held[str(number)] for number in range(len(held))]

    def _hold(self, piece: str, tensors: Mapping[int, Tensor]) -> None:
        self.held[piece] = {str(number): self.keep(tensor) for number, tensor in tensors.items()}

    def _measured(self, piece: str, results: Mapping[Statistic, Mapping[str, Tensor]]) -> None:
        self.held[piece] = {
            f"{place}/{name}": self.keep(tensor)
            for place, found in enumerate(results.values())
            for name, tensor in found.items()
        }

    def _done(self, steps: int) -> None:
        if self.unfinished is not None:
            self.unfinished.put_aside(self.held)
        if self.progress is not None:
            self.progress(steps, len(self.walk.blocks) * (2 if self.backward else 1))
