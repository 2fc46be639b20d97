"""The loop that trains tensors of one module: it finds minima, holds what is not free, keeps the best."""

from __future__ import annotations

import pytest
import torch

from surgeon.calibrate.training import Lesson, Schedule, divided, train
from surgeon.errors import SurgeonError


class Scale(torch.nn.Module):
    """Numbers times what comes in."""

    def __init__(self):
        super().__init__()
        self.by = torch.nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x * self.by


def lessons(part, aim=3.0, count=4):
    x = torch.randn(10 * count, 2, generator=torch.Generator().manual_seed(0))
    return [Lesson(part, (x[i : i + 10],), {}, aim * x[i : i + 10]) for i in range(0, len(x), 10)]


def learn(given, schedule, told=lambda done: None, free=None, start=None):
    start = {"by": torch.ones(2)} if start is None else start
    return train(*divided(given, 0.25, schedule.seed), start, schedule, told, free)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_minimum_is_found_and_what_is_not_free_stays(decay):
    part, told = Scale(), []
    free = {"by": torch.tensor([True, False])}
    done = learn(lessons(part), Schedule(400, 0.1, 40, decay=decay), told.append, free)
    assert done.tensors["by"][0] == pytest.approx(3, rel=1e-3 if not decay else 0.5)
    assert done.tensors["by"][1] == 1
    assert done.before == pytest.approx(4 / 9)
    assert done.after < done.before
    assert told == list(range(1, 401))
    assert torch.equal(part.by.detach(), torch.ones(2))


def test_a_step_is_adamws_on_the_relative_error():
    """Written out with torch's own optimiser on one batch, clipped gradients included."""
    part = Scale()
    [only] = lessons(part, count=1)
    by = torch.ones(2, requires_grad=True)
    adam = torch.optim.AdamW([by], lr=0.1, weight_decay=0.1)
    for step in range(3):
        adam.param_groups[0]["lr"] = 0.1 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 3)).item())
        x = only.args[0]
        loss = (x * by - 3 * x).square().sum() / (3 * x).square().sum()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([by], 1.0)
        adam.step()
    done = learn([only], Schedule(3, 0.1, 1, decay=0.1))
    torch.testing.assert_close(done.tensors["by"], by.detach())


def test_fixed_tensors_take_part_and_are_not_trained():
    class Both(Scale):
        def __init__(self):
            super().__init__()
            self.plus = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return x * self.by + self.plus

    part = Both()
    given = [
        Lesson(part, one.args, one.kwargs, one.target + 1, {"plus": torch.ones(2)}) for one in lessons(part)
    ]
    done = learn(given, Schedule(300, 0.1, 30))
    torch.testing.assert_close(done.tensors["by"], torch.full((2,), 3.0), rtol=1e-2, atol=0)
    assert set(done.tensors) == {"by"}


def test_the_best_is_kept_and_patience_ends_it():
    """At the minimum already, a step can only lead away."""
    start = {"by": torch.full((2,), 3.0)}
    given = [
        Lesson(one.part, one.args, {}, one.target + 0.1 * one.args[0].flip(0)) for one in lessons(Scale())
    ]
    best = learn(given, Schedule(200, 0.01, 1), start=start).tensors
    done = learn(given, Schedule(60, 1.0, 2, patience=3), start=best)
    assert done.steps == 6
    assert done.after == done.before
    assert torch.equal(done.tensors["by"], best["by"])


@pytest.mark.parametrize(("count", "share", "held"), [(1, 0.5, 1), (2, 0.0, 1), (8, 0.25, 2), (3, 0.99, 2)])
def test_lessons_are_divided_once_each(count, share, held):
    given = lessons(Scale(), count=count)
    used, chosen = divided(given, share, 0)
    assert len(chosen) == held
    if count > 1:
        assert {id(one) for one in used} | {id(one) for one in chosen} == {id(one) for one in given}
        assert len(used) + len(chosen) == count


def test_an_error_that_is_not_finite_is_said():
    with pytest.raises(SurgeonError, match=r"training Scale gave an error of (nan|inf)"):
        learn(lessons(Scale()), Schedule(2, 1e30, 1, seed=-(2**70)))


def test_a_module_that_gives_no_tensor_is_an_error():
    class Named(Scale):
        def forward(self, x):
            return {"x": x}

    with pytest.raises(SurgeonError, match="returned dict, which holds no stream"):
        Lesson(Named(), (torch.ones(1, 2),), {}, torch.ones(1, 2)).given({})
