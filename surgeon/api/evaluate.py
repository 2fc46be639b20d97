"""`evaluate`: how good a model is, how close to another, how large and how fast."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.api.progress import Progress, silent
from surgeon.api.subject import ModelLike, Subject
from surgeon.api.texts import Text, token_ids
from surgeon.errors import InputError
from surgeon.evaluate import MetricValue, ModelMetric, Windowing, measure
from surgeon.evaluate import metrics as registry
from surgeon.registry import load_entry_points

__all__ = ["evaluate", "protocol_for"]

WINDOW = 512
"""Tokens of a window where none is asked for and the model has positions for as many."""


def evaluate(
    model: ModelLike,
    *,
    against: ModelLike | None = None,
    text: Text | Sequence[Text] | None = None,
    window: int | None = None,
    stride: int | None = None,
    bos: bool = False,
    metrics: Sequence[str] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> tuple[MetricValue, ...]:
    """Measure a model. What is computed from text is computed in float32 or wider.

    Args:
        model: a module, or a checkpoint's folder or hub id.
        against: another model to compare with, on the same text.
        text: held-out text: a file, token ids, or several of one sort.
        window: tokens that the model sees at once; 512, or fewer where it has fewer positions.
        stride: tokens from one window's start to the next; by default windows do not overlap.
        bos: put the start token before each window.
        metrics: names to measure; by default all for which there is what they need.
        device: where to compute.
        progress: told what is going on.

    Raises:
        InputError: a metric lacks what it needs, or the text cannot be used.
        CheckpointError: a model cannot be loaded.
    """
    load_entry_points()
    subject = Subject(model, device)
    other = None if against is None else Subject(against, device)
    ids = None if text is None else token_ids(text, subject)
    protocol = protocol_for(subject, window, stride, bos)
    names = tuple(registry.names() if metrics is None else metrics)
    of_model = [name for name in names if issubclass(registry.get(name), ModelMetric)]
    of_text = [name for name in names if name not in of_model]
    if metrics is None:
        of_text = [name for name in of_text if ids is not None and (other or not registry.get(name).against)]  # type: ignore[union-attr]
    values: tuple[MetricValue, ...] = ()
    if of_text:
        done = 0

        def told(tokens: int) -> None:
            nonlocal done
            done += tokens
            progress("read the text", done, None if ids is None else ids.numel())

        wide = None if other is None else other.wide
        values = measure(subject.wide, ids, protocol=protocol, other=wide, names=of_text, progress=told)
    progress("measure size and speed", 0, None)
    return (*values, *measure(subject.module, ids, names=of_model))


def protocol_for(subject: Subject, window: int | None, stride: int | None, bos: bool = False) -> Windowing:
    """The protocol asked for, within the positions that the model has.

    Raises:
        InputError: a start token was asked for and the config names none.
    """
    config = subject.config.get_text_config()
    token = getattr(config, "bos_token_id", None) if bos else None
    if bos and token is None:
        raise InputError(f"the config of {subject.name} names no start token", hint="leave --bos out")
    positions = getattr(config, "max_position_embeddings", None) or WINDOW
    return Windowing(window or min(WINDOW, positions), stride, token)
