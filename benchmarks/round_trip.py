"""From a Graph to a smaller checkpoint that stock transformers loads: cut, drop, export, reload.

Every kind is cut alone first, so that each says in words where it stops; then all that worked at once.
Not here: trace and proof (`examine`).
"""

from __future__ import annotations

import collections
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.zoo import Family
from benchmarks.zoo.running import proof_inputs
from surgeon.errors import SurgeonError
from surgeon.graph import AxisKind, Graph, Stack
from surgeon.io.writer import write_checkpoint
from surgeon.plan import DropBlock, Edit, Keep, Plan
from surgeon.rebuild.apply import apply_plan, config_of
from surgeon.rebuild.config_limits import ConfigLimits
from surgeon.rebuild.config_probe import ConfigSpace, probe
from surgeon.rebuild.execution import plain_execution
from surgeon.rebuild.forward import first_output
from surgeon.rebuild.verify import compare

__all__ = ["CUT_KINDS", "Trip"]

CUT_KINDS: tuple[AxisKind, ...] = ("ffn", "kv_group", "expert", "state")
KEPT = 0.75
"""Share that stays, moved to the nearest count that the config can express."""

SAME = 1e-5
"""Allowed difference between a model and its reloaded copy, relative to the largest logit."""

NEW_TOKENS = 5
SAME_TOKENS = "same tokens with and without the cache"


class Trip:
    """One model on its way; `model` holds float32 weights large enough that every structure matters."""

    def __init__(self, family: Family, model: PreTrainedModel, graph: Graph, tokens: Tensor) -> None:
        self.family = family
        self.model = model
        self.graph = graph
        self.tokens = tokens
        self._space: ConfigSpace | None = None
        self._edits: list[Edit] = []
        self.small: PreTrainedModel | None = None

    @property
    def space(self) -> ConfigSpace:
        """What the config's fields move, measured once."""
        if self._space is None:
            self._space = probe(config_of(self.model), self.graph)
        return self._space

    def cut(self) -> dict[str, object]:
        """A quarter of each prunable kind, each alone: rebuilt and compared with the masked original."""
        limits = ConfigLimits(self.space, self.graph)
        kinds: dict[str, dict[str, object]] = {}
        for kind in CUT_KINDS:
            found = [group.name for group in self.graph.of_kind(kind)]
            free = [name for name in found if self.graph.group(name).locked is None]
            if found and not free:
                kinds[kind] = {"ok": False, "why": f"locked: {self.graph.group(found[0]).locked}"}
            elif found:
                kinds[kind] = self._cut_kind(limits, free)
        why = "; ".join(f"{kind}: {words['why']}" for kind, words in kinds.items() if not words["ok"])
        if not kinds:
            return {"ok": False, "kinds": kinds, "why": "there is nothing of these kinds to cut"}
        return {"ok": not why, "kinds": kinds, "why": why or None}

    def _cut_kind(self, limits: ConfigLimits, names: Sequence[str]) -> dict[str, object]:
        sizes: dict[str, int] = {}
        refused: list[str] = []
        for tied in limits.tied(names):
            size = self.graph.group(tied[0]).size
            if size < 2:
                continue
            count = _nearest_smaller(limits, tied, size, sizes)
            if count is None:
                refused.append(str(limits.refuse(dict.fromkeys(tied, max(1, round(size * KEPT)))))[:400])
            else:
                sizes |= dict.fromkeys(tied, count)
        if not sizes:
            return {"ok": False, "why": refused[0] if refused else "every such axis has size 1"}
        edits = [Keep(name, _some(self.graph.group(name).size, count), 0) for name, count in sizes.items()]
        words = self._tried(edits)
        counts = sorted({f"{self.graph.group(name).size} → {count}" for name, count in sizes.items()})
        return {**words, "cut": counts, "axes": len(sizes), "refused": refused}

    def depth(self) -> dict[str, object]:
        """One block less in every Stack that has more than one; the last that the config lets go."""
        edits: list[Edit] = []
        met: list[str] = []
        for stack in self.graph.stacks:
            if len(stack.blocks) < 2:
                continue
            for block in self._droppable(stack):
                words = self._tried([DropBlock(block, 0)])
                if words["ok"]:
                    edits.append(DropBlock(block, 0))
                    break
                met.append(f"{block}: {words['why']}")
            else:
                return {"ok": False, "why": met[-1][:400]}
        if not edits:
            return {"ok": False, "why": "there is no stack of several blocks"}
        return {"ok": True, "dropped": [edit.block for edit in edits], "why": None}

    def _droppable(self, stack: Stack) -> list[str]:
        """Blocks from the last to the first, those whose sort stays present before others."""

        def sort(block: str) -> tuple:
            inside = ((n, p.shape) for n, p in self.graph.parameters.items() if n.startswith(f"{block}."))
            return tuple((name.removeprefix(block), shape) for name, shape in inside)

        sorts = {block.name: sort(block.name) for block in stack.blocks}
        counts = collections.Counter(sorts.values())
        return sorted(reversed(sorts), key=lambda name: counts[sorts[name]] == 1)

    def export(self, folder: Path) -> dict[str, object]:
        """All cuts that worked alone, at once; written as a checkpoint."""
        if not self._edits:
            return {"ok": False, "why": "no cut worked"}
        done = list(self._edits)
        words = self._tried(done)
        while not words["ok"] and len(done) > 1:
            last = done[-1]
            done = [edit for edit in done if _kind(self.graph, edit) != _kind(self.graph, last)]
            if not done:
                return {"ok": False, "why": words["why"]}
            words = self._tried(done)
        if not words["ok"] or self.small is None:
            return {"ok": False, "why": words["why"]}
        write_checkpoint(folder, self.small)
        before, after = (sum(p.numel() for p in m.parameters()) for m in (self.model, self.small))
        return {"ok": True, "kinds": sorted({_kind(self.graph, e) for e in done}), "kept": after / before}

    def reload(self, folder: Path) -> dict[str, object]:
        """The stock auto class loads the folder and computes the same; a causal model also generates."""
        assert self.small is not None
        loaded, report = self.family.auto_class.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        faults = {key: sorted(map(str, report[key])) for key in report if report[key]}
        if faults:
            return {"ok": False, "why": f"loaded with gaps: {str(faults)[:300]}"}
        loaded = loaded.eval()
        difference = _difference(self.small, loaded, self.tokens)
        if not difference <= SAME:
            return {"ok": False, "why": f"logits differ by {difference:.2g} of the largest after reloading"}
        words: dict[str, object] = {"ok": True, "difference": difference}
        if self.family.task == "causal":
            words["generate"] = said = _generated(loaded, self.tokens)
            if said != SAME_TOKENS and _generated(self.model, self.tokens) == SAME_TOKENS:
                return {**words, "ok": False, "why": f"generate: {said}; the original's is right"}
        return words

    def _tried(self, edits: Sequence[Edit]) -> dict[str, object]:
        """Rebuild by `edits` and compare with the masked original; edits that hold are kept for export."""
        plan = Plan(self.graph.model_type, tuple(edits))
        try:
            small, _ = apply_plan(self.model, plan, self.graph, self.space)
            with plain_execution(self.model), plain_execution(small):
                with proof_inputs(self.model), proof_inputs(small):
                    found = compare(self.model, small, plan, self.graph, self.tokens)
        except SurgeonError as error:
            return {"ok": False, "why": " ".join(str(error).split())[:400]}
        except Exception as error:  # the finding: foreign code may raise anything on a cut model
            return {"ok": False, "why": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        if not found.ok:
            return {"ok": False, "why": f"differs from the masked original by {found.relative:.2g}"}
        effect = _difference(self.model, small, self.tokens)
        if not effect > found.tolerance:
            return {"ok": False, "why": f"the cut changes the output by {effect:.2g} only: it proves nothing"}
        self._edits += [edit for edit in edits if edit not in self._edits]
        self.small = small
        return {"ok": True, "error": found.relative, "effect": effect, "why": None}


def _nearest_smaller(
    limits: ConfigLimits, tied: Sequence[str], size: int, others: Mapping[str, int]
) -> int | None:
    """The count nearest to the kept share that the config can express and that cuts something."""
    wanted = max(1, round(size * KEPT))
    found = [count for count in limits.nearest(tied, wanted, others) if 0 < count < size]
    return min(found, key=lambda count: abs(count - wanted)) if found else None


def _some(size: int, count: int) -> tuple[int, ...]:
    return tuple(sorted(random.Random(size).sample(range(size), count)))


def _kind(graph: Graph, edit: Edit) -> str:
    return graph.group(edit.axis).kind if isinstance(edit, Keep) else "depth"


def _difference(one: PreTrainedModel, other: PreTrainedModel, tokens: Tensor) -> float:
    with torch.no_grad():
        outputs = []
        for model in (one, other):
            with plain_execution(model), proof_inputs(model):
                outputs.append(first_output(model(input_ids=tokens)).value.double())
    return float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())


def _generated(model: PreTrainedModel, tokens: Tensor) -> str:
    """Greedy tokens with the cache, against those without it, in words."""
    if not model.can_generate():
        return "the class does not generate"
    prompt = tokens[:1, :7]
    told = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    model.generation_config.eos_token_id = None
    mask = torch.ones_like(prompt)
    try:
        with torch.no_grad():
            cached = model.generate(prompt, attention_mask=mask, use_cache=True, **told)
            plain = model.generate(prompt, attention_mask=mask, use_cache=False, **told)
    except Exception as error:  # as above
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return SAME_TOKENS if torch.equal(cached, plain) else "cached and uncached tokens differ"
