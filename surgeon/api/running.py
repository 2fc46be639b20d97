"""The thorough way to `run`: the model is built, traced and measured as far as the recipe asks, and proven.

Not here: what can be done by what is known of a model beforehand (`outlined`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from surgeon.api.evaluate import protocol_for
from surgeon.api.means import Means
from surgeon.api.measuring import HeldOut
from surgeon.api.planning import make_plan
from surgeon.api.publishing import Writing, publish
from surgeon.api.subject import ModelLike, Subject
from surgeon.api.texts import Text, calibration_samples, evaluation_ids
from surgeon.api.together import together
from surgeon.calibrate import Ranks
from surgeon.io import check_output
from surgeon.plan import Report
from surgeon.recipe import Recipe

__all__ = ["run_thoroughly"]


def run_thoroughly(
    recipe: Recipe,
    model: ModelLike,
    out: str | Path,
    texts: Sequence[Text] | None,
    means: Means,
    proof: bool,
) -> Report:
    """As `surgeon.run`, whose arguments these are."""
    with together(means.device) as own:
        subject = Subject(model, own, means.device_map, means.stream)
        first = Ranks.now().first
        source = None if subject.checkpoint is None else subject.checkpoint.folder
        target = check_output(out, source) if first else Path(out)
        held_out = _held_out(recipe, subject)
        samples = calibration_samples(recipe, subject, texts)
        planned = make_plan(subject, recipe, samples, means.progress, means.cache, means.budget)
    if not first:
        return planned.report
    writing = _writing(recipe, target, held_out, proof, means.budget)
    return publish(subject, planned.plan, planned.traced, planned.report, writing, means.progress)


def _writing(recipe: Recipe, out: Path, held_out: HeldOut | None, proof: bool, memory: int | None) -> Writing:
    """What the recipe says of the output, and what was said with the call."""
    return Writing(
        out=out,
        dtype=getattr(torch, recipe.export.dtype) if recipe.export.dtype else None,
        shard_size=recipe.export.shard_size,
        recipe=recipe.dump(),
        held_out=held_out,
        proof=proof,
        memory=memory,
    )


def _held_out(recipe: Recipe, subject: Subject) -> HeldOut | None:
    ids = evaluation_ids(recipe, subject)
    if ids is None or recipe.evaluation is None:
        return None
    protocol = protocol_for(subject, recipe.evaluation.window, recipe.evaluation.stride)
    return HeldOut(ids, protocol, None if subject.checkpoint is None else subject.tokenizer())
