"""The contracts of a metric, and the registry of metrics.

A `TokenMetric` is fed the logits of every window, so that any number of them share one run over the
text. A `ModelMetric` looks at the model itself, a `ContinuationMetric` at how the model goes along with
what another one would write. A new metric is one new file in this package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from surgeon.evaluate.windows import Window
from surgeon.registry import Registry

__all__ = ["ContinuationMetric", "MetricValue", "ModelMetric", "TokenMetric", "metrics"]

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One measured number; `protocol` says how the text was cut, where a text was measured."""

    name: str
    value: float
    unit: str
    better: Better
    protocol: str | None = None


class TokenMetric(ABC):
    """A number per scored token; `against` tells whether it compares with another model.

    An instance is one measurement: it is fed window by window and then asked for its value.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[Better]
    against: ClassVar[bool] = False

    @abstractmethod
    def update(self, window: Window, logits: Tensor, other: Tensor | None) -> None:
        """Take in one window: logits [1, length, vocab] of the model, and of the other one."""

    @abstractmethod
    def value(self) -> float:
        """The number, over all windows so far."""


class ModelMetric(ABC):
    """A number of the model itself; `prompt` is token ids [1, n] to run it on, where it must run."""

    name: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[Better]

    def applies(self, model: nn.Module) -> bool:
        """Whether `model` can be measured so: not every model has a cache, or reads tokens alone."""
        return True

    @abstractmethod
    def measure(self, model: nn.Module, prompt: Tensor) -> float:
        """The number."""


class ContinuationMetric(ABC):
    """A number of how the model goes along with another one's greedy continuation of the text."""

    name: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[Better]
    against: ClassVar[bool] = True

    @abstractmethod
    def score(self, agree: Tensor) -> float:
        """The number, from which tokens agree; [rows, length] bool."""


metrics: Registry[type[TokenMetric] | type[ModelMetric] | type[ContinuationMetric]] = Registry(
    "metric", "surgeon.evaluate"
)
