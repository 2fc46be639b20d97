"""A module is the same after a trace as before, whatever happened in between."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from surgeon.errors import TraceError
from surgeon.trace import trace_module
from surgeon.trace.escapes import ESCAPES, escapes
from surgeon.trace.fake import storage_less
from surgeon.trace.record import Recorder
from tests.conftest import llama_config
from tests.trace.toys import IDS, toy


def standing(module):
    """Everything that a trace could have changed."""
    hooks = nn.modules.module
    return {
        "tensors": {name: id(tensor) for name, tensor in module.state_dict(keep_vars=True).items()},
        "values": {name: tensor.clone() for name, tensor in module.state_dict().items()},
        "buffers": [id(buffer) for buffer in module.buffers()],
        "grad": [parameter.requires_grad for parameter in module.parameters()],
        "training": [part.training for part in module.modules()],
        "hooks": [(len(p._forward_hooks), len(p._forward_pre_hooks)) for p in module.modules()],
        "global hooks": (len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)),
        "apply": nn.Module._apply,
        "tensor methods": [vars(torch.Tensor).get(name) for name in ESCAPES],
        "config": copy.deepcopy(vars(module.config)) if hasattr(module, "config") else None,
        "grad mode": torch.is_grad_enabled(),
    }


def same(before, after):
    values = before.pop("values"), after.pop("values")
    assert before == after
    assert values[0].keys() == values[1].keys()
    assert all(values[0][name].is_meta or torch.equal(values[0][name], values[1][name]) for name in values[0])


@pytest.fixture
def llama():
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    config = llama_config(tie_word_embeddings=True, attn_implementation="sdpa", use_cache=True)
    module = LlamaForCausalLM(config).train()
    module.model.layers[1].eval()
    module.model.layers[0].mlp.requires_grad_(False)
    return module


def test_a_model_is_left_as_it_was(llama):
    before = standing(llama)
    assert llama.config._attn_implementation == "sdpa"
    trace_module(llama)
    same(before, standing(llama))
    assert llama.lm_head.weight is llama.model.embed_tokens.weight
    assert torch.isfinite(llama(torch.zeros(1, 3, dtype=torch.int64)).logits).all()


def test_a_model_without_weights_is_left_as_it_was(llama):
    bare = llama.to("meta")
    before = standing(bare)
    trace_module(bare)
    same(before, standing(bare))


def test_a_model_whose_forward_raises_is_left_as_it_was():
    def body(module, x):
        module.norm.running_mean.add_(1)
        raise ValueError("in the middle")

    module = toy(body, norm=lambda: nn.BatchNorm1d(24)).train()
    before = standing(module)
    with pytest.raises(TraceError, match="in the middle"):
        trace_module(module, inputs={"input_ids": IDS})
    same(before, standing(module))


def test_buffers_that_forward_writes_into_keep_their_values():
    def body(module, x):
        module.count.add_(1)
        return x

    module = toy(body, count=lambda: nn.Buffer(torch.zeros(())))
    before = standing(module)
    trace_module(module, inputs={"input_ids": IDS})
    same(before, standing(module))


def test_parameters_have_no_storage_and_ties_stay_ties(llama):
    shapes = {name: tensor.shape for name, tensor in llama.named_parameters()}
    with storage_less(llama):
        assert all(isinstance(p, FakeTensor) for p in llama.parameters())
        assert {p.device.type for p in llama.parameters()} == {"cpu"}
        assert {name: p.shape for name, p in llama.named_parameters()} == shapes
        assert llama.lm_head.weight is llama.model.embed_tokens.weight
        assert not any(part.training for part in llama.modules())
        assert llama.to(torch.float16) is llama


def test_buffers_keep_their_values(llama):
    name, buffer = next(iter(llama.named_buffers()))
    with storage_less(llama):
        inside = llama.get_buffer(name)
        assert not isinstance(inside, FakeTensor)
        assert torch.equal(inside, buffer)
        assert inside is not buffer


def test_lists_and_arrays_are_noted():
    recorder = Recorder()
    tensor = torch.arange(3)
    with escapes(recorder):
        assert tensor.tolist() == [0, 1, 2]
        assert tensor.numpy().sum() == 3
    tensor.tolist()
    assert [(event.name, event.inputs) for event in recorder.events] == [
        (name, [recorder.value(tensor)]) for name in ESCAPES
    ]
