"""`plan`: what a recipe would do to a model. No weight is read when no step needs one.

By what an earlier plan for such a model has found out, where that is all it takes: then torch is not
imported. Else in the thorough way (`measured_plan`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from surgeon.api.card import copied_pages
from surgeon.api.load_recipe import load_recipe
from surgeon.api.means import Means
from surgeon.api.outlined import Outlined, outlined
from surgeon.api.picture import picture_page
from surgeon.api.progress import Progress, silent
from surgeon.api.run import named_model
from surgeon.io import check_file, write_page, write_plan
from surgeon.io.copies import write_copies
from surgeon.io.side_files import parse_size
from surgeon.io.slices import Files
from surgeon.plan import Plan, Report
from surgeon.recipe import Recipe

if TYPE_CHECKING:
    from surgeon.api.planning import Planned
    from surgeon.api.subject import DeviceMap, ModelLike, Subject
    from surgeon.api.texts import Text

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
    means = Means(device, device_map, stream, cache, budget, progress)
    if texts is None and means.modest:
        with Files() as files:
            found = outlined(read, model, cache, files, progress)
        if found is not None:
            return found.plan
    from surgeon.api.measured_plan import planned_thoroughly

    return planned_thoroughly(read, model, texts, means).plan


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
    chosen = named_model(read, model)
    means = Means(device, device_map, stream, cache, budget, progress)
    if means.modest:
        with Files() as files:
            found = outlined(read, chosen, cache, files, progress)
        if found is not None:
            _write(found, out, html)
            return found.report
    from surgeon.api.measured_plan import planned_thoroughly, write_planned

    def write(subject: Subject, planned: Planned) -> None:
        write_planned(subject, planned, out, html)

    return planned_thoroughly(read, chosen, None, means, write).report


def _write(found: Outlined, out: str | Path | None, html: str | Path | None) -> None:
    """The Plan with what it comes to beside it, and the picture."""
    if out is not None:
        write_plan(found.plan, found.graph, out)
        write_copies(
            Path(out).expanduser(), found.pieces, copied_pages(found.pages, found.report), found.folder
        )
    if html is not None:
        write_page(picture_page(found.report, found.plan, found.graph, found.plan), html)
