"""Metrics of a model on token ids: how well it predicts, how far it is from another, how fast and large.

One metric a file, filed in `metrics`. Not here: files and tokenizers (`io`), what a command measures
and how it is shown (`api`, `cli`).
"""

from surgeon.evaluate.measure import measure
from surgeon.evaluate.metric import MetricValue, ModelMetric, TokenMetric, metrics
from surgeon.evaluate.windows import Window, Windowing, windows

__all__ = [
    "MetricValue",
    "ModelMetric",
    "TokenMetric",
    "Window",
    "Windowing",
    "measure",
    "metrics",
    "windows",
]
