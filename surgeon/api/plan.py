"""`plan`: what a recipe would do to a model. No weight is read when no step needs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from surgeon.api.listing import list_copies
from surgeon.api.load_recipe import load_recipe
from surgeon.api.picture import picture_page
from surgeon.api.planning import Planned, make_plan
from surgeon.api.progress import Progress, silent
from surgeon.api.run import named_model
from surgeon.api.subject import DeviceMap, ModelLike, Subject
from surgeon.api.texts import Text, calibration_samples
from surgeon.api.together import together
from surgeon.calibrate import Ranks
from surgeon.io import check_file, write_page, write_plan
from surgeon.io.side_files import parse_size
from surgeon.plan import Plan, Report
from surgeon.rebuild import arrange
from surgeon.recipe import Recipe

__all__ = ["plan", "plan_report"]

RecipeLike = str | Path | Mapping[str, object] | Recipe


def plan(
    model: ModelLike,
    recipe: RecipeLike,
    *,
    texts: Sequence[Text] | None = None,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    device_map: DeviceMap | None = None,
    stream: bool = False,
    cache: str | Path | None = None,
    memory: str | None = None,
    progress: Progress = silent,
) -> Plan:
    """The Plan that `recipe` makes for `model`; `surgeon.apply` carries it out.

    Args:
        model: a module, a config, or a checkpoint's folder or hub id.
        recipe: a path, the text itself, a mapping, or a Recipe.
        texts: calibration texts in place of the recipe's: files, or token ids.
        overrides: single values of the recipe to replace, as in ``steps.0.keep.fraction=0.5``.
        device: where to compute.
        device_map: as transformers and accelerate take it, such as ``auto``, for a checkpoint that one device
            does not hold; in place of `device`.
        stream: do not load a checkpoint to measure it: one block's weights are in memory at a time.
        cache: folder where measurements are kept and found again; None keeps none.
        memory: size that the process may take, such as ``4GB``. What waits between blocks that are streamed
            has what they leave of it, the rest waits in files. None: whatever there is.
        progress: told what is going on.

    Raises:
        RecipeError: the recipe is wrong, or does not fit the model.
        PlanError: a step refused.
    """
    budget = None if memory is None else parse_size(memory)
    read = load_recipe(recipe, overrides)
    with together(device) as own:
        subject = Subject(model, own, device_map, stream)
        samples = calibration_samples(read, subject, texts)
        return make_plan(subject, read, samples, progress, cache, budget).plan


def plan_report(
    recipe: RecipeLike,
    *,
    model: ModelLike | None = None,
    out: str | Path | None = None,
    html: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    device_map: DeviceMap | None = None,
    stream: bool = False,
    cache: str | Path | None = None,
    memory: str | None = None,
    progress: Progress = silent,
) -> Report:
    """Like `plan`, with the Report of what each step chose.

    The Plan itself goes to the file `out`, and a picture of it to the file `html`.

    Raises:
        InputError: a file cannot be written; before any work is done.
    """
    for file in (out, html):
        if file is not None:
            check_file(file)
    budget = None if memory is None else parse_size(memory)
    read = load_recipe(recipe, overrides)
    with together(device) as own:
        subject = Subject(named_model(read, model), own, device_map, stream)
        samples = calibration_samples(read, subject)
        planned = make_plan(subject, read, samples, progress, cache, budget)
        if out is not None and Ranks.now().first:
            write_plan(planned.plan, planned.traced.graph, out)
            list_copies(subject, planned, out)
        if html is not None and Ranks.now().first:
            write_page(_picture(planned), html)
    return planned.report


def _picture(planned: Planned) -> str:
    """The page of the picture, which shows the zeros of a padded layout too."""
    known = planned.traced
    built = arrange(known.space, known.graph, planned.plan, known.layout).built
    return picture_page(planned.report, planned.plan, known.graph, built)
