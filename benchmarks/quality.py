"""What cutting costs: perplexity after each method, on trained models, calibrated on one text.

    python benchmarks/quality.py --model examples/models/tiny-1m --calibrate valid.txt --measure test.txt
    python benchmarks/quality.py --model DIR ... --methods flap ours --keep 0.8 0.5 --seeds 0 1 2 --page

Evaluated on the masked view, which computes what the exported model would: FLAP's adaptive widths differ
from layer to layer, and have no uniform export. FLAP's biases are added where the family's config can.
Perplexity: non-overlapping windows of `--seq-len` tokens, no start token. `--heads` also removes a third of
the kv groups of every layer. Results are kept as JSON lines in `--results`, and what is there is not run
again; `--page` writes the tables of all of them into docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from itertools import product
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
OVERLAPS = ROOT / "benchmarks" / "results" / "flap_overlap.json"

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
    """Every method at every size and seed that is not in the results yet, measured on every text."""
    folder = Path(arguments.model)
    model = with_biases(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(arguments.calibrate.read_text(encoding="utf-8"))["input_ids"]
    length = arguments.seq_len
    windows = {path.stem: _windows(tokenizer, path, length, arguments.windows) for path in arguments.measure}
    graph = trace_module(model)
    if arguments.heads and all(group.size < 3 for group in graph.groups if group.kind == "kv_group"):
        raise SystemExit("--heads removes one of three kv groups, and no layer of this model has three")
    dense = {text: perplexity(model, Plan(graph.model_type), graph, found) for text, found in windows.items()}
    done = {key(row) for row in rows(arguments.results)}
    for seed in arguments.seeds:
        bench = Measured(model, graph, pack(ids, arguments.samples, length, seed))
        for keep, method in product(arguments.keep, arguments.methods):
            row = {"model": folder.name, "method": method, "keep": keep, "seed": seed}
            row |= {"heads": arguments.heads, "samples": arguments.samples, "seq_len": length}
            row |= {"calibrated": arguments.calibrate.stem}
            todo = [{**row, "text": text, "windows": len(found)} for text, found in windows.items()]
            todo = [row for row in todo if key(row) not in done]
            if not todo:
                continue
            start = time.perf_counter()
            plan = cut(model, bench, steps(method, keep, arguments.heads, seed))
            seconds = round(time.perf_counter() - start, 1)
            for one in todo:
                after = perplexity(model, plan, graph, windows[one["text"]])
                one |= {"dense": dense[one["text"]], "after": after, "seconds": seconds}
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(one) + "\n")
                print(
                    f"{method} keep {keep} seed {seed} {one['text']}: {one['dense']:.2f} -> {after:.2f} "
                    f"(+{after - one['dense']:.2f})",
                    flush=True,
                )


def _windows(tokenizer: Any, path: Path, length: int, most: int | None) -> torch.Tensor:
    """Token ids of a text, [windows, length]."""
    ids = tokenizer(path.read_text(encoding="utf-8"))["input_ids"]
    return torch.tensor(ids[: len(ids) // length * length]).view(-1, length)[:most]


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells measurements apart."""
    names = (
        "model",
        "method",
        "keep",
        "heads",
        "seed",
        "calibrated",
        "samples",
        "seq_len",
        "text",
        "windows",
    )
    return tuple(row[name] for name in names)


def rows(path: Path) -> list[dict[str, Any]]:
    """Measurements so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def page(found: list[dict[str, Any]], overlaps: dict[str, list[dict[str, Any]]]) -> str:
    """docs/results.md."""
    lines = [
        "# Results",
        "",
        "Made by `benchmarks/quality.py`; no training. Rise of perplexity over the whole model's, mean and",
        "spread (standard deviation) over calibration seeds; of MLP channels the share kept is given.",
        "A ratio is the mean rise over FLAP's. Where kv groups go too, one of three goes in every layer, by",
        "every method.",
        "",
    ]
    for setting in sorted({setting_of(row) for row in found}):
        lines += table(setting, [row for row in found if setting_of(row) == setting])
    return "\n".join([*lines, *overlap_table(overlaps)])


def table(setting: tuple[Any, ...], mine: list[dict[str, Any]]) -> list[str]:
    """Lines of one table."""
    name, heads, calibrated, samples, length, text, windows = setting
    keeps = sorted({row["keep"] for row in mine}, reverse=True)
    lines = [
        f"## {name} on {text}" + (", a third of the kv groups gone as well" if heads else ""),
        "",
        f"Dense {mine[0]['dense']:.2f}. Calibrated on {samples} samples of {length} tokens of {calibrated}, "
        f"measured on {windows} windows of {length} tokens.",
        "",
        "| Method | " + " | ".join(f"keep {keep:.0%} | ratio" for keep in keeps) + " | seeds |",
        "|---|" + "---|" * (2 * len(keeps) + 1),
    ]
    rises = {
        (method, keep): [r["after"] - r["dense"] for r in mine if (r["method"], r["keep"]) == (method, keep)]
        for method in WORDS
        for keep in keeps
    }
    for method, words in WORDS.items():
        cells = [rises[method, keep] for keep in keeps]
        if any(cells):
            shown = " | ".join(
                f"{cell(values)} | {ratio(values, rises['flap', keep])}"
                for keep, values in zip(keeps, cells, strict=True)
            )
            seeds = sorted({len(values) for values in cells if values})
            lines.append(f"| {words} | {shown} | {' and '.join(map(str, seeds))} |")
    return [*lines, ""]


def overlap_table(overlaps: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines on FLAP's own code."""
    lines = [
        "## FLAP against its original code",
        "",
        "Made by `benchmarks/flap_overlap.py`: what is kept of a small Llama by the paper's formulas (the",
        "default) and by `variant: released`, against what the authors' code keeps. Shared indices over all",
        "that either keeps.",
        "",
        "| Setting | heads, paper | channels, paper | heads, released | channels, released |",
        "|---|---|---|---|---|",
    ]
    for setting, found in overlaps.items():
        cells = [f"{one['shared']} of {one['every']} ({one['shared'] / one['every']:.1%})" for one in found]
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    return [*lines, ""]


def setting_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What one table is of."""
    return tuple(row[n] for n in ("model", "heads", "calibrated", "samples", "seq_len", "text", "windows"))


def ratio(values: list[float], flap: list[float]) -> str:
    """Mean rise over FLAP's."""
    return f"{statistics.mean(values) / statistics.mean(flap):.2f}" if values and flap else ""


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
    parser.add_argument("--calibrate", type=Path, help="text file")
    parser.add_argument("--measure", type=Path, nargs="+", help="text files")
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
        overlaps = json.loads(OVERLAPS.read_text(encoding="utf-8"))
        PAGE.write_text(page(rows(arguments.results), overlaps), encoding="utf-8")


if __name__ == "__main__":
    main()
