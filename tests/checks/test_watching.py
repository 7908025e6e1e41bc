"""Your own loop, watched: silent faults are named within three steps, sound loops hear nothing."""

import pytest
import torch
from torch import nn

import advisor

SOUND_STEPS = 230
"""More than two looks."""


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def data():
    x = torch.randn(128, 8)
    return x, (x[:, :1] * x[:, 1:2] + x[:, 2:3] > 0).float()


def network(*last):
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1), *last)


def loop(module, optimizer, steps, *, order="zbs", loss=None, squeeze=False):
    """z: zero_grad, b: backward, s: step."""
    x, y = data()
    measure = loss or nn.BCEWithLogitsLoss()
    with advisor.watch(module, optimizer, tell=lambda finding: None) as watched:
        for _ in range(steps):
            value = measure(module(x), y[:, 0] if squeeze else y)
            for part in order:
                {"z": optimizer.zero_grad, "b": value.backward, "s": optimizer.step}[part]()
    return {finding.code for finding in watched.findings}


def sgd(module, rate=0.1):
    return torch.optim.SGD(module.parameters(), lr=rate)


def test_a_sound_loop_hears_nothing_and_is_afterwards_as_it_was():
    module, backward = network(), torch.Tensor.backward
    assert loop(module, torch.optim.Adam(module.parameters(), lr=1e-2), SOUND_STEPS) == set()
    assert torch.Tensor.backward is backward
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert not any(p._backward_hooks for p in module.parameters())


def test_watching_changes_nothing_about_the_training():
    weights = []
    for watched in (False, True):
        torch.manual_seed(3)
        module, (x, y) = network(), data()
        optimizer = sgd(module)
        context = advisor.watch(module, optimizer) if watched else torch.enable_grad()
        with context:
            for _ in range(5):
                optimizer.zero_grad()
                nn.functional.mse_loss(module(x), y + 2.5).backward()
                optimizer.step()
        weights.append(module[0].weight.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("order", "code"), [("bs", "gradients-kept"), ("bzs", "gradients-cleared"), ("bsz", None), ("zbs", None)]
)
def test_the_order_of_the_loop(order, code):
    module = network()
    found = loop(module, sgd(module), 3, order=order)
    assert code in found if code else not found


def test_a_loop_that_never_steps():
    module = network()
    assert "no-step" in loop(module, sgd(module), 4, order="zb")


def test_accumulated_gradients_are_no_fault():
    module, (x, y) = network(), data()
    optimizer = sgd(module)
    with advisor.watch(module, optimizer, tell=lambda finding: None) as watched:
        for _ in range(4):
            optimizer.zero_grad()
            for part in (slice(0, 64), slice(64, None)):
                nn.functional.binary_cross_entropy_with_logits(module(x[part]), y[part]).backward()
            optimizer.step()
    assert watched.findings == []


def test_what_the_first_step_shows():
    module = network(nn.Sigmoid())
    assert "bounded-logits" in loop(module, sgd(module), 3)
    module = network()
    assert "shapes-differ" in loop(module, sgd(module), 3, loss=nn.MSELoss(), squeeze=True)
    module = network()
    assert "optimizer-holds-nothing" in loop(module, sgd(network()), 3)
    module = network().eval()
    assert "evaluation-mode" in loop(module, sgd(module), 3)


def test_a_loss_that_runs_away():
    module = network()
    found = loop(module, sgd(module, 1e4), 10, loss=lambda out, y: (out - 3 * y).square().mean())
    assert found & {"loss-not-finite", "loss-explodes"}


def test_steps_that_move_nothing_and_a_schedule_that_ends_at_once():
    module = network()
    assert "updates-too-small" in loop(module, sgd(module, 1e-12), 4)
    module = network()
    optimizer, (x, y) = sgd(module), data()
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
    with advisor.watch(module, optimizer, planned=1000, tell=lambda finding: None) as watched:
        for _ in range(12):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(module(x), y).backward()
            optimizer.step()
            schedule.step()
    assert [finding.code for finding in watched.findings] == ["schedule-too-fast"]


@pytest.mark.parametrize(("epoch", "told"), [(20, ["warm-up-restarts"]), (1000, [])])
def test_a_warm_up_of_more_steps_than_are_looked_at(epoch, told):
    module = network()
    optimizer, (x, y) = sgd(module), data()
    with advisor.watch(module, optimizer, tell=lambda finding: None) as watched:
        for step in range(45):
            optimizer.param_groups[0]["lr"] = 0.1 * min(1.0, (1 + step % epoch) / 20)
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(module(x), y).backward()
            optimizer.step()
    assert [finding.code for finding in watched.findings] == told


def test_validation_and_training_apart():
    module = network()
    optimizer, (x, y) = sgd(module), data()
    said = []
    with advisor.watch(module, optimizer, tell=said.append) as watched:
        for epoch in range(8):
            for _ in range(3):
                optimizer.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(module(x), y).backward()
                optimizer.step()
            watched.validation(abs(epoch - 2) / 10 + 0.5)
    assert [finding.code for finding in said] == ["validation-apart"] and said[0].notes == ("N26", "N28")


def test_a_finding_is_told_once_and_on_stderr(capsys):
    module = network(nn.Sigmoid())
    x, y = data()
    optimizer = sgd(module)
    with advisor.watch(module, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(module(x), y).backward()
            optimizer.step()
    told = capsys.readouterr()
    assert told.err.count("bounded-logits") == 1 and told.out == ""


def test_steps_that_no_hook_sees():
    module, (x, y) = network(), data()
    with advisor.watch(module, tell=lambda finding: None) as watched:
        for _ in range(4):
            value = nn.functional.binary_cross_entropy_with_logits(module(x), y)
            watched.after_step(value.detach())
    assert "updates-too-small" in {finding.code for finding in watched.findings}
