"""``surgeon eval``: how good, how close, how large, how fast."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from surgeon.api.numbers import size_text
from surgeon.cli.arguments import Device, Json, Model, Plugins
from surgeon.cli.console import print_json, print_table, progress, say

__all__ = ["command"]


def command(
    model: Model,
    against: Annotated[
        str | None, typer.Option("--against", metavar="B", help="Compare with this model.")
    ] = None,
    text: Annotated[Path | None, typer.Option("--text", metavar="FILE", help="Held-out text.")] = None,
    window: Annotated[int | None, typer.Option("--window", help="Tokens that a window holds.")] = None,
    stride: Annotated[int | None, typer.Option("--stride", help="Tokens between windows.")] = None,
    bos: Annotated[bool, typer.Option("--bos", help="Put the start token before each window.")] = False,
    metric: Annotated[
        list[str], typer.Option("--metric", metavar="NAME", help="Only these; see surgeon list metrics.")
    ] = [],  # noqa: B006 - typer copies it
    plugin: Plugins = [],  # noqa: B006 - typer copies it
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Perplexity, divergence from another model, agreement, speed, parameters, bytes."""
    from surgeon.api.evaluate import evaluate

    with progress() as told:
        values = evaluate(
            model,
            against=against,
            text=text,
            window=window,
            stride=stride,
            bos=bos,
            metrics=metric or None,
            device=device,
            progress=told,
        )
    if json:
        print_json({"model": model, "against": against, "metrics": [asdict(value) for value in values]})
        return
    rows = [
        (value.name.replace("_", " "), _written(value.value, value.unit), value.unit, value.better)
        for value in values
    ]
    title = model + (f" against {against}" if against else "")
    print_table(title, ("metric", "value", "unit", "better"), rows, numbers=("value",))
    for protocol in dict.fromkeys(value.protocol for value in values if value.protocol):
        say(f"measured with {protocol}")


def _written(number: float, unit: str) -> str:
    return size_text(number) if number == int(number) and not unit.startswith("nats") else f"{number:.5g}"
