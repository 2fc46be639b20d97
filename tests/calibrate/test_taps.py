"""What enters each contraction, against numpy in float64 over tensors caught by plain hooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from surgeon.calibrate import Samples, gather, rows
from surgeon.calibrate.fluctuation import Fluctuation
from surgeon.calibrate.gram import Gram, block_gram
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.taps import Taps
from surgeon.errors import InputError, SurgeonError
from tests.handmade import llama_graph

MOMENTS = [InputMoment(m) for m in ("count", "mean", "variance", "second", "mean_abs")]
KEYS = [*MOMENTS, Gram(), Gram(constant=True)]


@pytest.fixture
def ragged() -> Samples:
    ids = torch.randint(3, 53, (5, 11), generator=torch.Generator().manual_seed(1)).tolist()
    return rows([row[: (4, 11, 11, 7, 7)[i]] for i, row in enumerate(ids)])


def expected(x):
    with_one = np.concatenate([x, np.ones((len(x), 1))], 1)
    return {
        InputMoment("count"): np.float64(len(x)),
        InputMoment("mean"): x.mean(0),
        InputMoment("variance"): x.var(0),
        InputMoment("second"): (x**2).mean(0),
        InputMoment("mean_abs"): np.abs(x).mean(0),
        Gram(): x.T @ x / len(x),
        Gram(constant=True): with_one.T @ with_one / len(x),
    }


def caught(model, path, samples):
    """What enters the module at `path`, sample by sample without its padding, [tokens, features]."""
    seen = []
    handle = model.get_submodule(path).register_forward_pre_hook(lambda m, x: seen.append(x[0].detach()))
    for ids, mask in zip(samples.ids, samples.mask, strict=True):
        model(input_ids=ids[mask][None])
    handle.remove()
    return torch.cat([x.reshape(-1, x.shape[-1]) for x in seen]).double().numpy()


def check(got, name, x, rtol=1e-10):
    for key, value in expected(x).items():
        np.testing.assert_allclose(got.get(key)[name].numpy(), value, rtol=rtol, atol=rtol, err_msg=str(key))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_linear_maps(small_llama, ragged, batch_size):
    model = small_llama().double()
    got = gather(model, ragged, KEYS, batch_size=batch_size)
    for path in ("self_attn.o_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj"):
        path = f"model.layers.1.{path}"
        check(got, f"{path}.weight", caught(model, path, ragged))
    assert "model.embed_tokens.weight" not in got.get(Gram())
    assert got.get(Gram())["lm_head.weight"].dtype == torch.float64


def test_transposed_and_fused_maps(ragged):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=53, n_embd=24, n_layer=2, n_head=3, n_positions=32, bos_token_id=0)
    config.eos_token_id = 0
    model = GPT2LMHeadModel(config).double().eval()
    got = gather(model, ragged, KEYS, batch_size=2)
    for path in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        path = f"transformer.h.1.{path}"
        check(got, f"{path}.weight", caught(model, path, ragged))


def test_half_precision_accumulates_wide(small_llama, ragged):
    model = small_llama().bfloat16()
    got = gather(model, ragged, KEYS, batch_size=2)
    path = "model.layers.0.mlp.down_proj"
    check(got, f"{path}.weight", caught(model, path, ragged), rtol=2e-2)
    assert {t.dtype for key in KEYS for t in got.get(key).values()} == {torch.float64}


def moe(cls, config_cls):
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    config = config_cls(
        vocab_size=53,
        hidden_size=32,
        intermediate_size=24,
        num_local_experts=5,
        num_experts_per_tok=2,
        **sizes,
    )
    return cls(config).eval()


def by_expert(model, layer, samples):
    """For each expert the rows that enter its projections: routing and inputs caught, the rest redone."""
    experts = model.model.layers[layer].mlp.experts
    found = {"gate_up_proj": [[] for _ in range(5)], "down_proj": [[] for _ in range(5)]}

    def before(m, args, kwargs):
        x, index = (list(args) + list(kwargs.values()))[:2]
        for token, chosen in zip(x.detach(), index, strict=True):
            for e in chosen.tolist():
                gate, up = (experts.gate_up_proj[e].detach() @ token).chunk(2)
                found["gate_up_proj"][e].append(token.double().numpy())
                found["down_proj"][e].append((torch.nn.functional.silu(gate) * up).double().numpy())

    handle = experts.register_forward_pre_hook(before, with_kwargs=True)
    for ids, mask in zip(samples.ids, samples.mask, strict=True):
        model(input_ids=ids[mask][None])
    handle.remove()
    return found


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_experts(ragged, implementation):
    model = moe(MixtralForCausalLM, MixtralConfig)
    want = by_expert(model, 1, ragged)
    model.set_experts_implementation(implementation)
    got = gather(model, ragged, KEYS, batch_size=2)
    for leaf, slices in want.items():
        name = f"model.layers.1.mlp.experts.{leaf}"
        for e, found in enumerate(slices):
            for key, value in expected(np.array(found)).items():
                np.testing.assert_allclose(got.get(key)[name][e].numpy(), value, rtol=1e-4, atol=1e-6)


def test_experts_that_are_stored_transposed(ragged):
    model = moe(GptOssForCausalLM, GptOssConfig)
    results = []
    for implementation in ("eager", "batched_mm", "grouped_mm"):
        model.set_experts_implementation(implementation)
        results.append(gather(model, ragged, [Gram()], batch_size=2).get(Gram()))
    assert results[0]["model.layers.0.mlp.experts.down_proj"].shape == (5, 24, 24)
    for other in results[1:]:
        for name, value in results[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


class Bare(nn.Module):
    """Uses its parameters directly, after a cast, and one of them not at all."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(53, 6)
        self.first = nn.Parameter(torch.randn(9, 6))
        self.second = nn.Parameter(torch.randn(9, 53))
        self.idle = nn.Parameter(torch.randn(3, 3))

    def forward(self, input_ids, use_cache=False):
        x = self.embed(input_ids)
        y = torch.einsum("btd,fd->btf", x.double(), self.first.double()).float()
        self.hidden = y.relu()
        return type("Out", (), {"logits": self.hidden @ self.second})


def test_bare_parameters(ragged):
    model = Bare()
    keys = [InputMoment("mean"), InputMoment("variance", ("first", "second"))]
    got = gather(model, ragged, keys, batch_size=5)
    x = np.concatenate(
        [model.embed(i[m]).detach().numpy() for i, m in zip(ragged.ids, ragged.mask, strict=True)]
    )
    y = np.maximum(x.astype(np.float64) @ model.first.detach().numpy().T.astype(np.float64), 0)
    np.testing.assert_allclose(got.get(keys[0])["first"].numpy(), x.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.get(keys[1])["second"].numpy(), y.var(0), rtol=1e-4)
    assert set(got.get(keys[0])) == {"first", "second"}


def test_a_product_that_is_not_seen_is_an_error(ragged):
    with pytest.raises(SurgeonError, match="Bare ran, and no matrix product with 'idle' was seen"):
        gather(Bare(), ragged, [Gram(params=("idle",))])


def test_statistics_of_a_step_watch_its_consumers_only(small_llama, ragged):
    model = small_llama()
    graph = llama_graph(model.config)
    key = Gram().on(graph, [graph.group("layers.1.mlp.ffn"), graph.group("layers.2.attn.kv_group")])
    names = {"model.layers.1.mlp.down_proj.weight", "model.layers.2.self_attn.o_proj.weight"}
    assert set(key.params or ()) == names
    assert set(gather(model, ragged, [key]).get(key)) == names


def test_shared_operand_is_one_object(small_llama):
    model, seen = small_llama(), {}
    names = tuple(f"model.layers.0.self_attn.{x}_proj.weight" for x in "qkvo")
    taps = Taps(model)
    taps.subscribe(names, lambda entering: seen.__setitem__(entering.param, entering.rows_NF))
    handles = list(taps.attach())
    model(input_ids=torch.tensor([[3, 4, 5]]))
    for handle in handles:
        handle.remove()
    q, k, v, o = (seen[name] for name in names)
    assert q is k is v
    assert o is not q


def test_masked_view_shows_what_enters_there(small_llama, ragged):
    from surgeon.plan import Keep, Plan
    from surgeon.rebuild import masked

    model = small_llama()
    graph = llama_graph(model.config)
    view = masked(model, Plan("llama").add([Keep("layers.1.mlp.ffn", (0, 3, 4), 0)]), graph)
    got = gather(model, ragged, [InputMoment("mean_abs")], view=view).get(InputMoment("mean_abs"))
    moved = got["model.layers.1.mlp.down_proj.weight"].nonzero().flatten().tolist()
    assert moved == [0, 3, 4]


def test_fluctuation_of_experts_is_refused(ragged):
    with pytest.raises(SurgeonError, match="stack of matrices; the released code of FLAP knows no experts"):
        gather(moe(MixtralForCausalLM, MixtralConfig), ragged, [Fluctuation()])


def test_block_gram_of_many_rows():
    x = torch.randn(10000, 3, generator=torch.Generator().manual_seed(0))
    y = x[:, :2] + 1
    np.testing.assert_allclose(block_gram(x, y).numpy(), x.double().T @ y.double(), rtol=1e-5, atol=1e-3)
    assert block_gram(x[:0], y[:0]).shape == (3, 2)


def test_unpadded_keeps_order_and_cuts_both_ends():
    ids = torch.arange(20).view(4, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [1, 0, 1, 0, 0]]).bool()
    found = [(part.ids.tolist(), bool(part.mask.all())) for part in Samples(ids, mask).unpadded(3)]
    assert found == [([[0, 1, 2, 3, 4]], True), ([[6, 7, 8]], True), ([[15, 16, 17, 18, 19]], False)]


def test_a_sample_with_a_gap_is_refused(small_llama):
    mask = torch.tensor([[True, True, False, True, True]])
    samples = Samples(torch.full((1, 5), 7), mask)
    with pytest.raises(InputError, match="a calibration sample has a gap in its text"):
        gather(small_llama(), samples, [InputMoment("mean")])
