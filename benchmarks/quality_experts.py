"""What removing experts costs: perplexity after each criterion, on a trained mixture, no training.

    python benchmarks/quality_experts.py --model DIR --calibrate valid.txt --measure test.txt --page

Evaluated on the masked view, which computes what the exported model would. Windows and samples are as in
`quality.py`. Results are kept as JSON lines in `--results`, and what is there is not run again; `--page`
writes the table of all of them into docs/results-experts.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.quality import ROOT, cell, perplexity
from surgeon.calibrate import Bench, pack
from surgeon.operations import State, operations
from surgeon.plan import Plan
from surgeon.rebuild import ModuleSource
from surgeon.trace import trace_module

PAGE = ROOT / "docs" / "results-experts.md"
REFIT = {"repair": "refit", "target": "stream", "ridge": 0.01}
MERGE = {"op": "merge_experts"}
METHODS: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "ean": {"criterion": "ean"},
    "reap": {"criterion": "reap"},
    "moe_pruner": {"criterion": "moe_pruner"},
    "gate_mass": {"criterion": "gate_mass"},
    "frequency": {"criterion": "frequency"},
    "reconstruction": {"criterion": {"criterion": "reconstruction", "tokens": 4096}},
    "reap_sum": {"criterion": "reap_sum"},
    "frequency, refit": {"criterion": "frequency", "repair": REFIT},
    "reconstruction, refit": {"criterion": {"criterion": "reconstruction", "tokens": 4096}, "repair": REFIT},
    "reap_sum, refit": {"criterion": "reap_sum", "repair": REFIT},
    "merge outputs": {**MERGE, "cluster": "outputs"},
    "merge router": {**MERGE, "cluster": "router"},
    "merge around_kept": {**MERGE, "cluster": "around_kept", "criterion": "reap_sum"},
    "merge outputs, refit": {**MERGE, "cluster": "outputs", "repair": REFIT},
    "merge router, refit": {**MERGE, "cluster": "router", "repair": REFIT},
    "merge around_kept, refit": {
        **MERGE,
        "cluster": "around_kept",
        "criterion": "reap_sum",
        "repair": REFIT,
    },
}

GOOD = {
    "random": "never: the floor",
    "ean": "evenly loaded mixtures; here the rarest experts have the largest outputs",
    "reap": "evenly loaded mixtures, rare experts that matter",
    "moe_pruner": "many experts go; channels inside of experts",
    "gate_mass": "near reap_sum where outputs are of one size",
    "frequency": "few experts go, one cheap pass",
    "reconstruction": "few experts, all sets can be tried",
    "reap_sum": "first choice without repair",
    "frequency, refit": "repair evens criteria out",
    "reconstruction, refit": "few experts, all sets can be tried",
    "reap_sum, refit": "first choice",
    "merge outputs": "experts that are alike, as in mixtures copied from a dense model",
    "merge router": "experts that are alike",
    "merge around_kept": "experts that are alike",
    "merge outputs, refit": "experts that are alike",
    "merge router, refit": "experts that are alike",
    "merge around_kept, refit": "experts that are alike",
}
"""Where each is good, in few words."""


def measure(arguments: argparse.Namespace) -> None:
    """Run what is not yet in the results."""
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    graph = trace_module(model)
    bare = Plan(graph.model_type)
    ids = tokenizer.encode(Path(arguments.measure).read_text(encoding="utf-8"), verbose=False)
    length = arguments.seq_len
    windows = torch.tensor(ids[: len(ids) // length * length]).view(-1, length)[: arguments.windows]
    stream = tokenizer.encode(Path(arguments.calibrate).read_text(encoding="utf-8"), verbose=False)
    setting = {
        "model": Path(arguments.model).name,
        "samples": arguments.samples,
        "seq_len": length,
        "windows": len(windows),
    }
    done = {tuple(row[k] for k in ("method", "count", "seed")) for row in rows(arguments.results, setting)}
    dense = perplexity(model, bare, graph, windows)
    for seed in arguments.seeds:
        samples = pack(stream, arguments.samples, length, seed)
        bench = Bench(graph, lambda: model, lambda samples=samples: samples, lambda *told: None)
        for count in arguments.keep:
            for method in arguments.methods:
                if (method, count, seed) in done:
                    continue
                options = dict(METHODS[method])
                if method == "random":
                    options["criterion"] = {"criterion": "random", "seed": seed}
                given = {"op": "remove", "select": {"kind": "expert"}, "keep": {"count": count}, **options}
                step = operations.get(given["op"]).model_validate(given)
                source = ModuleSource(model)
                state = State(graph, bare, source=source, measure=bench.measure, bench=bench)
                after = perplexity(model, step.run(state)[0].plan, graph, windows)
                row = {
                    **setting,
                    "method": method,
                    "count": count,
                    "seed": seed,
                    "dense": dense,
                    "after": after,
                }
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


def rows(path: Path, setting: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Results so far; of one setting, where one is given."""
    if not path.is_file():
        return []
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in found if setting is None or all(row[k] == v for k, v in setting.items())]


def page(found: list[dict[str, Any]]) -> str:
    """docs/results-experts.md."""
    lines = [
        "# Results: experts",
        "",
        "Made by `benchmarks/quality_experts.py`; no training. Rise of perplexity over the whole model's,",
        "mean and spread (standard deviation) over calibration seeds.",
        "",
    ]
    settings = sorted({tuple(r[k] for k in ("model", "samples", "seq_len", "windows")) for r in found})
    for name, samples, length, windows in settings:
        mine = [
            row
            for row in found
            if (row["model"], row["samples"], row["seq_len"], row["windows"])
            == (name, samples, length, windows)
        ]
        counts = sorted({row["count"] for row in mine}, reverse=True)
        lines += [
            f"## {name}",
            "",
            f"Dense {mine[0]['dense']:.2f}. Calibrated on {samples} samples of {length} tokens, measured on "
            f"{windows} windows of {length} tokens.",
            "",
            "| Method | " + " | ".join(f"keep {count}" for count in counts) + " | seeds | Good for |",
            "|---|" + "---|" * (len(counts) + 2),
        ]
        for method in METHODS:
            cells = [
                [r["after"] - r["dense"] for r in mine if r["method"] == method and r["count"] == count]
                for count in counts
            ]
            if any(cells):
                shown = " | ".join(cell(values) for values in cells)
                seeds = max(len(values) for values in cells)
                lines.append(f"| {method} | {shown} | {seeds} | {GOOD[method]} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model")
    parser.add_argument("--calibrate", help="text file")
    parser.add_argument("--measure", help="text file")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--keep", nargs="+", type=int, default=[8, 4], help="experts that stay")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--windows", type=int, default=None, help="at most so many windows to measure on")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results" / "quality_experts.jsonl"
    )
    parser.add_argument("--page", action="store_true", help="write docs/results-experts.md from all results")
    arguments = parser.parse_args()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    if arguments.model:
        measure(arguments)
    if arguments.page:
        PAGE.write_text(page(rows(arguments.results)), encoding="utf-8")


if __name__ == "__main__":
    main()
