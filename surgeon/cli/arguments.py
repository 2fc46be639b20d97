"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Cache",
    "Device",
    "DeviceMap",
    "Json",
    "Memory",
    "Model",
    "ModelOption",
    "NoCache",
    "Overrides",
    "Plugins",
    "Quick",
    "RecipeFile",
    "Stream",
]


def _load_plugins(files: list[Path]) -> list[Path]:
    from surgeon.registry import load_plugin

    for file in files:
        load_plugin(file)
    return files


RecipeFile = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe, YAML or JSON.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a checkpoint, or a hub id.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="M", help="Folder of a checkpoint, or a hub id.", show_default=False),
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="PATH=VALUE", help="Change one value: steps.0.keep.fraction=0.5."),
]
Plugins = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Python file that registers more.",
        callback=_load_plugins,
        is_eager=True,
    ),
]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1.")]
DeviceMap = Annotated[
    str | None,
    typer.Option("--device-map", metavar="MAP", help="Lay the model over all devices: auto, balanced."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="DIR", help="Where measurements are kept; else $SURGEON_CACHE or the user's cache."
    ),
]
Stream = Annotated[
    bool, typer.Option("--stream", help="Measure block by block, one block's weights in memory at a time.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no measurements, and use none.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Write without proof and checksums; surgeon verify proves it later.")
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="What the process may take, 4GB: models that do not fit are read as they are used.",
    ),
]
