"""One run over calibration samples that collects every Statistic asked for.

The loss is the mean next-token cross-entropy with the inputs as labels, computed in float32 or wider;
padded positions neither predict nor are predicted, and are cut off before the model runs. The module is
left as it was: mode, gradients and requires_grad flags. Not here: what is accumulated (one file a
Statistic), where samples come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial as partial_call
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.calibrate.loss_gradient import asked_for
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.ranks import Ranks
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic
from surgeon.calibrate.store import PartialRun
from surgeon.calibrate.taps import Taps
from surgeon.errors import InputError, SurgeonError
from surgeon.rebuild.execution import grouped_products_fit
from surgeon.rebuild.forward import call_with

__all__ = [
    "Progress",
    "attached",
    "check_gradients",
    "finite_loss",
    "gather",
    "joined",
    "model_inputs",
    "next_token_loss",
]

Progress = Callable[[int, int], None]
"""Called with the samples done and the samples in all."""


def gather(
    module: nn.Module,
    samples: Samples,
    wanted: Collection[Statistic],
    *,
    view: Callable[..., Any] | None = None,
    batch_size: int = 1,
    progress: Progress | None = None,
    partial: PartialRun | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
) -> Statistics:
    """Measure `wanted` on `samples`, all in one run.

    Args:
        module: the model; gradients are those of its own parameters.
        samples: what is read, in order.
        wanted: keys of the Statistics; each is measured once.
        view: called in place of `module`, with the same arguments: a masked view of it.
        batch_size: samples at a time; a Statistic that needs single samples sets it to 1.
        progress: told after each batch.
        partial: where an unfinished run is taken up and put aside; a run with a Statistic that cannot be
            put aside starts over.
        ranks: the processes that share the samples; all end with the same. With a Statistic that cannot
            be shared out, each reads all of them.

    Raises:
        InputError: nothing in `samples` is predicted.
        SurgeonError: a loss or a gradient is not finite.
    """
    keys = tuple(dict.fromkeys(wanted))
    if not keys:
        return Statistics()
    run = Run(module, len(samples), samples.predicted, Taps(module))
    if run.tokens == 0:
        raise InputError("the calibration samples hold no token to predict", hint="longer samples")
    collectors = tuple(key.collector(run) for key in keys)
    whole = all(collector.state() is not None for collector in collectors)
    shared = whole and ranks.size > 1 and not any(key.in_order for key in keys)
    batches = tuple(samples.unpadded(1 if any(key.per_sample for key in keys) else batch_size))
    reading = _Reading(
        run, collectors, ranks.share(batches) if shared else batches, partial if whole else None
    )
    plain = module if grouped_products_fit(module) else partial_call(call_with, module, {})
    call = _Call(module, view or plain, any(key.gradients for key in keys), asked_for(keys))
    loss = reading.run_all(call, progress)
    if shared:
        loss, collectors = ranks.total(loss), joined(keys, collectors, run, ranks)
    results = {key: collector.result() for key, collector in zip(keys, collectors, strict=True)}
    return Statistics(results, run.samples, run.tokens, loss)


@dataclass(frozen=True, eq=False)
class _Reading:
    """One process's way through its batches."""

    run: Run
    collectors: tuple[Collector, ...]
    batches: tuple[Samples, ...]
    partial: PartialRun | None

    def run_all(self, call: _Call, progress: Progress | None) -> float:
        """Send the batches through, from where an earlier run was put aside; their share of the loss."""
        begin, loss = (0, 0.0) if self.partial is None else self.partial.resume(self.collectors)
        done, total = sum(map(len, self.batches[:begin])), sum(map(len, self.batches))
        with call.prepared():
            for place, batch in enumerate(self.batches[begin:], begin + 1):
                self.run.taps.begin(batch)
                for collector in self.collectors:
                    collector.begin(batch)
                with attached(self.collectors, self.run.taps):
                    seen = call.observe(batch, done)
                for collector in self.collectors:
                    collector.observe(seen)
                loss, done = loss + seen.loss * seen.tokens / self.run.tokens, done + len(batch)
                if self.partial is not None:
                    self.partial.put_aside(self.collectors, place, loss)
                if progress is not None:
                    progress(done, total)
        return loss


def joined(
    keys: Sequence[Statistic], collectors: Sequence[Collector], run: Run, ranks: Ranks
) -> tuple[Collector, ...]:
    """Collectors of what all ranks have seen."""
    fresh = Run(run.module, run.samples, run.tokens, Taps(run.module))
    joined = tuple(key.collector(fresh) for key in keys)
    for whole, own in zip(joined, collectors, strict=True):
        for state in ranks.each(own.state() or {}):
            whole.merge(state)
    return joined


def next_token_loss(logits: Tensor, batch: Samples) -> Tensor:
    """Mean cross-entropy of the predicted tokens; `logits` [samples, seq_len, vocab]."""
    chosen = batch.targets.to(logits.device)
    scores = logits[:, :-1][chosen]
    labels = batch.ids.to(logits.device)[:, 1:][chosen]
    wide = scores if scores.dtype == torch.float64 else scores.float()
    return nn.functional.cross_entropy(wide, labels)


def model_inputs(module: nn.Module, batch: Samples) -> dict[str, Any]:
    """Keyword arguments of one forward pass over `batch`, on the device of `module`."""
    device = next(module.parameters()).device
    inputs: dict[str, Any] = {"input_ids": batch.ids.to(device), "use_cache": False}
    if not bool(batch.mask.all()):
        inputs["attention_mask"] = batch.mask.to(device).long()
    return inputs


def finite_loss(loss: Tensor, where: str) -> float:
    """`loss` as a number.

    Raises:
        SurgeonError: it is not finite.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise SurgeonError(
            f"the loss on {where} is {value}",
            hint="check the weights for NaN, or load the model in float32: float16 overflows early",
        )
    return value


def check_gradients(gradients: Mapping[str, Tensor], where: str) -> None:
    """Refuse numbers that are not finite.

    Raises:
        SurgeonError: some are not.
    """
    broken = [name for name, grad in gradients.items() if not bool(torch.isfinite(grad).all())]
    if broken:
        raise SurgeonError(
            f"the gradient on {where} is not finite in {len(broken)} parameters (first: {broken[0]})",
            hint="load the model in float32: float16 overflows early",
        )


@dataclass(frozen=True, eq=False)
class _Call:
    """Sends batches through the model, backward too where gradients are asked for."""

    module: nn.Module
    view: Callable[..., Any]
    backward: bool
    params: frozenset[str] | None = None

    @property
    def learnt(self) -> Mapping[str, nn.Parameter]:
        """Parameters by name whose gradients are asked for."""
        return {
            name: parameter
            for name, parameter in self.module.named_parameters()
            if self.backward
            and parameter.is_floating_point()
            and (self.params is None or name in self.params)
        }

    def observe(self, batch: Samples, done: int) -> Observation:
        where = f"calibration samples {done} to {done + len(batch) - 1}"
        tokens = batch.predicted
        if tokens == 0:
            return Observation(batch, 0, 0.0, {})
        with torch.set_grad_enabled(self.backward):
            loss = next_token_loss(self.view(**model_inputs(self.module, batch)).logits, batch)
        value = finite_loss(loss, where)
        gradients = self._gradients(loss, where) if self.backward else {}
        return Observation(batch, tokens, value, gradients)

    def _gradients(self, loss: Tensor, where: str) -> Mapping[str, Tensor]:
        """Gradients by name; a parameter that the loss does not depend on has zeros."""
        named = self.learnt
        found = torch.autograd.grad(loss, tuple(named.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(p) if grad is None else grad
            for (name, p), grad in zip(named.items(), found, strict=True)
        }
        check_gradients(gradients, where)
        return gradients

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """The module in eval mode with gradients on for the time of the run, then as it was."""
        training = {part: part.training for part in self.module.modules()}
        flags = {p: p.requires_grad for p in self.module.parameters()}
        try:
            self.module.eval()
            learnt = set(self.learnt.values())
            for parameter in flags:
                if parameter.is_floating_point():
                    parameter.requires_grad_(parameter in learnt)
            yield
        finally:
            for part, mode in training.items():
                part.training = mode
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)


@contextmanager
def attached(collectors: Sequence[Collector], taps: Taps) -> Iterator[None]:
    """Hooks of all of them while the model runs; what they run it for themselves is seen by nobody."""
    with ExitStack() as stack:
        for source in (*collectors, taps):
            for handle in source.attach():
                stack.callback(handle.remove)
        yield
