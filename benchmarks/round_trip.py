"""From a Graph to smaller checkpoints that stock transformers loads: cut, drop, export, reload.

Every kind is cut alone first, so that each says in words where it stops: by the config's own fields
where these can say it, else block by block in the layout ``per_layer``. Then all that the fields say at
once, and all that worked in any layout at once. Not here: trace and proof (`examine`), loading again
(`reloading`).
"""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.attempts import Attempt, Export
from benchmarks.kept_counts import KEPT, nearest_smaller, share_of
from benchmarks.reloading import difference, generates_still, own_save_loads, reloaded
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
from surgeon.rebuild.layout import ExportLayout
from surgeon.rebuild.retraced import retraced_faults
from surgeon.rebuild.verify import compare
from surgeon.trace import trace_module

__all__ = ["CUT_KINDS", "Trip"]

CUT_KINDS: tuple[AxisKind, ...] = ("ffn", "kv_group", "expert", "state")
IDLE = "it proves nothing"

LAYOUTS: tuple[ExportLayout, ...] = ("uniform", "per_layer")


class Trip:
    """One model on its way; `model` holds float32 weights large enough that every structure matters."""

    def __init__(self, family: Family, model: PreTrainedModel, graph: Graph, tokens: Tensor) -> None:
        self.family = family
        self.model = model
        self.graph = graph
        self.tokens = tokens
        self._exports = {layout: Export() for layout in LAYOUTS}

    @cached_property
    def space(self) -> ConfigSpace:
        """What the config's fields move, measured once."""
        return probe(config_of(self.model), self.graph)

    def cut(self) -> dict[str, object]:
        """A quarter of each prunable kind, each alone: rebuilt and compared with the masked original."""
        limits = ConfigLimits(self.space, self.graph)
        kinds: dict[str, dict[str, object]] = {}
        for kind in CUT_KINDS:
            found = [group for group in self.graph.of_kind(kind) if group.size > 1]
            free = [group.name for group in found if group.locked is None]
            whole = [name for name in free if self.graph.group(name).picked >= self.graph.group(name).size]
            if free:
                kinds[kind] = self._cut_kind(limits, free)
                if kinds[kind]["ok"] is False and whole == free:
                    kinds[kind]["ok"] = None  # a router that takes every one of them, whatever fields say
            elif found:
                kinds[kind] = {"ok": None, "why": f"locked: {found[0].locked}"}
        self._excuse_states(kinds)
        why = "; ".join(f"{kind}: {words['why']}" for kind, words in kinds.items() if words["ok"] is False)
        if not any(words["ok"] is not None for words in kinds.values()):
            return {"ok": False, "kinds": kinds, "why": "there is nothing of these kinds to cut"}
        return {"ok": not why, "kinds": kinds, "why": why or None}

    def _excuse_states(self, kinds: dict[str, dict[str, object]]) -> None:
        """Heads or state of a state-space layer are asked for: with its heads cut, the state may stay."""
        state = kinds.get("state", {})
        if state.get("ok") is False:
            done = [kind for kind, words in kinds.items() if words["ok"]]
            held = {param for kind in done for group in self.graph.of_kind(kind) for param in group.params}
            if all(held.intersection(group.params) for group in self.graph.of_kind("state")):
                state["ok"] = None

    def _cut_kind(self, limits: ConfigLimits, names: Sequence[str]) -> dict[str, object]:
        """By the config's own fields; else block by block, or all at once."""
        words = self._by_fields(limits, names)
        if words["ok"]:
            return words
        own = [name for name in names if self.graph.group(name).block is not None]
        alike: dict[tuple[int, str], list[str]] = {}
        for name in own:
            group = self.graph.group(name)
            place = group.sites[0].param.removeprefix(str(group.block))
            alike.setdefault((group.size, place), []).append(name)
        refused, met = words["why"], []
        # All at once, else those at one place: one Axis of a kind may be held by a number in the code.
        for some in [list(names), *(alike.values() if len(alike) > 1 or len(own) < len(names) else ())]:
            for share in (KEPT, 0.5):
                edits = [self._keep(name, share_of(self.graph.group(name).size, share)) for name in some]
                tried = self._tried(edits, "per_layer")
                if tried.ok:
                    self._exports["per_layer"].edits += edits
                    said = {**self._counts(edits), "layout": "per_layer", "stock": words["why"]}
                    return {**tried.words, **said, "refused": [] if len(some) == len(names) else [refused]}
                met.append(tried.words["why"])
                refused = f"{refused}; per_layer: {tried.words['why']}"
        unreached = met and all(IDLE in str(why) for why in met)
        return {**words, "ok": None if unreached else False, "why": refused}

    def _by_fields(self, limits: ConfigLimits, names: Sequence[str]) -> dict[str, object]:
        sizes: dict[str, int] = {}
        refused: list[str] = []
        for tied in limits.tied(names):
            size = self.graph.group(tied[0]).size
            count = nearest_smaller(limits, tied, size, sizes)
            if count is None:
                refused.append(str(limits.refuse(dict.fromkeys(tied, share_of(size, KEPT))))[:400])
            else:
                sizes |= dict.fromkeys(tied, count)
        if not sizes:
            return {"ok": False, "why": refused[0]}
        edits = [self._keep(name, count) for name, count in sizes.items()]
        tried = self._tried(edits, "uniform")
        if tried.ok:
            self._exports["uniform"].edits += edits
        return {**tried.words, **self._counts(edits), "layout": "uniform", "refused": refused}

    def _keep(self, axis: str, count: int) -> Keep:
        size = self.graph.group(axis).size
        return Keep(axis, tuple(sorted(random.Random(size).sample(range(size), count))), 0)

    def _counts(self, edits: Sequence[Keep]) -> dict[str, object]:
        counts = sorted({f"{self.graph.group(edit.axis).size} → {len(edit.indices)}" for edit in edits})
        return {"cut": counts, "axes": len(edits)}

    def depth(self) -> dict[str, object]:
        """One block less in every Stack that has more than one; the last that the config lets go.

        Where one field counts the blocks of several Stacks, the block at the same place of each goes.
        """
        dropped: list[str] = []
        unreached: list[str] = []
        refused: list[str] = []
        done: list[Edit] = []
        for stack in reversed(self.graph.stacks):
            together = self._counted_with(stack)
            if len(stack.blocks) < 2 or together[-1] != stack:
                continue
            met: list[str] = []
            for layout in LAYOUTS:
                edits = self._one_less(together, done, layout, met)
                if edits:
                    done += edits
                    self._exports[layout].edits += edits
                    dropped += [edit.block for edit in edits]
                    break
            else:
                if any(IDLE in words for words in met):
                    unreached.append(stack.container)  # a tower for images, and these tokens have none
                else:
                    refused.append(met[-1][:400])
        if not dropped and not refused:
            return {"ok": False, "why": "there is no stack of several blocks"}
        why = refused[0] if refused else None
        return {"ok": not refused, "dropped": dropped, "unreached": unreached, "why": why}

    def _one_less(
        self, together: Sequence[Stack], done: Sequence[Edit], layout: ExportLayout, met: list[str]
    ) -> list[DropBlock]:
        """The last blocks, one of each Stack at the same place, that can go; what stands against others."""
        stack = together[-1]
        for block in self._droppable(stack):
            place = [one.name for one in stack.blocks].index(block)
            edits = [DropBlock(one.blocks[place].name, 0) for one in together]
            tried = self._tried(edits, layout)
            if tried.small is not None and not self._generates(tried.small):
                # The depth of an encoder may be that of the cache: as deep as the decoder it may do.
                also = self._tried([*done, *edits], layout) if done else tried
                if also.small is None or not self._generates(also.small):
                    met.append(f"{block}: without it nothing is generated with the cache")
                    continue
            if tried.ok:
                return edits
            met.append(f"{block}: {tried.words['why']}")
        return []

    def _counted_with(self, stack: Stack) -> list[Stack]:
        """All Stacks whose blocks the same field of the config counts, the given one among them."""
        for depth in self.space.depths:
            if stack.container in depth.containers:
                return [other for other in self.graph.stacks if other.container in depth.containers]
        return [stack]

    def _generates(self, small: PreTrainedModel) -> bool:
        return generates_still(self.family, small, self.model, self.tokens)

    def _droppable(self, stack: Stack) -> list[str]:
        """Blocks from the last to the first, those before others that hold least that no other has."""
        inside = self.graph.parameters.items()
        held = {
            block.name: {
                (n.removeprefix(block.name), p.shape) for n, p in inside if n.startswith(f"{block.name}.")
            }
            for block in stack.blocks
        }
        counts = collections.Counter(itertools.chain.from_iterable(held.values()))
        return sorted(reversed(held), key=lambda name: sum(counts[tensor] == 1 for tensor in held[name]))

    def export(self, folder: Path) -> dict[str, object]:
        """What fields say, at once, as an ordinary checkpoint; and with the rest, as one per layer."""
        plain, blockwise = (self._exports[layout] for layout in LAYOUTS)
        if not (plain.edits or blockwise.edits):
            return {"ok": False, "why": "no cut worked"}
        words: dict[str, object] = {}
        if plain.edits:
            words["uniform"] = self._export(plain, "uniform", folder / "uniform")
        if blockwise.edits:
            blockwise.edits = [*plain.edits, *blockwise.edits]
            words["per_layer"] = self._export(blockwise, "per_layer", folder / "per_layer")
        why = "; ".join(f"{layout}: {said['why']}" for layout, said in words.items() if said["why"])
        return {"ok": not why, **words, "why": why or None}

    def _export(self, export: Export, layout: ExportLayout, folder: Path) -> dict[str, object]:
        """Fewer kinds where all at once do not work; what is left out is said."""
        edits, left_out = list(export.edits), None
        tried = self._tried(edits, layout)
        while not tried.ok and len({_kind(self.graph, edit) for edit in edits}) > 1:
            left_out = left_out or tried.words["why"]
            last = _kind(self.graph, edits[-1])
            edits = [edit for edit in edits if _kind(self.graph, edit) != last]
            tried = self._tried(edits, layout)
        if tried.small is None:
            return {"why": tried.words["why"]}
        plan = Plan(self.graph.model_type, tuple(edits))
        faults = retraced_faults(plan, self.graph, trace_module(tried.small))
        if faults:
            return {"why": f"traced again it has other axes: {'; '.join(faults)}"}
        folder.mkdir()
        write_checkpoint(folder, tried.small)
        export.small = tried.small
        before, after = (sum(p.numel() for p in m.parameters()) for m in (self.model, tried.small))
        done = sorted({_kind(self.graph, edit) for edit in edits})
        return {"kinds": done, "kept": after / before, "why": left_out and f"not all at once: {left_out}"}

    def reload(self, folder: Path) -> dict[str, object]:
        """The stock auto class loads what was written and computes the same."""
        try:
            words = self._reloaded(folder)
        except Exception as error:  # the finding: transformers raises whatever its parts raise
            words = {
                "": {"ok": False, "why": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            }
        why = "; ".join(f"{layout}: {said['why']}" for layout, said in words.items() if not said["ok"])
        if why and not own_save_loads(self.family, self.model, folder / "original"):
            why = f"stock transformers does not load its own save of the original either: {why}"
        return {"ok": not why, **words, "why": why or None}

    def _reloaded(self, folder: Path) -> dict[str, dict[str, object]]:
        words: dict[str, dict[str, object]] = {}
        for layout, export in self._exports.items():
            if export.small is not None:
                own = layout == "per_layer"
                words[layout] = reloaded(
                    self.family, folder / layout, export.small, self.model, self.tokens, own
                )
        return words

    def _tried(self, edits: Sequence[Edit], layout: ExportLayout) -> Attempt:
        """Rebuild by `edits` and compare with the masked original."""
        plan = Plan(self.graph.model_type, tuple(edits))
        try:
            small, _ = apply_plan(self.model, plan, self.graph, self.space, layout)
            with plain_execution(self.model), plain_execution(small):
                with proof_inputs(self.model), proof_inputs(small):
                    found = compare(self.model, small, plan, self.graph, self.tokens)
            effect = difference(self.model, small, self.tokens)
        except SurgeonError as error:
            return Attempt({"ok": False, "why": " ".join(str(error).split())[:400]})
        except Exception as error:  # the finding: foreign code may raise anything on a cut model
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return Attempt({"ok": False, "why": why})
        if not found.ok:
            why = f"differs from the masked original by {found.relative:.2g}"
        elif not effect > found.tolerance:
            why = f"the cut changes the output by {effect:.2g} only: {IDLE}"
        else:
            return Attempt({"ok": True, "error": found.relative, "effect": effect, "why": None}, small)
        return Attempt({"ok": False, "why": why})


def _kind(graph: Graph, edit: Edit) -> str:
    return graph.group(edit.axis).kind if isinstance(edit, Keep) else "depth"
