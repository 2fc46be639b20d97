from __future__ import annotations

import pytest
import torch

from surgeon.calibrate import Samples, Statistics, gather, rows, statistics
from surgeon.calibrate.gradient import Gradient
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.errors import InputError, SurgeonError

# Norms and softmax run in float32 inside, so another batch size rounds differently.
CLOSE = {"rtol": 1e-3, "atol": 1e-7}


@pytest.fixture
def samples() -> Samples:
    ids = torch.randint(3, 53, (5, 11), generator=torch.Generator().manual_seed(1))
    return rows(ids.tolist())


def stock_gradient(model, ids, mask=None):
    """One backward of the mean loss over all rows, which is close to transformers' own float32 loss."""
    model.zero_grad()
    labels = ids if mask is None else ids.masked_fill(~mask, -100)
    out = model(input_ids=ids, labels=labels, attention_mask=mask)
    loss = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert loss.item() == pytest.approx(out.loss.item(), abs=1e-5)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


def test_gradient_is_that_of_the_stock_loss_whatever_the_batch_size(small_llama, samples):
    model = small_llama(tie_word_embeddings=True).double()
    loss, expected = stock_gradient(model, samples.ids)
    model.zero_grad()
    for size in (1, 2, 5):
        got = gather(model, samples, [Gradient()], batch_size=size)
        assert got.loss == pytest.approx(loss, abs=1e-6)
        assert set(got.get(Gradient())) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(got.get(Gradient())[name], value, **CLOSE)
    assert all(p.grad is None for p in model.parameters())


def test_padding_counts_for_nothing(small_llama, samples):
    model = small_llama().double()
    ragged = rows([row[: 4 + 2 * i] for i, row in enumerate(samples.ids.tolist())])
    _, expected = stock_gradient(model, ragged.ids, ragged.mask)
    for size in (1, 3):
        got = gather(model, ragged, [Gradient()], batch_size=size).get(Gradient())
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, **CLOSE)


def test_squared_gradient_is_the_mean_square_over_samples(small_llama, samples):
    model = small_llama().double()
    squares: dict[str, torch.Tensor] = {}
    for row in samples.ids:
        for name, value in stock_gradient(model, row[None])[1].items():
            squares[name] = squares.get(name, 0) + value**2 / len(samples)
    got = gather(model, samples, [SquaredGradient(), Gradient()], batch_size=5)
    for name, value in squares.items():
        torch.testing.assert_close(got.get(SquaredGradient())[name], value, rtol=1e-9, atol=1e-18)
    alone = gather(model, samples, [Gradient()], batch_size=5).get(Gradient())
    for name, value in alone.items():
        torch.testing.assert_close(got.get(Gradient())[name], value, **CLOSE)


def test_low_precision_weights_accumulate_in_float32(small_llama, samples):
    model = small_llama().bfloat16()
    got = gather(model, samples, [Gradient(), SquaredGradient()])
    assert {t.dtype for key in (Gradient(), SquaredGradient()) for t in got.get(key).values()} == {
        torch.float32
    }
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_module_is_left_as_it_was(small_llama, samples):
    model = small_llama().train()
    model.model.layers[0].eval()
    model.model.norm.weight.requires_grad_(False)
    before = [t.clone() for t in model.state_dict().values()]
    done = []
    gather(model, samples, [Gradient()], batch_size=2, progress=lambda *at: done.append(at))
    assert done == [(2, 5), (4, 5), (5, 5)]
    assert model.training
    assert not model.model.layers[0].training
    assert not model.model.norm.weight.requires_grad
    assert model.lm_head.weight.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_loss_and_gradient_that_are_not_finite_are_errors(small_llama, samples):
    model = small_llama()
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    with pytest.raises(SurgeonError, match="the loss on calibration samples 0 to 1 is nan"):
        gather(model, samples, [Gradient()], batch_size=2)
    model = small_llama(seed=2)
    model.model.norm.weight.register_hook(lambda g: g * float("inf"))
    with pytest.raises(SurgeonError, match=r"not finite in 1 parameters \(first: model.norm.weight\)"):
        gather(model, samples, [Gradient()])


def test_nothing_to_predict_is_an_error(small_llama):
    blank = Samples(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[True, False, True, False]]))
    with pytest.raises(InputError, match="no token to predict"):
        gather(small_llama(), blank, [Gradient()])


def test_reading_what_was_not_measured_is_an_error(small_llama, samples):
    got = gather(small_llama(), samples, [Gradient()])
    with pytest.raises(
        SurgeonError, match=r"SquaredGradient\(params=None\) was not measured; this run measured Gradient"
    ) as e:
        got.get(SquaredGradient())
    assert "needs()" in str(e.value)
    with pytest.raises(SurgeonError):
        got.only([]).get(Gradient())
    with pytest.raises(TypeError):
        got.get(Gradient())["x"] = torch.zeros(1)  # type: ignore[index]
    assert gather(small_llama(), samples, []).results == Statistics().results


def test_registered_names():
    assert {"gradient", "squared_gradient", "input_moment", "gram"} <= set(statistics.names())
