"""Expert criteria against the methods' own code, and against plain loops over every expert."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from surgeon.calibrate import gather, rows
from surgeon.calibrate.experts import Experts
from surgeon.calibrate.gated import Gated
from surgeon.calibrate.input_gates import InputGates
from surgeon.criteria import criteria, trainable
from surgeon.errors import SurgeonError
from surgeon.rebuild import ModuleSource
from surgeon.trace import trace_module
from tests.rebuild.routed import routed

NAMES = ("frequency", "gate_mass", "ean", "reap", "reap_sum", "moe_pruner", "usage")
REAP = {
    "frequency": "expert_frequency",
    "gate_mass": "weighted_expert_frequency_sum",
    "ean": "ean_mean",
    "reap": "reap",
    "reap_sum": "weighted_ean_sum",
}


def scored(model, graph, samples, kind="expert", names=NAMES, implementation=None):
    groups = [trainable(g, graph) for g in graph.of_kind(kind) if g.block]
    made = {name: criteria.get(name)() for name in names}
    needs = {key for criterion in made.values() for key in criterion.needs()}
    narrow = {key: key.on(graph, groups) for key in needs}
    if implementation:
        model.set_experts_implementation(implementation)
    statistics = gather(model, samples, narrow.values(), batch_size=3).renamed(narrow)
    source = ModuleSource(model)
    return {
        name: [criterion.score(group, source, statistics).values for group in groups]
        for name, criterion in made.items()
    }


@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm", "eager"])
def test_equal_to_the_released_code_of_reap(shared_data, implementation):
    folder = shared_data / "reference"
    model = AutoModelForCausalLM.from_pretrained(folder / "tiny-qwen3-moe", dtype=torch.float32)
    graph = trace_module(model)
    samples = rows(load_file(folder / "ids-reap.safetensors")["input_ids"].tolist())
    want = load_file(folder / "reap_qwen3moe_renorm1.safetensors")
    dump = json.loads((folder / "reap_qwen3moe_renorm1.json").read_text())
    for name, layers in scored(
        model, graph, samples, names=tuple(REAP), implementation=implementation
    ).items():
        for layer, values in enumerate(layers):
            np.testing.assert_allclose(values, want[f"{layer}.{REAP[name]}"].numpy(), rtol=1e-4)
            kept = dump["kept"].get(REAP[name])
            if kept is not None:
                assert sorted(np.argsort(values)[-4:].tolist()) == sorted(kept[str(layer)])


def dense(model, ids):
    """For every layer, by stock modules and loops in float64: inputs, gates [T, E], outputs [T, E, H]."""
    seen = []

    def hook(block, args, output):
        x = args[0].reshape(-1, args[0].shape[-1])
        _, gates, index = block.gate(args[0] if block.gate.weight.ndim else x)
        wide = torch.zeros(len(x), len(block.gate.weight), dtype=x.dtype).scatter(1, index, gates.to(x.dtype))
        given = torch.zeros_like(wide, dtype=torch.bool).scatter(1, index, True)
        hidden, out = [], []
        for up, down in zip(block.experts.gate_up_proj, block.experts.down_proj, strict=True):
            left, right = (x @ up.T).chunk(2, -1)
            hidden.append(F.silu(left) * right)
            out.append(hidden[-1] @ down.T)
        seen.append((x, wide, given, torch.stack(hidden, 1), torch.stack(out, 1), block))

    blocks = [m for m in model.modules() if hasattr(m, "gate") and hasattr(m, "experts")]
    handles = [block.register_forward_hook(hook) for block in blocks]
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    "name", ["softmax, renormalised by a flag", "softmax, as it is", "sigmoid, corrected, one group"]
)
def test_equal_to_loops_over_every_expert(name):
    model, graph = routed(name)
    model = model.float()
    samples = rows(torch.randint(3, 61, (4, 17), generator=torch.Generator().manual_seed(0)).tolist())
    got = scored(model, graph, samples, implementation="eager")
    for layer, (x, gates, given, hidden, out, block) in enumerate(dense(model, samples.ids)):
        norms = out.norm(dim=-1) * given
        count = given.sum(0)
        ups, downs = block.experts.gate_up_proj.abs(), block.experts.down_proj.abs()
        entering = torch.einsum("te,tx->ex", gates.square(), x.square()).sqrt()
        inner = torch.einsum("te,tef->ef", gates.square(), hidden.square()).sqrt()
        want = {
            "frequency": count,
            "usage": count / count.sum(),
            "gate_mass": gates.sum(0),
            "ean": norms.sum(0) / count.clamp(min=1),
            "reap": (gates * norms).sum(0) / count.clamp(min=1),
            "reap_sum": (gates * norms).sum(0),
            "moe_pruner": torch.einsum("eox,ex->e", ups, entering) + torch.einsum("ehf,ef->e", downs, inner),
        }
        for criterion, values in want.items():
            np.testing.assert_allclose(got[criterion][layer], values.detach().numpy(), rtol=1e-4)


def test_an_index_of_grouped_experts_stands_for_one_of_every_group():
    model, graph = routed("sigmoid, groups by their two best")
    model = model.float()
    samples = rows(torch.randint(3, 61, (4, 17), generator=torch.Generator().manual_seed(0)).tolist())
    got = scored(model, graph, samples, names=("frequency",), implementation="eager")["frequency"]
    (_, _, given, *_) = dense(model, samples.ids)[0]
    np.testing.assert_array_equal(got[0], given.sum(0).view(3, 5).sum(0).numpy())


def test_channels_inside_experts():
    model, graph = routed("softmax, as it is")
    model = model.float()
    samples = rows(torch.randint(3, 61, (4, 17), generator=torch.Generator().manual_seed(0)).tolist())
    got = scored(model, graph, samples, kind="ffn", names=("moe_pruner",))["moe_pruner"]
    for layer, (_, gates, _, hidden, _, block) in enumerate(dense(model, samples.ids)):
        inner = torch.einsum("te,tef->ef", gates.square(), hidden.square()).sqrt()
        want = torch.einsum("ehf,ef->f", block.experts.down_proj.abs(), inner)
        np.testing.assert_allclose(got[layer], want.detach().numpy(), rtol=1e-4)


def test_gates_on_inputs_count_only_what_was_given():
    model, graph = routed("all experts run, gates on their inputs")
    model = model.float()
    samples = rows(torch.randint(3, 61, (4, 17), generator=torch.Generator().manual_seed(0)).tolist())
    for values in scored(model, graph, samples, names=("frequency",))["frequency"]:
        assert values.sum() == 4 * 17


def test_gates_on_inputs_are_read_off_the_rows():
    model, graph = routed("all experts run, gates on their inputs")
    model = model.float()
    samples = rows(torch.randint(3, 61, (4, 17), generator=torch.Generator().manual_seed(0)).tolist())
    seen = []
    blocks = [layer.feed_forward for layer in model.model.layers]
    handles = [
        b.register_forward_pre_hook(lambda b, args: seen.append((b, args[0].flatten(0, 1)))) for b in blocks
    ]
    got = scored(model, graph, samples, names=("gate_mass",))["gate_mass"]
    for handle in handles:
        handle.remove()
    want = [np.zeros(5) for _ in blocks]
    for block, x in seen:
        logits = x.double() @ block.router.weight.detach().double().T
        value, expert = logits.max(-1)
        np.add.at(want[blocks.index(block)], expert.numpy(), value.sigmoid().numpy())
    for layer, values in enumerate(got):
        np.testing.assert_allclose(values, want[layer], rtol=1e-4)


def test_what_is_no_gate_on_an_input_is_an_error():
    part = torch.nn.Identity()
    gates = InputGates(part, [Experts("axis", "outlet", (), (), "")])
    (handle,) = gates.attach()
    part(torch.ones(3, 2))
    handle.remove()
    two = torch.tensor([[2.0, 2.0], [0.5, 0.5]])

    def seen(entered):
        index = torch.arange(len(entered))
        return Gated("outlet", entered, None, index, 3, {"inlet": entered}, {"inlet": 1}, index, 9)

    assert gates.of(seen(two)).tolist() == [2, 0.5]
    with pytest.raises(SurgeonError, match="what enters its experts is no multiple of a token"):
        gates.of(seen(torch.tensor([[2.0, 1.0]])))


@pytest.mark.parametrize("name", NAMES)
def test_other_axes_are_refused(name):
    model, graph = routed("softmax, as it is")
    with pytest.raises(SurgeonError, match=r"counts no routed experts|no stack of routed experts"):
        scored(model.float(), graph, rows([[3, 4, 5]]), kind="kv_group", names=(name,))
