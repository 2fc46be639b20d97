"""The thorough way to `plan`: the model is built, traced and measured as far as the recipe asks.

Not here: what can be done by what is known of a model beforehand (`outlined`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from surgeon.api.listing import list_copies
from surgeon.api.means import Means
from surgeon.api.picture import picture_page
from surgeon.api.planning import Planned, make_plan
from surgeon.api.subject import ModelLike, Subject
from surgeon.api.texts import Text, calibration_samples
from surgeon.api.together import together
from surgeon.calibrate import Ranks
from surgeon.io import write_page, write_plan
from surgeon.rebuild import arrange
from surgeon.recipe import Recipe

__all__ = ["planned_thoroughly", "write_planned"]


def planned_thoroughly(
    recipe: Recipe,
    model: ModelLike,
    texts: Sequence[Text] | None,
    means: Means,
    then: Callable[[Subject, Planned], None] | None = None,
) -> Planned:
    """As `surgeon.plan`, whose arguments these are; `then` is called while the ranks are together."""
    with together(means.device) as own:
        subject = Subject(model, own, means.device_map, means.stream)
        samples = calibration_samples(recipe, subject, texts)
        planned = make_plan(subject, recipe, samples, means.progress, means.cache, means.budget)
        if then is not None:
            then(subject, planned)
    return planned


def write_planned(
    subject: Subject, planned: Planned, out: str | Path | None, html: str | Path | None
) -> None:
    """The Plan to the file `out`, with what it comes to beside it, and a picture of it to the file `html`."""
    if out is not None and Ranks.now().first:
        write_plan(planned.plan, planned.traced.graph, out)
        list_copies(subject, planned, out)
    if html is not None and Ranks.now().first:
        write_page(_picture(planned), html)


def _picture(planned: Planned) -> str:
    """The page of the picture, which shows the zeros of a padded layout too."""
    known = planned.traced
    built = arrange(known.space, known.graph, planned.plan, known.layout).built
    return picture_page(planned.report, planned.plan, known.graph, built)
