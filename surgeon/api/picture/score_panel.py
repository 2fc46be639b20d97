"""The panel of one step's scores: a dot for what every layer was worth to it."""

from __future__ import annotations

import math

from surgeon.api.alike import ranges
from surgeon.api.numbers import size_text
from surgeon.api.picture.layers import Scores, StackView
from surgeon.api.picture.markup import Markup, joined, tag
from surgeon.api.picture.panel import Rows, line, panel, text
from surgeon.api.picture.stack_panel import hover_text

__all__ = ["score_panel"]

NUMBER, START, LENGTH = 9.0, 13.0, 62.0
"""Percent from the left: the layer number's end, the scale's start; its length."""
LOGARITHMIC = 30.0
"""Scores whose largest is so many times the smallest are on a logarithmic scale."""


def score_panel(view: StackView, scores: Scores, key: str) -> Markup:
    """The scores of all layers; those that the step took out are hollow."""
    rows = Rows(len(view.layers))
    low, high = min(scores.values.values()), max(scores.values.values())
    logarithmic = low > 0 and high > LOGARITHMIC * low
    scale = (
        text(START, 9, _short(low), "scale", "middle"),
        text(START + LENGTH, 9, _short(high), "scale", "middle"),
        line(START, rows.middle(0) - rows.height / 2, START, rows.total - 4, "axis"),
    )
    drawn = []
    for layer in view.layers:
        middle = rows.middle(layer.before)
        shapes = [text(NUMBER, middle, str(layer.before), "number", "end")]
        score = scores.values.get(layer.before)
        if score is not None:
            at = START + LENGTH * _share(score, low, high, logarithmic)
            sort = "dot hollow" if layer.before in scores.gone else "dot"
            shapes += [
                line(START, middle, at, middle, "stem"),
                tag("circle", cx=f"{at:.4g}%", cy=middle, r=max(3.0, rows.bar / 3.4), class_=sort),
                text(100, middle, _short(score), "share", "end"),
            ]
        drawn.append((hover_text(layer, view), joined(shapes)))
    return panel(key, _title(scores, logarithmic), _summary(scores), rows, scale, drawn)


def _short(score: float) -> str:
    return f"{score:.3g}" if abs(score) < 1000 else size_text(score)


def _share(score: float, low: float, high: float, logarithmic: bool) -> float:
    if high == low:
        return 0.0
    if logarithmic:
        return math.log(score / low) / math.log(high / low)
    return (score - low) / (high - low)


def _title(scores: Scores, logarithmic: bool) -> str:
    return scores.title.capitalize() + (" (log scale)" if logarithmic else "")


def _summary(scores: Scores) -> str:
    low, high = min(scores.values.values()), max(scores.values.values())
    gone = f" Taken out: {ranges(scores.gone)}." if scores.gone else ""
    return f"{scores.title} of {len(scores.values)} layers, from {low:.4g} to {high:.4g}.{gone}"
