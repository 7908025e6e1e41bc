"""A user's training: each fault is named, with the line that fixes it, and its sound twin is left alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import advisor
from advisor.errors import UserError


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


X = torch.randn(128, 8, generator=torch.Generator().manual_seed(0))
BINARY = (X[:, :1] + X[:, 1:2] * X[:, 2:3] > 0).float()
CLASSES = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
NUMBERS = X[:, :1] * 2 + X[:, 1:2].sin()
LABELS = (X[:, :3] > 0).float()


def net(out, *last, width=32, activation=nn.ReLU):
    layers = [nn.Linear(8, width), activation(), nn.Linear(width, width), activation(), nn.Linear(width, out)]
    return nn.Sequential(*layers, *last)


def adam(module, rate=3e-3, **options):
    return torch.optim.Adam(module.parameters(), lr=rate, **options)


def divergence(out, y):
    return F.kl_div(out, 0.9 * F.one_hot(y, 3).float() + 0.1 / 3, reduction="batchmean")


def squares_by_hand(out, y):
    return (out - y).square().mean()


def ranks(out, y):
    """Of pairs of rows: a square on purpose."""
    return F.softplus(-(out - out.squeeze(1)) * (y - y.squeeze(1)).sign()).mean()


def found(module, target, loss, optimizer=None, *, x=X, **options):
    optimizer = optimizer or adam(module)
    return {
        f.code: f
        for f in advisor.inspect(module, x, target, loss=loss, optimizer=optimizer, **options).findings
        if f.severity != "note"
    }


@pytest.mark.parametrize(
    ("last", "target", "loss"),
    [
        ([], CLASSES, nn.CrossEntropyLoss()),
        ([nn.LogSoftmax(dim=1)], CLASSES, nn.NLLLoss()),
        ([], BINARY, nn.BCEWithLogitsLoss()),
        ([nn.Sigmoid()], BINARY, nn.BCELoss()),
        ([], LABELS, nn.BCEWithLogitsLoss()),
        ([], NUMBERS, nn.MSELoss()),
        ([], NUMBERS, lambda out, y: ((out - y) ** 2).mean()),
        ([], NUMBERS, nn.HuberLoss()),
        ([nn.LogSoftmax(dim=1)], CLASSES, divergence),
        ([], NUMBERS, ranks),
    ],
)
def test_losses_that_fit(last, target, loss):
    columns = 3 if target is CLASSES else target.shape[1]
    assert found(net(columns, *last), target, loss, epochs=50, rows=1000) == {}


@pytest.mark.parametrize(
    ("columns", "last", "target", "loss", "code"),
    [
        (1, nn.Softmax(dim=1), BINARY, nn.BCELoss(), "softmax-over-one-unit"),
        (3, nn.Softmax(dim=1), CLASSES, nn.CrossEntropyLoss(), "softmax-before-cross-entropy"),
        (3, nn.LogSoftmax(dim=0), CLASSES, nn.NLLLoss(), "softmax-along-rows"),
        (3, nn.Sigmoid(), CLASSES, nn.CrossEntropyLoss(), "bounded-logits"),
        (1, nn.Sigmoid(), BINARY, nn.BCEWithLogitsLoss(), "bounded-logits"),
        (3, nn.ReLU(), CLASSES, nn.CrossEntropyLoss(), "logits-not-negative"),
        (3, nn.Softmax(dim=1), LABELS, nn.BCELoss(), "softmax-for-labels"),
        (3, nn.Softmax(dim=1), LABELS, nn.MSELoss(), "softmax-for-labels"),
        (3, nn.Softmax(dim=1), CLASSES, nn.NLLLoss(), "nll-of-no-logarithm"),
        (3, nn.Identity(), CLASSES, nn.NLLLoss(), "nll-of-no-logarithm"),
        (1, nn.ReLU(), BINARY, lambda o, y: F.binary_cross_entropy(o.clamp(0, 1), y), "no-probabilities"),
        (1, nn.Identity(), BINARY, nn.BCELoss(), "loss-fails"),
        (1, nn.Identity(), BINARY, nn.CrossEntropyLoss(), "cross-entropy-of-one-column"),
        (1, nn.Identity(), BINARY, nn.MSELoss(), "distance-for-classes"),
        (1, nn.Sigmoid(), NUMBERS, nn.MSELoss(), "target-out-of-reach"),
        (1, nn.ReLU(), NUMBERS, nn.L1Loss(), "target-out-of-reach"),
        (1, nn.Tanh(), 3 * NUMBERS, nn.MSELoss(), "target-out-of-reach"),
        (1, nn.Identity(), BINARY + 1, nn.BCEWithLogitsLoss(), "target-outside-loss"),
        (1, nn.Identity(), NUMBERS[:, 0], nn.MSELoss(), "shapes-differ"),
        (1, nn.Identity(), NUMBERS[:, 0], squares_by_hand, "shapes-differ"),
        (3, nn.Softmax(dim=1), CLASSES, divergence, "divergence-of-no-logarithm"),
        (3, nn.Dropout(0.5), CLASSES, nn.CrossEntropyLoss(), "dropout-on-the-output"),
    ],
)
@pytest.mark.filterwarnings("error:Using a target size")  # the finding says it
def test_losses_that_do_not(columns, last, target, loss, code):
    finding = found(net(columns, last), target, loss)[code]
    assert finding.category in ("output", "loss", "target", "shape", "regularization")
    assert finding.change or code == "loss-fails"


def test_shapes_that_a_loss_refuses():
    finding = found(nn.Sequential(net(1), nn.Flatten(0)), BINARY, nn.BCEWithLogitsLoss())["loss-fails"]
    assert finding.change == "target = target.reshape(output.shape)" and "128 x 1" in finding.message


def test_one_logit_for_two_classes_of_whole_numbers():
    assert advisor.inspect(net(1), X, BINARY.long()).passed


def test_what_the_optimizer_holds():
    module = net(1)
    loss = nn.BCEWithLogitsLoss()
    other = found(module, BINARY, loss, adam(net(1)))["optimizer-holds-nothing"]
    assert other.severity == "error" and "model.parameters()" in other.change
    optimizer = adam(module)
    module[-1] = nn.Linear(32, 1)
    assert found(module, BINARY, loss, optimizer)["optimizer-misses-parameters"].where == (
        "4.weight",
        "4.bias",
    )
    module[0].requires_grad_(False)
    assert found(module, BINARY, loss)["frozen-layers"].where == ("0.weight",)
    with torch.no_grad():
        module[0].weight.mul_(1.7)  # no longer as it was drawn: somebody trained it
    assert "frozen-layers" not in found(module, BINARY, loss)


@pytest.mark.parametrize(
    ("rate", "code"), [(3e-3, None), (1e-6, "learning-rate-too-low"), (3.0, "learning-rate-too-high")]
)
def test_the_learning_rate(rate, code):
    module = net(1)
    said = found(module, BINARY, nn.BCEWithLogitsLoss(), adam(module, rate), epochs=20, rows=1000)
    assert (set(said) & {"learning-rate-too-low", "learning-rate-too-high"}) == ({code} if code else set())
    if code:
        assert (
            said[code].change.startswith("lr=")
            and said[code].effect.with_change[-1] < said[code].effect.without[-1]
        )


def test_a_rate_that_runs_away_is_an_error():
    module = net(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=30.0)
    finding = found(module, 5 * NUMBERS, nn.MSELoss(), optimizer)["learning-rate-too-high"]
    assert finding.severity == "error" and "diverges" in finding.message


def test_steps_and_batches():
    finding = found(net(1), NUMBERS, nn.MSELoss(), epochs=1, rows=1000, batch_size=128)["too-few-steps"]
    assert "are 8 steps" in finding.message and finding.change.startswith("epochs = ")
    assert "too-few-steps" not in found(net(1), NUMBERS, nn.MSELoss(), epochs=60, rows=1000, batch_size=128)


def test_decay_and_dropout():
    loss = nn.CrossEntropyLoss()
    module = net(3)
    assert "weight-decay-too-strong" in found(module, CLASSES, loss, adam(module, weight_decay=3.0))
    assert "weight-decay-too-strong" not in found(module, CLASSES, loss, adam(module, weight_decay=1e-4))
    dropped = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.97), nn.Linear(16, 3))
    assert "dropout-too-strong" in found(dropped, CLASSES, loss, adam(dropped, 1e-2))
    dropped[2].p = 0.5
    assert "dropout-too-strong" not in found(dropped, CLASSES, loss, adam(dropped, 1e-2))


def test_dropout_before_a_loss_written_by_hand_may_be_meant():
    def alike(out, y):
        return (out @ out.T - (y[:, None] == y[None]).float()).square().mean()

    assert "dropout-on-the-output" not in found(net(3, nn.Dropout(0.5)), CLASSES, alike)


def test_inputs_are_judged_by_what_they_do():
    loss = nn.BCEWithLogitsLoss()
    wide = X * torch.tensor([1.0, 1, 1, 900, 1, 5000, 1, 1])
    finding = found(net(1), BINARY, loss, x=wide)["unscaled-inputs"]
    assert "column (or channel) 5 of 8" in finding.message and finding.effect is not None
    bits = (X > 0.8).float()
    assert "unscaled-inputs" not in found(net(1), BINARY, loss, x=bits)


@pytest.mark.parametrize("loss", [nn.HuberLoss(), nn.SmoothL1Loss(beta=5.0), nn.MSELoss(reduction="sum")])
def test_a_target_that_is_far_away_for_other_losses(loss):
    module = net(1)
    assert "unscaled-target" in found(module, 200 + 60 * NUMBERS, loss, epochs=50, rows=2000, batch_size=64)
    assert "unscaled-target" not in found(module, NUMBERS, loss, adam(module, 1e-3), epochs=50, rows=2000)


def test_codes_that_are_read_along_the_rows():
    class Words(nn.Module):
        def __init__(self, batch_first):
            super().__init__()
            self.words, self.head = nn.Embedding(9, 16), nn.Linear(16, 3)
            self.rnn = nn.GRU(16, 16, batch_first=batch_first)

        def forward(self, x):
            return self.head(self.rnn(self.words(x))[0][:, -1])

    codes = torch.randint(9, (128, 12), generator=torch.Generator().manual_seed(1))
    classes = codes[:, -1] % 3
    assert "rows-mixed" in found(Words(False), classes, nn.CrossEntropyLoss(), x=codes)
    assert "rows-mixed" not in found(Words(True), classes, nn.CrossEntropyLoss(), x=codes)


def test_a_target_that_is_far_away():
    assert "unscaled-target" in found(net(1), 50_000 + 900 * NUMBERS, nn.MSELoss())
    assert "unscaled-target" not in found(net(1), NUMBERS, nn.MSELoss())


def test_what_cuts_the_gradient():
    class Cut(nn.Module):
        def __init__(self, way):
            super().__init__()
            self.one, self.two, self.way = nn.Linear(8, 16), nn.Linear(16, 1), way

        def forward(self, x):
            return self.two(self.way(torch.relu(self.one(x))))

    loss = nn.BCEWithLogitsLoss()
    assert "gradient-cut" in found(Cut(lambda h: h.detach()), BINARY, loss)
    assert "gradient-zero" in found(Cut(torch.round), BINARY, loss)
    assert not {"gradient-cut", "gradient-zero"} & set(found(Cut(torch.tanh), BINARY, loss))
    assert "no-gradient" in found(net(1), BINARY, lambda o, y: F.mse_loss(o.detach(), y).requires_grad_())


def test_layers_that_nobody_knows():
    class Listed(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.layers, self.last = kind([nn.Linear(8, 8), nn.Linear(8, 8)]), nn.Linear(8, 1)

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.last(x)

    class Made(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(16, 1)

        def forward(self, x):
            return self.last(torch.relu(nn.Linear(8, 16)(x)))

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.last = torch.randn(8, 16), nn.Linear(16, 1)

        def forward(self, x):
            return self.last(torch.relu(x @ self.weight))

    loss = nn.BCEWithLogitsLoss()
    assert "nn.ModuleList" in found(Listed(list), BINARY, loss)["layers-not-registered"].change
    assert "layers-not-registered" not in found(Listed(nn.ModuleList), BINARY, loss)
    assert "layers-made-in-forward" in found(Made(), BINARY, loss)
    assert "weight-is-no-parameter" in found(Plain(), BINARY, loss)


def test_modes():
    class Always(nn.Module):
        def __init__(self, always):
            super().__init__()
            self.one, self.two, self.always = nn.Linear(8, 32), nn.Linear(32, 1), always

        def forward(self, x):
            return self.two(F.dropout(torch.relu(self.one(x)), 0.3, training=self.always or self.training))

    loss = nn.BCEWithLogitsLoss()
    assert "random-in-evaluation" in found(Always(True), BINARY, loss)
    assert "random-in-evaluation" not in found(Always(False), BINARY, loss)
    normed = nn.Sequential(nn.Linear(8, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1))
    assert "evaluation-mode" not in found(normed, BINARY, loss)
    assert found(normed.eval(), BINARY, loss)["evaluation-mode"].change == "model.train()"


def test_activations_inside():
    loss = nn.CrossEntropyLoss()
    inside = found(net(3, activation=lambda: nn.Softmax(dim=1)), CLASSES, loss)["softmax-inside"]
    assert inside.effect.with_change[-1] < inside.effect.without[-1]
    view = nn.Sequential(nn.Linear(8, 32), nn.Unflatten(1, (4, 8)), nn.Flatten(), nn.Linear(32, 3))
    assert "no-activation-between" in found(view, CLASSES, loss)
    factors = nn.Sequential(
        nn.Linear(8, 32),
        nn.ReLU(),
        nn.Linear(32, 4, bias=False),
        nn.Linear(4, 32),
        nn.ReLU(),
        nn.Linear(32, 3),
    )
    assert "no-activation-between" not in found(factors, CLASSES, loss)


def test_kernels_filters_and_narrow_layers():
    images, classes = torch.randn(64, 1, 8, 8), torch.arange(64) % 10

    def convolutions(kernel, one, two):
        return nn.Sequential(
            nn.Conv2d(1, one, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(one, two, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * two, 10),
        )  # fmt: skip

    def codes(module, x=images):
        return {f.code for f in advisor.inspect(module, x, classes).findings if f.severity != "note"}

    assert not codes(convolutions(3, 8, 16)) & {"kernel-as-large-as-the-map", "filters-become-fewer"}
    assert "kernel-as-large-as-the-map" in codes(convolutions(9, 8, 16))
    assert "filters-become-fewer" in codes(convolutions(3, 32, 4))
    pixels = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1), nn.Flatten()
    )
    seen = advisor.inspect(
        pixels, images, images.flatten(1), loss=nn.MSELoss()
    )  # what it is to make, not features
    assert "filters-become-fewer" not in {f.code for f in seen.findings}
    rows = torch.randn(64, 20)
    assert "narrow-layer" in codes(nn.Sequential(nn.Linear(20, 2), nn.ReLU(), nn.Linear(2, 10)), rows)
    assert "narrow-layer" not in codes(nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 10)), rows)


def test_targets_that_the_inputs_do_not_tell():
    loss = nn.BCEWithLogitsLoss()
    shuffled = BINARY[torch.randperm(128, generator=torch.Generator().manual_seed(5))]
    assert "target-unrelated" in found(net(1), shuffled, loss)
    assert "target-unrelated" not in found(net(1), BINARY, loss)


def test_your_own_step_is_taken_and_taken_back():
    module = net(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    before = [p.detach().clone() for p in module.parameters()]

    def step(zero):
        def own(module, optimizer, loss, x, y):
            if zero:
                optimizer.zero_grad()
            value = loss(module(x), y)
            value.backward()
            optimizer.step()
            return value

        return own

    loss = nn.BCEWithLogitsLoss()
    kept = found(module, BINARY, loss, optimizer, step=step(False))["gradients-kept"]
    assert kept.severity == "error" and kept.change == "optimizer.zero_grad()"
    assert "gradients-kept" not in found(module, BINARY, loss, optimizer, step=step(True))
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    assert not optimizer.state and all(p.grad is None for p in module.parameters())


def test_a_warm_up_that_begins_again():
    module = net(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def step_of(epoch):
        done = 0

        def own(module, optimizer, loss, x, y):
            nonlocal done
            optimizer.param_groups[0]["lr"] = 0.1 * min(1.0, (1 + done % epoch) / 5)
            done += 1
            optimizer.zero_grad()
            value = loss(module(x), y)
            value.backward()
            optimizer.step()
            return value

        return own

    loss = nn.BCEWithLogitsLoss()
    assert "warm-up-restarts" in found(module, BINARY, loss, optimizer, step=step_of(5))
    assert "warm-up-restarts" not in found(module, BINARY, loss, optimizer, step=step_of(1000))


def test_a_loader_in_place_of_a_batch():
    order = CLASSES.argsort()
    rows = list(zip(X[order], CLASSES[order], strict=True))
    loss = nn.CrossEntropyLoss()

    def codes(shuffle):
        module = net(3)
        seen = advisor.inspect(
            module, DataLoader(rows, 32, shuffle=shuffle), loss=loss, optimizer=adam(module)
        )
        return {f.code for f in seen.findings}

    assert "rows-in-order" in codes(False) and "rows-in-order" not in codes(True)


def test_how_the_module_is_called():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 1)

        def forward(self, x, *, double):
            return self.two(self.one(x)) * double

    module = Two()
    seen = advisor.inspect(
        module, X, BINARY, loss=nn.BCEWithLogitsLoss(), forward=lambda m, x: m(x, double=2)
    )
    finding = next(f for f in seen.findings if f.code == "no-activation-between")
    assert finding.where == ("two",)


def test_the_text_shows_measurement_and_code():
    module = net(1)
    text = str(advisor.inspect(module, X, BINARY, loss=nn.BCEWithLogitsLoss(), optimizer=adam(module, 1e-6)))
    assert (
        "learning-rate-too-low" in text and "measured: 30 steps on this batch" in text and "code: lr=" in text
    )


def test_repair_makes_it_right_and_leaves_yours_alone():
    module = net(1, nn.Softmax(dim=1))
    before = [p.detach().clone() for p in module.parameters()]
    options = {"loss": nn.BCELoss(), "optimizer": adam(module, 1e-2), "epochs": 20, "batch_size": 16}
    proposal = advisor.repair(module, X, BINARY, **options)
    assert proposal.tried[0].changes == () and proposal.tried[0].score < 0.1
    assert max(t.score for t in proposal.tried) > 0.6 and len(proposal.tried) <= 5
    assert proposal.improved and "loss = nn.BCEWithLogitsLoss()" in str(proposal)
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    sound = net(1)
    kept = advisor.repair(
        sound, X, BINARY, loss=nn.BCEWithLogitsLoss(), optimizer=adam(sound, 1e-2), epochs=60, batch_size=16
    )
    assert all("loss" not in change for change in kept.draft.changes)
    with pytest.raises(UserError, match="repair needs a target for each"):
        advisor.repair(module, X, BINARY[:5], **options)


def test_rows_that_are_sorted_by_class_are_not_unrelated():
    order = CLASSES.argsort()
    module = net(3)
    assert "target-unrelated" not in found(module, CLASSES[order], nn.CrossEntropyLoss(), x=X[order])
