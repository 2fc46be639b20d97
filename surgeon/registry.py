"""One registration mechanism for criteria, operations, passes, op rules and assign functions.

A registry loads the built-in files of its package on first use and catches nothing; a file outside
the package comes in through the entry-point group ``surgeon.plugins`` or ``--plugin file.py``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from surgeon.errors import InputError, SurgeonError

__all__ = ["PLUGIN_GROUP", "Registry", "load_entry_points", "load_plugin", "nearest", "plugged"]

T = TypeVar("T")
Thing = TypeVar("Thing")
PLUGIN_GROUP = "surgeon.plugins"
_LISTED = 12
"""A hint lists at most this many names."""


_REGISTRIES: list[Registry[Any]] = []


class Registry(Generic[T]):
    """Names to things of one sort; the built-in ones live one a file in `package`."""

    def __init__(self, sort: str, package: str) -> None:
        self.sort = sort
        self.package = package
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._loaded = False
        _REGISTRIES.append(self)

    def register(self, *names: str) -> Callable[[Thing], Thing]:
        """Decorator: file the decorated thing under every one of `names`, and leave it as it is."""

        def decorate(thing: Thing) -> Thing:
            origin = getattr(thing, "__module__", "?")
            for name in names:
                if name in self._entries and self._entries[name] is not thing:
                    raise SurgeonError(
                        f"{self.sort} '{name}' is registered twice: in {self._origins[name]} and in {origin}",
                        hint="rename one of them",
                    )
                self._entries[name] = cast(T, thing)
                self._origins[name] = origin
            return thing

        return decorate

    def load(self) -> None:
        """Import every built-in file of the package once."""
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")

    def get(self, name: str) -> T:
        """The thing filed under `name`; an unknown name is an error that suggests the nearest."""
        found = self.find(name)
        if found is None:
            raise SurgeonError(f"no {self.sort} is called '{name}'", hint=nearest(name, self.names()))
        return found

    def find(self, name: str) -> T | None:
        """Like `get`, with None for an unknown name.

        As long as all that is registered is built in, a file that bears the name is imported alone.
        """
        if not self._loaded and not self.foreign:
            file = f"{self.package}.{name}"
            if name.isidentifier() and importlib.util.find_spec(file) is not None:
                importlib.import_module(file)
        if name not in self._entries or self.foreign:
            self.load()
        return self._entries.get(name)

    @property
    def foreign(self) -> bool:
        """Whether anything is registered that lies outside of the package."""
        return any(not origin.startswith(f"{self.package}.") for origin in self._origins.values())

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        self.load()
        return tuple(sorted(self._entries))

    def origin(self, name: str) -> str:
        """The module that registered `name`."""
        self.load()
        return self._origins[name]

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return iter([(name, self._entries[name]) for name in self.names()])


def plugged() -> bool:
    """Whether anything in any registry comes from outside of the package."""
    return any(registry.foreign for registry in _REGISTRIES)


def nearest(word: str, among: tuple[str, ...] | list[str]) -> str:
    """A hint in words: the name closest to `word`, and the names there are."""
    close = difflib.get_close_matches(word, among, n=1, cutoff=0.5)
    more = len(among) - _LISTED
    listing = ", ".join(among[:_LISTED]) + (f" and {more} more" if more > 0 else "")
    return f"'{close[0]}' (known: {listing})" if close else f"one of {listing}"


def load_plugin(path: str | Path) -> None:
    """Import a user's file, which registers what it defines.

    Raises:
        InputError: the file is missing or does not import.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"plugin {file} is not a file", hint="--plugin takes the path of a .py file")
    name = f"surgeon_plugin_{file.stem}"
    if name in sys.modules and Path(sys.modules[name].__file__ or "").resolve() == file.resolve():
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"plugin {file} is not a Python file", hint="--plugin takes the path of a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SurgeonError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"plugin {file} does not import: {type(error).__name__}: {error}") from error


def load_entry_points() -> None:
    """Import the plugins that installed distributions offer under ``surgeon.plugins``."""
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        point.load()
