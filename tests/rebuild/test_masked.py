"""The masked view equals a model that was really cut."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM, MistralForCausalLM

from surgeon.errors import RebuildError
from surgeon.graph import Graph
from surgeon.plan import Assign, DropBlock, Keep, Plan
from surgeon.rebuild.kept_width import KeptWidth, Width
from surgeon.rebuild.masked import masked
from surgeon.rebuild.rebuild import rebuild
from surgeon.rebuild.skeleton import load_into, skeleton
from surgeon.rebuild.tensors import ModuleSource
from tests.handmade import llama_graph


def llama(cls=LlamaForCausalLM, **changes):
    fields = {
        "vocab_size": 53,
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 8,
        "initializer_range": 0.3,
        "attn_implementation": "eager",
    }
    torch.manual_seed(3)
    return cls(cls.config_class(**{**fields, **changes})).double().eval()


def cut(module, plan, **fields):
    config = type(module.config)(**{**module.config.to_dict(), **fields})
    small = skeleton(config, device="cpu", dtype=torch.float64)
    load_into(small, rebuild(ModuleSource(module), plan, llama_graph(module.config)))
    return small.double()


def logits(module, ids):
    return module(input_ids=ids).logits


def close(got, want):
    # These families normalise in float32.
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


IDS = torch.randint(0, 53, (2, 11), generator=torch.Generator().manual_seed(0))
CUTS = {
    "ffn": {f"layers.{i}.mlp.ffn": range(i, i + 20) for i in range(3)},
    "kv_group": {f"layers.{i}.attn.kv_group": ((0, 1), (1, 2), (0, 2))[i] for i in range(3)},
    "q_per_kv": {f"layers.{i}.attn.q_per_kv": (i % 2,) for i in range(3)},
    "hidden": {"hidden": range(4, 40)},
}
FIELDS = {
    "ffn": {"intermediate_size": 20},
    "kv_group": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "q_per_kv": {"num_attention_heads": 3},
    "hidden": {"hidden_size": 36},
}


def keeps(case):
    return [Keep(axis, tuple(kept), 0) for axis, kept in CUTS[case].items()]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("case", CUTS)
def test_masked_equals_rebuilt(case, tied):
    module = llama(tie_word_embeddings=tied)
    plan = Plan("llama").add(keeps(case))
    view = masked(module, plan, llama_graph(module.config))
    whole = logits(module, IDS)
    got, want = logits(view, IDS), logits(cut(module, plan, **FIELDS[case]), IDS)
    close(got, want)
    assert (want - whole).abs().max() > 1e-2 * whole.abs().max()
    assert torch.equal(logits(module, IDS), whole)


def test_all_cuts_together():
    module = llama(MistralForCausalLM)
    plan = Plan("mistral").add(edit for case in CUTS for edit in keeps(case))
    fields = {k: v for case in CUTS for k, v in FIELDS[case].items()} | {"num_attention_heads": 2}
    view = masked(module, plan, llama_graph(module.config))
    close(logits(view, IDS), logits(cut(module, plan, **fields), IDS))


def test_dropped_block_is_skipped():
    module = llama()
    plan = Plan("llama").add([DropBlock("model.layers.1", 0), *keeps("hidden")])
    view = masked(module, plan, llama_graph(module.config))
    close(logits(view, IDS), logits(cut(module, plan, num_hidden_layers=2, hidden_size=36), IDS))


def test_assigned_value_is_in_force_and_carries_the_gradient():
    module = llama()
    name = "model.layers.2.mlp.down_proj.weight"
    value = torch.randn(48, 40, dtype=torch.float64)
    plan = Plan("llama").add([Assign(name, "f"), *keeps("ffn")], {name: value})
    view = masked(module, plan, llama_graph(module.config))
    small = cut(module, plan, intermediate_size=20)
    close(logits(view, IDS), logits(small, IDS))
    for model in (view, small):
        model(input_ids=IDS, labels=IDS).loss.backward()
    kept = list(range(2, 22))
    got, want = module.get_parameter(name).grad, small.get_parameter(name).grad
    close(got[:, kept], want)
    assert not got.index_fill(1, torch.tensor(kept), 0).any()


@pytest.mark.parametrize("case", CUTS)
def test_gradients_equal_those_of_the_rebuilt(case):
    module = llama()
    plan = Plan("llama").add(keeps(case))
    small = cut(module, plan, **FIELDS[case])
    view = masked(module, plan, llama_graph(module.config))
    for model in (view, small):
        model(input_ids=IDS, labels=IDS).loss.backward()
    gradients = {name: p.grad for name, p in module.named_parameters()}

    class Gradients(ModuleSource):
        def get(self, name):
            return gradients[name]

    cut_gradients = dict(rebuild(Gradients(module), plan, llama_graph(module.config)))
    for name, p in small.named_parameters():
        assert (cut_gradients[name] - p.grad).abs().max() <= 1e-4 * p.grad.abs().max().clamp(min=1e-6), name


def test_computes_in_the_dtype_asked():
    module = llama().bfloat16()
    view = masked(module, Plan("llama"), llama_graph(module.config), torch.float64)
    assert torch.equal(logits(view, IDS), logits(copy.deepcopy(module).double(), IDS))
    assert module.dtype == torch.bfloat16


def test_module_lacks_what_the_plan_names():
    module = llama()
    graph = llama_graph(module.config)
    plan = Plan("llama").add([Assign("elsewhere", "f")], {"elsewhere": torch.zeros(1)})
    with pytest.raises(RebuildError, match="LlamaForCausalLM lacks: elsewhere"):
        masked(module, plan, graph)
    with pytest.raises(RebuildError, match=r"lacks: model\.layers\.7"):
        masked(module, Plan("llama", (DropBlock("model.layers.7", 0),)), graph)


def test_block_without_a_stream():
    class Summary(nn.Module):
        def forward(self, x):
            return x.sum()

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Summary()

        def forward(self, x):
            return self.part(x)

    view = masked(Outer(), Plan("x", (DropBlock("part", 0),)), Graph("x", (), (), {}))
    with pytest.raises(RebuildError, match="Summary returns no tensor that is shaped like one of its inputs"):
        view(torch.ones(3))


class ByHand(nn.Module):
    """Layer norm written out."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.pow(2).mean(-1, keepdim=True)
        return centred * torch.rsqrt(variance + 1e-3) * self.weight + self.bias


class ByMoments(ByHand):
    """The same from first and second moment."""

    def forward(self, x):
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-3).sqrt() * self.weight + self.bias


NORMS = {
    "layer_norm": lambda n: nn.LayerNorm(n, eps=1e-3),
    "rms_norm": lambda n: nn.RMSNorm(n, eps=1e-3),
    "plain_layer_norm": lambda n: nn.LayerNorm(n, elementwise_affine=False),
    "plain_rms_norm": lambda n: nn.RMSNorm(n, elementwise_affine=False),
    "by_hand": ByHand,
    "by_moments": ByMoments,
}


@pytest.mark.parametrize("norm", NORMS)
def test_norms_see_the_kept_width(norm):
    torch.manual_seed(0)
    kept, removed = torch.tensor([0, 2, 3, 6]), torch.tensor([1, 4, 5])
    wide, narrow = NORMS[norm](7).double(), NORMS[norm](4).double()
    with torch.no_grad():
        for name, p in wide.named_parameters():
            p.copy_(torch.randn(7).index_fill(0, removed, 0))
            narrow.get_parameter(name).copy_(p[kept])
    x = torch.randn(5, 7, dtype=torch.float64).index_fill(-1, removed, 0).requires_grad_()
    out_weight = torch.randn(4, 3, dtype=torch.float64)
    with KeptWidth([Width(7, kept, removed)]):
        got = wide(x)[:, kept] @ out_weight
    y = x.detach()[:, kept].requires_grad_()
    want = narrow(y) @ out_weight
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    got.square().sum().backward()
    want.square().sum().backward()
    torch.testing.assert_close(x.grad[:, kept], y.grad, rtol=1e-10, atol=1e-10)


def test_another_dimension_of_the_same_size_is_left_alone():
    x = torch.randn(7, 7)
    with KeptWidth([Width(7, torch.tensor([0, 1]), torch.tensor([2, 3, 4, 5, 6]))]):
        mean, norm = x.mean(-1), nn.functional.layer_norm(x, [7])
    assert torch.equal(mean, x.mean(-1))
    assert torch.equal(norm, nn.functional.layer_norm(x, [7]))


def test_the_largest_removed_set_that_fits_is_taken():
    x = torch.tensor([1.0, 2.0, 0.0, 0.0])
    few = Width(4, torch.tensor([0, 1, 2]), torch.tensor([3]))
    many = Width(4, torch.tensor([0, 1]), torch.tensor([2, 3]))
    with KeptWidth([few, many]):
        assert x.mean() == 1.5
