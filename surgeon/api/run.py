"""`run`: the main job, from a recipe and a checkpoint to a smaller checkpoint.

Without proof, by what an earlier plan for such a model has found out, where that is all it takes: then torch
is not imported. Else in the thorough way (`running`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from surgeon.api.load_recipe import load_recipe
from surgeon.api.means import Means
from surgeon.api.outlined import run_outlined
from surgeon.api.progress import Progress, silent
from surgeon.errors import InputError
from surgeon.io.side_files import parse_size
from surgeon.plan import Report
from surgeon.recipe import Recipe

if TYPE_CHECKING:
    from surgeon.api.subject import DeviceMap, ModelLike
    from surgeon.api.texts import Text

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
    chosen = named_model(read, model)
    means = Means(device, device_map, stream, cache, budget, progress)
    if not proof and texts is None and means.modest:
        report = run_outlined(read, chosen, out, cache, progress)
        if report is not None:
            return report
    from surgeon.api.running import run_thoroughly

    return run_thoroughly(read, chosen, out, texts, means, proof)


def named_model(recipe: Recipe, model: ModelLike | None) -> ModelLike:
    """The model that was handed in, else the one that the recipe names.

    Raises:
        InputError: neither does.
    """
    found = model if model is not None else recipe.model
    if found is None:
        raise InputError("no model was given", hint="--model, or model: in the recipe")
    return found
