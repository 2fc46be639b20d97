"""Why two parameters are coupled: chains of real ops in real modules, from one to the other."""

from __future__ import annotations

import pytest
import torch

from surgeon.errors import SurgeonError
from surgeon.graph.why import why
from surgeon.trace import trace_module
from tests.trace.families import bare, graph_of
from tests.trace.toys import IDS, toy

AT = "model.layers.1."
PAIRS = {
    ("llama", AT + "self_attn.q_proj.weight", AT + "self_attn.k_proj.weight"): {
        "hidden",
        "layers.1.attn.kv_group",
        "head_dim",
    },
    ("llama", AT + "self_attn.v_proj.weight", AT + "self_attn.o_proj.weight"): {
        "hidden",
        "layers.1.attn.kv_group",
        "layers.1.attn.head_dim",
    },
    ("llama", AT + "mlp.gate_proj.weight", AT + "mlp.up_proj.weight"): {"hidden", "layers.1.mlp.ffn"},
    ("llama", "model.embed_tokens.weight", "lm_head.weight"): {"hidden"},
    ("phi3", AT + "self_attn.qkv_proj.weight", AT + "self_attn.o_proj.weight"): {
        "hidden",
        "layers.1.attn.kv_group",
        "layers.1.attn.q_per_kv",
        "layers.1.attn.head_dim",
    },
    ("gpt2", "transformer.h.1.attn.c_attn.bias", "transformer.h.1.attn.c_proj.weight"): {
        "layers.1.attn.kv_group",
        "layers.1.attn.head_dim_2",
    },
    ("mixtral", AT + "mlp.gate.weight", AT + "mlp.experts.down_proj"): {"hidden", "layers.1.mlp.expert"},
}


@pytest.mark.parametrize(("name", "left", "right"), PAIRS)
def test_chains_lead_from_one_parameter_to_the_other_over_real_ops(name, left, right):
    graph = graph_of(name)
    modules = {path for path, _ in bare(name).named_modules()}
    chains = why(graph, left, right)
    assert set(chains) == PAIRS[name, left, right]
    for axis, chain in chains.items():
        dims = {
            param: {s.dim for s in graph.group(axis).sites if s.param == param} for param in (left, right)
        }
        assert chain[0].left in {f"{left}[{dim}]" for dim in dims[left]}
        assert chain[-1].right in {f"{right}[{dim}]" for dim in dims[right]}
        assert all(hasattr(torch.ops.aten, link.op.removeprefix("aten.")) for link in chain)
        assert {link.module for link in chain} <= modules
        inner = [end for link in chain for end in (link.left, link.right)][1:-1]
        assert set(inner) <= {"·"}


def test_the_op_that_couples_is_named():
    (link,) = why(graph_of("llama"), AT + "mlp.gate_proj.weight", AT + "mlp.up_proj.weight")[
        "layers.1.mlp.ffn"
    ]
    assert (link.op, link.module) == ("aten.mul", "model.layers.1.mlp")
    (link,) = why(graph_of("mixtral"), AT + "mlp.gate.weight", AT + "mlp.experts.down_proj")[
        "layers.1.mlp.expert"
    ]
    assert (link.op, link.module) == ("aten.index", "model.layers.1.mlp.experts")


def test_a_chain_stays_in_the_layers_that_it_must_cross():
    chain = why(graph_of("llama"), AT + "self_attn.q_proj.weight", AT + "self_attn.o_proj.weight")
    assert all(link.module.startswith("model.layers.1.") for link in chain["layers.1.attn.kv_group"])


def test_names_of_one_storage_need_no_op():
    assert why(graph_of("llama-tied"), "model.embed_tokens.weight", "lm_head.weight") == {
        "vocab": (),
        "hidden": (),
    }


def test_parameters_that_share_no_axis_have_no_chain():
    assert why(graph_of("gpt2"), "transformer.h.0.attn.c_attn.bias", "transformer.h.1.mlp.c_fc.bias") == {}


def test_an_axis_that_lies_twice_in_a_parameter_is_explained_from_its_first_dim():
    module = toy(lambda t, x: x @ t.a @ t.a, a=lambda: torch.nn.Parameter(torch.rand(24, 24)))
    graph = trace_module(module, inputs={"input_ids": IDS})
    (chain,) = why(graph, "a", "down.weight").values()
    assert (chain[0].left, chain[-1].right) == ("a[0]", "down.weight[1]")


def test_an_unknown_parameter_suggests_the_nearest():
    with pytest.raises(SurgeonError, match=r"no parameter 'lm_hed\.weight'") as caught:
        why(graph_of("llama"), "lm_hed.weight", "model.norm.weight")
    assert "'lm_head.weight'" in (caught.value.hint or "")
