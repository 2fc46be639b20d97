"""Which module ran when, on which tensors: the calls behind the ops."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from surgeon.trace.record import Recorder, Value

__all__ = ["Call", "module_calls"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the module at `path`: tensors in and out, and the events it spans."""

    path: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    first_event: int
    last_event: int


@contextlib.contextmanager
def module_calls(recorder: Recorder, module: nn.Module) -> Iterator[list[Call]]:
    """While open, the recorder knows the running module's path, and every call is listed."""
    paths = {id(child): path for path, child in module.named_modules()}
    calls: list[Call] = []
    starts: list[int] = []

    def before(child: nn.Module, args: Any) -> None:
        recorder.path.append(paths.get(id(child), recorder.path[-1] if recorder.path else ""))
        starts.append(len(recorder.events))

    def after(child: nn.Module, args: Any, *rest: Any) -> None:
        *kwargs, output = rest  # torch leaves the keyword arguments out where forward raised
        path, start = recorder.path.pop(), starts.pop()
        recorder.failed = None if kwargs else recorder.failed or path
        if id(child) in paths:
            calls.append(
                Call(
                    path,
                    tuple(recorder.value(t) for t in _tensors((args, kwargs))),
                    tuple(recorder.value(t) for t in _tensors(output)),
                    start,
                    len(recorder.events),
                )
            )

    handles = [
        nn.modules.module.register_module_forward_pre_hook(before),
        nn.modules.module.register_module_forward_hook(after, with_kwargs=True, always_call=True),
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _tensors(nested: Any) -> list[torch.Tensor]:
    if isinstance(nested, torch.Tensor):
        return [nested]
    if isinstance(nested, dict):
        nested = tuple(nested.values())
    if isinstance(nested, (tuple, list)):
        return [tensor for item in nested for tensor in _tensors(item)]
    return []
