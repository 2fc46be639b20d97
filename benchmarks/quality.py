"""What cutting costs: perplexity after each method, on trained models, calibrated on one text.

    python benchmarks/quality.py --model examples/models/tiny-1m --calibrate valid.txt --measure test.txt
    python benchmarks/quality.py --model DIR ... --methods flap ours --keep 0.8 0.5 --seeds 0 1 2 --page

Evaluated on the masked view, which computes what the exported model would: FLAP's adaptive widths differ
from layer to layer, and have no uniform export. FLAP's biases are added where the family's config can.
Perplexity: non-overlapping windows of `--seq-len` tokens, no start token. `--heads` also removes a third of
the kv groups of every layer. Results are kept as JSON lines in `--results`, and what is there is not run
again; `--page` writes the table of all of them into docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from surgeon.calibrate import Bench, Samples, Statistic, Statistics, pack
from surgeon.calibrate.consumers import consumer_params
from surgeon.graph import Graph
from surgeon.operations import State
from surgeon.operations.remove import Remove
from surgeon.plan import Plan
from surgeon.rebuild import ModuleSource, masked
from surgeon.rebuild.bias_slots import bias_slots, with_bias_slots
from surgeon.repair import bias_name
from surgeon.trace import trace_module

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"

REFIT = {"repair": "refit", "target": "stream", "ridge": 0.01}
METHODS: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "magnitude": {"criterion": "magnitude"},
    "wanda_sp": {"criterion": "wanda"},
    "flap": {"criterion": "flap", "allocation": "adaptive", "repair": "bias"},
    "flap_uniform": {"criterion": "flap", "repair": "bias"},
    "flap_refit": {"criterion": "flap", "allocation": "adaptive", "repair": REFIT},
    "obs_layer": {"criterion": "obs", "repair": {**REFIT, "target": "layer"}},
    "obs_stream": {"criterion": "obs", "repair": REFIT},
    "ours": {"criterion": "obs", "allocation": "by_loss", "repair": REFIT},
}
WORDS = {
    "random": "random",
    "magnitude": "magnitude (l2)",
    "wanda_sp": "Wanda-sp",
    "flap": "FLAP (AL-AM, bias)",
    "flap_uniform": "FLAP's scores, uniform, bias",
    "flap_refit": "FLAP's selection, refit to the stream",
    "obs_layer": "obs, refit to the layer",
    "obs_stream": "ours, the same share of every layer: obs, refit to the stream",
    "ours": "ours: obs, by_loss, refit to the stream",
}
KV_GROUPS_KEPT = 2 / 3


def perplexity(model: PreTrainedModel, plan: Plan, graph: Graph, windows: torch.Tensor) -> float:
    """Of the model under `plan`, over `windows` [windows, seq_len]."""
    forward: Any = masked(model, plan, graph).fixed()
    total = 0.0
    with torch.no_grad():
        for ids in windows.split(16):
            logits = forward(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
            total += float(torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum"))
    return math.exp(total / windows[:, 1:].numel())


def steps(method: str, keep: float, heads: bool, seed: int) -> list[Remove]:
    """MLP channels, and before them, where asked, a third of the kv groups of every layer."""
    options = dict(METHODS[method])
    if method == "random":
        options["criterion"] = {"criterion": "random", "seed": seed}
    channels = Remove(select={"kind": "ffn"}, keep={"fraction": keep}, **options)
    groups = {**options, "select": {"kind": "kv_group"}, "keep": {"fraction": KV_GROUPS_KEPT}}
    return [Remove(**{**groups, "allocation": "uniform"}), channels] if heads else [channels]


def with_biases(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with biases of zero at the projections that lose inputs, for FLAP."""
    graph = trace_module(model)
    names = consumer_params(graph, graph.of_kind("kv_group", "ffn"))
    return with_bias_slots(model, bias_slots(model.config, [bias_name(name) for name in names]))


class Measured(Bench):
    """A Bench that measures the whole model once, whatever asks."""

    def __init__(self, model: PreTrainedModel, graph: Graph, samples: Samples) -> None:
        super().__init__(graph, lambda: model, lambda: samples, lambda *told: None)
        self._known: dict[frozenset[Statistic], Statistics] = {}

    def measure(self, plan: Plan, wanted: frozenset[Statistic]) -> Statistics:
        """As `Bench.measure`."""
        if plan.edits:
            return super().measure(plan, wanted)
        if wanted not in self._known:
            self._known[wanted] = super().measure(plan, wanted)
        return self._known[wanted]


def cut(model: PreTrainedModel, bench: Bench, todo: list[Remove]) -> Plan:
    """The Plan of `todo`."""
    graph = bench.graph
    state = State(
        graph=graph,
        plan=Plan(graph.model_type),
        source=ModuleSource(model),
        measure=bench.measure,
        bench=bench,
    )
    for step in todo:
        state, _ = step.run(state)
    return state.plan


def run(arguments: argparse.Namespace) -> None:
    """Every method at every size and seed that is not in the results yet."""
    folder = Path(arguments.model)
    model = with_biases(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = {
        name: tokenizer(Path(path).read_text(encoding="utf-8"))["input_ids"]
        for name, path in (("calibrate", arguments.calibrate), ("measure", arguments.measure))
    }
    length = arguments.seq_len
    windows = torch.tensor(ids["measure"][: len(ids["measure"]) // length * length]).view(-1, length)
    windows = windows[: arguments.windows]
    graph = trace_module(model)
    dense = perplexity(model, Plan(graph.model_type), graph, windows)
    done = {key(row) for row in rows(arguments.results)}
    for seed in arguments.seeds:
        bench = Measured(model, graph, pack(ids["calibrate"], arguments.samples, length, seed))
        for keep in arguments.keep:
            for method in arguments.methods:
                row = {"model": folder.name, "method": method, "keep": keep, "seed": seed}
                row |= {
                    "heads": arguments.heads,
                    "samples": arguments.samples,
                    "seq_len": length,
                    "windows": len(windows),
                }
                if key(row) in done:
                    continue
                start = time.perf_counter()
                plan = cut(model, bench, steps(method, keep, arguments.heads, seed))
                after = perplexity(model, plan, graph, windows)
                row |= {"dense": dense, "after": after, "seconds": round(time.perf_counter() - start, 1)}
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{method} keep {keep} seed {seed}: {dense:.2f} -> {after:.2f} (+{after - dense:.2f})")


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells measurements apart."""
    names = ("model", "method", "keep", "heads", "seed", "samples", "seq_len", "windows")
    return tuple(row[name] for name in names)


def rows(path: Path) -> list[dict[str, Any]]:
    """Measurements so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def page(found: list[dict[str, Any]]) -> str:
    """docs/results.md."""
    lines = [
        "# Results",
        "",
        "Made by `benchmarks/quality.py`; no training. Rise of perplexity over the whole model's, mean and",
        "spread (standard deviation) over calibration seeds; of MLP channels the share kept is given.",
        "",
    ]
    for setting in sorted({setting_of(row) for row in found}):
        mine = [row for row in found if setting_of(row) == setting]
        name, heads, samples, length, windows = setting
        keeps = sorted({r["keep"] for r in mine}, reverse=True)
        lines += [
            f"## {name}" + (", a third of the kv groups gone as well" if heads else ""),
            "",
            f"Dense {mine[0]['dense']:.2f}. Calibrated on {samples} samples of {length} tokens, measured on "
            f"{windows} windows of {length} tokens.",
            "",
            "| Method | " + " | ".join(f"keep {keep:.0%}" for keep in keeps) + " | seeds |",
            "|---|" + "---|" * (len(keeps) + 1),
        ]
        for method, words in WORDS.items():
            ours = [row for row in mine if row["method"] == method]
            cells = [[row["after"] - row["dense"] for row in ours if row["keep"] == keep] for keep in keeps]
            if any(cells):
                shown = " | ".join(cell(values) for values in cells)
                lines.append(f"| {words} | {shown} | {max(len(values) for values in cells)} |")
        lines.append("")
    return "\n".join(lines)


def setting_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What one table is of."""
    return tuple(row[name] for name in ("model", "heads", "samples", "seq_len", "windows"))


def cell(values: list[float]) -> str:
    """Mean and spread."""
    if not values:
        return ""
    spread = f" \u00b1 {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):+.2f}{spread}"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model")
    parser.add_argument("--calibrate", help="text file")
    parser.add_argument("--measure", help="text file")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--keep", nargs="+", type=float, default=[0.8, 0.5])
    parser.add_argument("--heads", action="store_true", help="remove a third of the kv groups as well")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--windows", type=int, default=None, help="at most so many windows to measure on")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "quality.jsonl")
    parser.add_argument("--page", action="store_true", help="write docs/results.md from all results")
    arguments = parser.parse_args()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    if arguments.model:
        run(arguments)
    if arguments.page:
        PAGE.write_text(page(rows(arguments.results)), encoding="utf-8")


if __name__ == "__main__":
    main()
