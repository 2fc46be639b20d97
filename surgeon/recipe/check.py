"""A Recipe against one model: does every step select something, and are the amounts in range there?

Only the Graph is looked at. What the model's config can express is known later (`surgeon.plan.limits`).
"""

from __future__ import annotations

from collections.abc import Iterator

from surgeon.errors import InfeasibleError, SelectorError, SurgeonError
from surgeon.graph import Graph, Group, Selector
from surgeon.passes import GraphPass
from surgeon.plan import Amount
from surgeon.recipe.problems import problem, refuse
from surgeon.recipe.recipe import Recipe, Step

__all__ = ["check_recipe"]


def check_recipe(recipe: Recipe, graph: Graph) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What each step selects on `graph`: its ``op`` and the names of the Axes. Passes are carried out.

    Raises:
        RecipeError: one line for every step that does not fit, with its place in the file.
    """
    selected: list[tuple[str, tuple[str, ...]]] = []
    lines: list[str] = []
    earlier: tuple[str, ...] = ()
    for number, step in enumerate(recipe.steps):
        groups: dict[str, Group] = {}
        wrong = list(_check_step(recipe, number, step, graph, groups))
        if isinstance(step, GraphPass):
            if not wrong:
                try:
                    graph = step.run(graph, earlier)
                except SurgeonError as error:
                    wrong = [_line(recipe, ("steps", number), str(error))]
            earlier = (*earlier, step.op)
        selected.append((step.op, tuple(groups)))
        lines += wrong
    if lines:
        raise refuse(lines)
    return tuple(selected)


def _check_step(
    recipe: Recipe, number: int, step: Step, graph: Graph, groups: dict[str, Group]
) -> Iterator[str]:
    """Lines on what does not fit; fills `groups` with what the step selects."""
    fields = [(name, getattr(step, name)) for name in type(step).model_fields]
    for name, value in fields:
        if isinstance(value, Selector):
            try:
                groups.update({group.name: group for group in value.on(graph)})
            except SelectorError as error:
                path = ("steps", number, name, *((error.key,) if error.key else ()))
                yield _line(recipe, path, str(error))
    for name, value in fields:
        if isinstance(value, Amount) and value.params is None:
            yield from _check_amount(recipe, ("steps", number, name), value, groups)
        elif isinstance(value, Amount):
            try:
                value.parameters(graph.parameter_count)
            except InfeasibleError as error:
                yield _line(recipe, ("steps", number, name, "params"), str(error))


def _check_amount(
    recipe: Recipe, path: tuple[str | int, ...], amount: Amount, groups: dict[str, Group]
) -> Iterator[str]:
    """One line for every size of Axis that the amount does not fit."""
    examples: dict[int, str] = {}
    for name, group in groups.items():
        examples.setdefault(group.size, name)
    key = "count" if amount.count is not None else "fraction"
    for size, name in examples.items():
        try:
            amount.kept(size)
        except InfeasibleError as error:
            yield _line(recipe, (*path, key), f"{error} ('{name}'; 1 to {size} can be kept)")


def _line(recipe: Recipe, path: tuple[str | int, ...], what: str) -> str:
    return problem(recipe.place(*path), path, what)
