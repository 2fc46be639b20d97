"""`run`: the main job, from a recipe and a checkpoint to a smaller checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from surgeon.api.evaluate import protocol_for
from surgeon.api.load_recipe import load_recipe
from surgeon.api.measuring import HeldOut
from surgeon.api.planning import make_plan
from surgeon.api.progress import Progress, silent
from surgeon.api.publishing import Writing, publish
from surgeon.api.subject import DeviceMap, ModelLike, Subject
from surgeon.api.texts import Text, calibration_samples, evaluation_ids
from surgeon.api.together import together
from surgeon.calibrate import Ranks
from surgeon.errors import InputError
from surgeon.io import check_output
from surgeon.io.side_files import parse_size
from surgeon.plan import Report
from surgeon.recipe import Recipe

__all__ = ["named_model", "run"]


def run(
    recipe: str | Path | Mapping[str, object] | Recipe,
    model: ModelLike | None = None,
    out: str | Path | None = None,
    *,
    texts: Sequence[Text] | None = None,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    device_map: DeviceMap | None = None,
    stream: bool = False,
    cache: str | Path | None = None,
    proof: bool = True,
    memory: str | None = None,
    progress: Progress = silent,
) -> Report:
    """Plan, cut, prove, publish. The output folder appears whole, or not at all.

    Args:
        recipe: a path, the text itself, a mapping, or a Recipe.
        model: a module, or a checkpoint's folder or hub id; None takes the recipe's.
        out: folder to write; it must not exist.
        texts: calibration texts in place of the recipe's: files, or token ids.
        overrides: single values of the recipe to replace, as in ``steps.0.keep.fraction=0.5``.
        device: where to compute.
        device_map: as transformers and accelerate take it, such as ``auto``, for a checkpoint that one device
            does not hold; in place of `device`.
        stream: do not load a checkpoint to measure it: one block's weights are in memory at a time.
        cache: folder where measurements are kept and found again; None keeps none.
        proof: compare the result with the masked original, measure both, and write checksums; else only
            write it.
        memory: size that the process may take: what needs more is refused before it begins, and whole models
            that would take more are read as they are used. None: a share of what is free.
        progress: told what is going on.

    Raises:
        RecipeError: the recipe is wrong, or does not fit the model.
        InputError: model, texts or output cannot be used.
        PlanError: a step refused.
        VerifyError: the result is not what was planned; nothing is published.
    """
    if out is None:
        raise InputError("no output folder was given", hint="out='…', or --out on the command line")
    budget = None if memory is None else parse_size(memory)
    read = load_recipe(recipe, overrides)
    with together(device) as own:
        subject = Subject(named_model(read, model), own, device_map, stream)
        first = Ranks.now().first
        source = None if subject.checkpoint is None else subject.checkpoint.folder
        target = check_output(out, source) if first else Path(out)
        held_out = _held_out(read, subject)
        samples = calibration_samples(read, subject, texts)
        planned = make_plan(subject, read, samples, progress, cache, budget)
    if not first:
        return planned.report
    writing = _writing(read, target, held_out, proof, budget)
    return publish(subject, planned.plan, planned.traced, planned.report, writing, progress)


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


def named_model(recipe: Recipe, model: ModelLike | None) -> ModelLike:
    """The model that was handed in, else the one that the recipe names.

    Raises:
        InputError: neither does.
    """
    found = model if model is not None else recipe.model
    if found is None:
        raise InputError("no model was given", hint="--model, or model: in the recipe")
    return found


def _held_out(recipe: Recipe, subject: Subject) -> HeldOut | None:
    ids = evaluation_ids(recipe, subject)
    if ids is None or recipe.evaluation is None:
        return None
    protocol = protocol_for(subject, recipe.evaluation.window, recipe.evaluation.stride)
    return HeldOut(ids, protocol, None if subject.checkpoint is None else subject.tokenizer())
