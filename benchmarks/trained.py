"""What the benchmarks of depth and experts share: a trained model and its texts, rows of results, arguments.

Not here: what is tried, and the tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.quality import ROOT, perplexity
from benchmarks.quality import rows as all_rows
from surgeon.calibrate import Bench, pack
from surgeon.graph import Graph
from surgeon.operations import State
from surgeon.plan import Plan
from surgeon.rebuild import ModuleSource
from surgeon.trace import trace_module

__all__ = ["RESULTS", "Trained", "command_line", "note", "rows"]

RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, eq=False)
class Trained:
    """A model, windows [windows, seq_len] to measure on, and ids to calibrate on."""

    model: PreTrainedModel
    graph: Graph
    windows: torch.Tensor
    stream: list[int]
    samples: int
    name: str

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Trained:
        """What the command line names."""
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
        measured, stream = (
            tokenizer.encode(path.read_text(encoding="utf-8"), verbose=False)
            for path in (arguments.measure, arguments.calibrate)
        )
        length = arguments.seq_len
        windows = torch.tensor(measured[: len(measured) // length * length]).view(-1, length)
        windows = windows[: arguments.windows]
        name = Path(arguments.model).name
        return cls(model, trace_module(model), windows, stream, arguments.samples, name)

    @property
    def setting(self) -> dict[str, Any]:
        """What results hold for."""
        windows, length = self.windows.shape
        return {"model": self.name, "samples": self.samples, "seq_len": length, "windows": windows}

    def states(self, seeds: list[int]) -> Iterator[tuple[int, State]]:
        """For every seed the model before any step, with calibration samples drawn by it."""
        for seed in seeds:
            samples = pack(self.stream, self.samples, self.windows.shape[1], seed)
            bench = Bench(self.graph, lambda: self.model, lambda found=samples: found, lambda *told: None)
            source, plan = ModuleSource(self.model), Plan(self.graph.model_type)
            yield seed, State(self.graph, plan, source=source, measure=bench.measure, bench=bench)

    def perplexity(self, plan: Plan) -> float:
        """Of the model under `plan`."""
        return perplexity(self.model, plan, self.graph, self.windows)


def rows(path: Path, setting: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Results so far; of one setting, where one is given."""
    return [row for row in all_rows(path) if setting is None or all(row[k] == v for k, v in setting.items())]


def note(row: Mapping[str, Any], path: Path) -> None:
    """Add a result."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def command_line(
    description: str | None,
    name: str,
    methods: Mapping[str, Any],
    more: Callable[[argparse.ArgumentParser], None],
) -> argparse.Namespace:
    """Arguments, with those that `more` adds; results lie in `name`.jsonl unless said otherwise."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model")
    parser.add_argument("--calibrate", type=Path, help="text file")
    parser.add_argument("--measure", type=Path, help="text file")
    parser.add_argument("--methods", nargs="+", choices=tuple(methods), default=list(methods))
    more(parser)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--windows", type=int, default=None, help="at most so many windows to measure on")
    parser.add_argument("--results", type=Path, default=RESULTS / f"{name}.jsonl")
    parser.add_argument("--page", action="store_true", help="write the page of docs from all results")
    arguments = parser.parse_args()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    return arguments
