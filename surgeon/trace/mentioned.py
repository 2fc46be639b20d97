"""Parameters that no code of a model asks for by name: registered, and never computed with.

What a forward pass reads from a module it reads as an attribute, so its name stands in the compiled code of
some function. Containers are indexed, and a class that calls ``getattr`` makes names as it runs: of those
nothing is said. Not here: parameters whose code was not run (`untouched`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Set
from types import CodeType, FunctionType

from torch import nn

__all__ = ["unmentioned"]

_CONTAINERS = (nn.ModuleDict, nn.ModuleList, nn.Sequential, nn.ParameterDict, nn.ParameterList)
_BUILDING = ("__init__", "_init_weights", "init_weights", "reset_parameters", "_reset_parameters")


def unmentioned(module: nn.Module, parameters: Iterable[str]) -> frozenset[str]:
    """Those of `parameters` to which a step leads that no function of the model names."""
    names = _names_read(module)
    return frozenset(parameter for parameter in parameters if not _is_mentioned(module, parameter, names))


def _is_mentioned(module: nn.Module, parameter: str, names: Set[str]) -> bool:
    holder = module
    for step in parameter.split("."):
        if not _makes_names(holder) and step not in names:
            return False
        holder = getattr(holder, step)
    return True


def _makes_names(holder: object) -> bool:
    return isinstance(holder, _CONTAINERS) or any("getattr" in code.co_names for code in _code(type(holder)))


def _names_read(module: nn.Module) -> set[str]:
    """Every name in the code of the classes of all parts, and of the files that these stand in."""
    kinds = {kind for part in module.modules() for kind in type(part).__mro__}
    files = {kind.__module__ for kind in kinds}
    found = {name for kind in kinds for code in _code(kind) for name in code.co_names}
    for file in files:
        for thing in vars(sys.modules[file]).values() if file in sys.modules else ():
            if inspect.isfunction(thing):
                found.update(name for code in _nested(thing.__code__) for name in code.co_names)
    return found


def _code(kind: type) -> Iterator[CodeType]:
    """The compiled functions of a class, but for those that make its parameters."""
    for name, thing in vars(kind).items():
        function = thing.fget if isinstance(thing, property) else thing
        if name not in _BUILDING and callable(function):
            function = inspect.unwrap(function)
            if isinstance(function, FunctionType):
                yield from _nested(function.__code__)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)
