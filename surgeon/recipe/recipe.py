"""Recipe: the schema of what a person writes. Reading a file of it is in `surgeon.recipe.load`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr
from ruamel.yaml import YAML

from surgeon.graph.strict import Many, Strict
from surgeon.operations import Operation, operations
from surgeon.passes import GraphPass, passes
from surgeon.plan import Loader, tagged_field
from surgeon.rebuild import ExportLayout
from surgeon.recipe.place import KeyPath, Place, Places
from surgeon.recipe.texts import Texts

__all__ = ["RECIPE_VERSION", "Calibration", "Evaluation", "Export", "Recipe", "Step"]

RECIPE_VERSION = 1

Step = Annotated[Operation | GraphPass, tagged_field((operations, passes), "op")]
"""An operation or a graph pass, chosen by ``op:``."""


class Calibration(Strict):
    """The text that statistics and gradients are taken on."""

    texts: Texts
    """A path, or a list of ``{path, weight}``. Relative paths start at the recipe's folder."""
    samples: Annotated[int, Field(ge=1)] = 128
    """Number of token windows."""
    seq_len: Annotated[int, Field(ge=2)] = 512
    """Tokens of a window."""
    seed: int = 0
    """Chooses the windows."""
    field: str | None = None
    """Which field of each line holds the text, in ``.jsonl`` files."""


class Evaluation(Strict):
    """Held-out text to measure on, before and after."""

    texts: Texts
    """As in `Calibration`."""
    window: Annotated[int, Field(ge=2)] = 512
    """Tokens that the model sees at once."""
    stride: Annotated[int, Field(ge=1)] | None = None
    """Tokens from one window's start to the next; absent: windows do not overlap."""
    field: str | None = None
    """Which field of each line holds the text, in ``.jsonl`` files."""


class Export(Strict):
    """How the smaller model is written."""

    layout: ExportLayout = "uniform"
    """``uniform``: an ordinary checkpoint, within what the model's config can say. ``padded``: each block as
    wide as the widest, filled with zeros. ``per_layer``: each block as wide as it is; loads with
    ``trust_remote_code``."""
    must_load: Annotated[tuple[Loader, ...], Many()] = ()
    """Plan only what these load: transformers, vllm, llama.cpp."""
    dtype: Literal["float64", "float32", "float16", "bfloat16"] | None = None
    """Type of the weights on disk; absent: that of the original."""
    shard_size: Annotated[str, Field(pattern=r"^[1-9][0-9]*(\.[0-9]+)?(KB|MB|GB|TB)$")] = "5GB"
    """No file of weights is larger."""

    @property
    def ordinary(self) -> bool:
        """Whether what is planned must be an ordinary checkpoint, with one width a field."""
        others = set(self.must_load) - {"transformers"}
        return self.layout == "uniform" or (self.layout == "per_layer" and bool(others))


class Recipe(Strict):
    """A whole recipe, validated and with all defaults in place."""

    surgeon: Literal[1]
    """Version of the recipe format."""
    extends: str | None = None
    """Path of another recipe that this one is laid over; gone once that is done."""
    model: str | None = None
    """Folder or hub id, where none is given on the command line."""
    rehome: str | None = None
    """Move the weights into the stock class of this model type first, where its logits are identical: a
    family whose config can say what this one's cannot."""
    calibration: Calibration | None = None
    steps: Annotated[tuple[Step, ...], Field(min_length=1), Many()]
    """Operations and passes, in the order in which they run."""
    export: Export = Export()
    evaluation: Evaluation | None = None

    _places: Places = PrivateAttr(default_factory=Places)

    def place(self, *path: str | int) -> Place | None:
        """Where the part at `path` is written, as in ``place("steps", 0, "keep")``: file, line, column."""
        return self._places.value(path)

    def candidates(self, path: KeyPath, name: str) -> tuple[Path, ...]:
        """Where to look for the file `name` that is written at `path`, best first.

        A relative path starts at the folder of the recipe that says it, then at the working directory.
        """
        if Path(name).is_absolute():
            return (Path(name),)
        place = self._places.value(path)
        beside = () if place is None or place.line is None else (Path(place.source).parent / name,)
        return tuple(dict.fromkeys((*beside, Path(name))))

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe in plain values, what is absent left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def dump(self) -> str:
        """The resolved recipe as YAML; reading it gives an equal Recipe."""
        text = io.StringIO()
        writer = YAML()
        writer.default_flow_style = False
        writer.dump(self.to_dict(), text)
        return text.getvalue()
