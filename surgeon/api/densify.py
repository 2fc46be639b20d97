"""`densify`: a mixture of experts becomes a plain model, each mixture one feed-forward sublayer.

A change of class is no cut, so no plan says it: it is a verb of its own, and what it writes is an ordinary
checkpoint that any recipe can go on from. Not here: weights and config (`surgeon.rebuild.densify`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from surgeon.api.progress import Progress, silent
from surgeon.api.reload import check_reload
from surgeon.api.subject import Subject
from surgeon.api.texts import Text, drawn_texts
from surgeon.calibrate import Samples, Statistic, gather
from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.criteria.experts import load_of
from surgeon.errors import InfeasibleError
from surgeon.graph import Graph, Group
from surgeon.io import bytes_needed, check_output, publishing, write_checkpoint
from surgeon.rebuild import skeleton
from surgeon.rebuild.dense_config import Mixtures, dense_config
from surgeon.rebuild.densify import Fixed, densified, inner_of, plain_mixture
from surgeon.rebuild.forward import EXACT, call_with
from surgeon.recipe import Calibration
from surgeon.recipe.texts import TextSource
from surgeon.trace import trace_module

__all__ = ["Densified", "densify"]


@dataclass(frozen=True)
class Densified:
    """What became of every mixture, and what was checked, in words."""

    model_type: str
    parameters: int
    before: int
    layers: tuple[Fixed, ...]
    checks: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def densify(
    model: str | Path,
    out: str | Path,
    *,
    texts: Sequence[Text],
    experts: int = 1,
    to: str | None = None,
    samples: int = 128,
    seq_len: int = 256,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Densified:
    """Write `model` with every mixture as one sublayer of its most used experts' channels, side by side.

    Gates are fixed: each kept expert has its share of the gates that all of the kept ones get on the text,
    of the mean sum of gates of a token. The result is proven equal to the mixture under that routing; with
    one expert and gates that add up to one, that is the mixture of that expert alone.

    Args:
        model: checkpoint folder or hub id.
        out: folder to write; it must not exist.
        texts: calibration texts, files or token ids.
        experts: how many experts of each mixture stay.
        to: the family of the result; None: the model's own, with its mixtures switched off.
        samples: windows of text that are read.
        seq_len: tokens of a window.
        seed: chooses the windows.
        device: where to compute.
        progress: told what is going on.

    Raises:
        InfeasibleError: no config of the family holds the result, or it computes something else.
        InputError: model, texts or output cannot be used.
    """
    subject = Subject(model, device)
    source = None if subject.checkpoint is None else subject.checkpoint.folder
    target = check_output(out, source)
    progress("trace", 0, None)
    graph = trace_module(subject.structure)
    groups = tuple(group for group in graph.of_kind("expert") if group.block)
    mixtures, width = _mixtures(graph, groups, experts)
    progress("find a config", 0, None)
    config = dense_config(subject.config, mixtures, width, to)
    settings = Calibration(texts=(TextSource(path="texts"),), samples=samples, seq_len=seq_len, seed=seed)
    layers = tuple(_chosen(subject, graph, groups, experts, drawn_texts(texts, settings, subject), progress))
    progress("join experts", 0, None)
    dense = densified(subject.module, graph, layers, config, trace_module(skeleton(config)))
    checks = _written(dense, target, source, progress)
    after, before = (sum(p.numel() for p in one.parameters()) for one in (dense, subject.module))
    return Densified(str(config.model_type), after, before, layers, checks)


def _mixtures(graph: Graph, groups: Sequence[Group], experts: int) -> tuple[Mixtures, int]:
    """What is replaced, and the channels of what replaces it."""
    if not groups:
        raise InfeasibleError("the model has no mixture of experts to make dense")
    few = min(groups, key=lambda group: group.size)
    if not 1 <= experts <= few.size:
        raise InfeasibleError(
            f"{experts} experts of '{few.name}' were asked for, which has {few.size}",
            hint=f"--experts from 1 to {few.size}",
        )
    widths = {inner_of(graph, group).size for group in groups}
    if len(widths) > 1:
        raise InfeasibleError(f"the experts of the model differ in width: {sorted(widths)} channels")
    params = frozenset(name for group in groups for name in plain_mixture(graph, group))
    hidden = {graph.parameters[name].shape[1] for name in params if len(graph.parameters[name].shape) == 2}
    blocks = max(len(stack) for stack in graph.stacks)
    return Mixtures(params, blocks, max(hidden)), experts * widths.pop()


def _chosen(
    subject: Subject,
    graph: Graph,
    groups: Sequence[Group],
    experts: int,
    samples: Samples,
    progress: Progress,
) -> Iterator[Fixed]:
    """The most used experts of every mixture, and their gates."""
    loads = (ExpertLoad("count"), ExpertLoad("gate"))
    narrow: dict[Statistic, Statistic] = {key: key.on(graph, groups) for key in loads}
    told = "measure routing"
    found = gather(
        subject.wide,
        samples,
        tuple(narrow.values()),
        view=partial(call_with, subject.wide, {}),
        progress=lambda done, total: progress(told, done, total),
    ).renamed(narrow)
    tokens = float(samples.mask.sum())
    for group in groups:
        count: Tensor = load_of(group, found, "count")
        gate: Tensor = load_of(group, found, "gate")
        best = sorted(count.argsort(descending=True, stable=True)[:experts].tolist())
        kept = gate[best]
        share = kept / kept.sum() if float(kept.sum()) > 0 else kept.new_full((experts,), 1 / experts)
        yield Fixed(group.name, tuple(best), tuple((share * gate.sum() / tokens).tolist()))


def _written(
    dense: PreTrainedModel, target: Path, source: Path | None, progress: Progress
) -> tuple[str, ...]:
    with publishing(target, source, bytes_needed(dense, source)) as folder:
        progress("write", 0, None)
        write_checkpoint(folder, dense, source)
        progress("reload with stock transformers", 0, None)
        return check_reload(folder, dense, EXACT)
