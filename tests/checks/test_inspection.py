"""Bring your own network: each mistake made for real, and sound networks about which nothing is said."""

import copy
import itertools
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import advisor
from advisor.checks.inspection import load_module, random_input
from advisor.checks.receptive_fields import fields_of, last_map, support
from advisor.checks.tracing import trace
from advisor.errors import UserError


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def he(module):
    """He's law on every weight, biases of 0: what a sound ReLU network begins with."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module


def mlp(*widths, activation=nn.ReLU):
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


class Residual(nn.Module):
    def __init__(self, channels, norm=True):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()

    def forward(self, x):
        return F.relu(x + self.norm(self.conv(x)))


def sound_image_network():
    layers = [
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        Residual(16), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), Residual(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(32, 10),
    ]  # fmt: skip
    return he(nn.Sequential(*layers))


def codes(module, input, target=None, **options):
    return {finding.code for finding in advisor.inspect(module, input, target, **options).findings}


IMAGES = random_input("1,28,28", 32)
ROWS = random_input("20", 64)


def test_a_sound_network_for_images_gets_no_finding():
    found = advisor.inspect(sound_image_network(), IMAGES, torch.arange(32) % 10, rows=10_000)
    assert found.findings == ()
    assert found.passed and "the checks found no problem" in str(found)
    assert found.receptive_field == (26, 26)
    assert [layer["shape"][0] for layer in found.layers] == [32] * 5


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.SiLU])
def test_a_sound_network_for_tables_gets_no_finding(activation):
    network = he(mlp(20, 128, 128, 1, activation=activation))
    assert codes(network, ROWS, torch.randn(64, 1), rows=1_000) == set()


def test_recurrent_and_attention_networks_pass():
    class Gru(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(3, 16, batch_first=True), nn.Linear(16, 2)

        def forward(self, x):
            return self.head(self.gru(x)[0][:, -1])

    series = torch.randn(32, 25, 3)
    assert codes(Gru(), series, torch.arange(32) % 2) == set()
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
    found = codes(nn.Sequential(nn.Linear(3, 16), layer), series)
    assert not found & {
        "residual-without-norm",
        "rows-mixed",
        "receptive-field-small",
        "no-activation-between",
    }


def test_the_network_is_afterwards_as_it_was():
    network = sound_image_network()
    network[1].eval()
    before, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    state = torch.random.get_rng_state()
    advisor.inspect(network, IMAGES, torch.arange(32) % 10)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert [m.training for m in network.modules()] == modes
    assert all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_hooks_go_even_when_the_network_fails():
    network = mlp(20, 8, 2)
    with pytest.raises(UserError):
        advisor.inspect(network, random_input("7", 4))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_the_librarys_initialization_is_told_only_where_the_signal_is_lost(activation):
    assert codes(mlp(20, 256, 256, 256, 2, activation=activation), ROWS) == set()
    found = advisor.inspect(mlp(20, *[64] * 20, 2, activation=activation), ROWS)
    finding = next(f for f in found.findings if f.code == "initialization")
    assert "the signal is lost on its way through 21 layers" in finding.message
    assert finding.notes == ("N22", "N31") and finding.category == "initialization"
    assert "initialization" not in codes(he(mlp(20, *[64] * 20, 2, activation=nn.ReLU)), ROWS)


def test_weights_that_are_too_large():
    target = torch.arange(64) % 3
    network = mlp(20, 64, 3)
    for part in network:
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=3.0)
    finding = next(f for f in advisor.inspect(network, ROWS, target).findings if f.code == "initialization")
    assert "weights are far too large" in finding.message
    assert "initialization" not in codes(mlp(20, 64, 3), ROWS, target)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_units_that_begin_alike(value):
    network = mlp(20, 64, 3)
    assert "symmetric-weights" not in codes(network, ROWS)
    for part in network:
        if isinstance(part, nn.Linear):
            nn.init.constant_(part.weight, value)
    finding = next(f for f in advisor.inspect(network, ROWS).findings if f.code == "symmetric-weights")
    assert finding.severity == "error" and finding.where == ("0",)
    last = mlp(20, 64, 3)
    nn.init.zeros_(last[-1].weight)  # the output may begin at zero
    assert "symmetric-weights" not in codes(last, ROWS)


def test_normalization_makes_the_size_of_weights_irrelevant():
    network = nn.Sequential(nn.Linear(20, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 2))
    assert codes(network, ROWS) == set()


def test_dead_units():
    network = he(mlp(20, 64, 64, 2))
    assert "dead-units" not in codes(network, ROWS)
    with torch.no_grad():
        network[2].bias.fill_(-30.0)
    finding = next(f for f in advisor.inspect(network, ROWS).findings if f.code == "dead-units")
    assert finding.where == ("3",) and finding.message.startswith("100%") and "N5" in finding.notes


def test_saturated_units():
    network = mlp(20, 64, 64, 2, activation=nn.Tanh)
    with torch.no_grad():
        network[0].weight.mul_(100)
    finding = next(f for f in advisor.inspect(network, ROWS).findings if f.code == "saturated-units")
    assert "1" in finding.where


def test_functions_count_as_modules_do():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(20, 64), nn.Linear(64, 2)

        def forward(self, x):
            return self.two(torch.relu(self.one(x) - 50))

    found = advisor.inspect(Plain(), ROWS)
    assert "dead-units" in {f.code for f in found.findings}


def test_vanishing_and_exploding_gradients():
    deep = mlp(20, *[32] * 12, 2, activation=nn.Sigmoid)
    assert "gradient-vanishes" in codes(deep, ROWS)
    wild = he(mlp(20, *[32] * 8, 2))
    with torch.no_grad():
        for parameter in wild.parameters():
            parameter.mul_(5)
    assert "gradient-explodes" in codes(wild, ROWS)


def test_a_small_receptive_field():
    def network(*convolutions):
        return he(nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)))

    narrow = network(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    finding = next(f for f in advisor.inspect(narrow, IMAGES).findings if f.code == "receptive-field-small")
    assert "5 x 5 of 28 x 28" in finding.message and "N25" in finding.notes
    assert "receptive-field-small" not in codes(narrow, IMAGES, field_needed=5)
    wide = network(
        nn.Conv2d(1, 8, 7, stride=2, padding=3), nn.ReLU(), nn.Conv2d(8, 8, 7, padding=3), nn.ReLU()
    )
    assert "receptive-field-small" not in codes(wide, IMAGES)
    assert "receptive-field-small" in codes(wide, IMAGES, field_needed=25)


@pytest.mark.parametrize(
    "layers",
    [
        [
            nn.Conv1d(2, 4, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(4, 4, 3, dilation=4, padding=4),
            nn.ReLU(),
        ],
        [
            nn.Conv1d(2, 4, 3, stride=2),
            nn.BatchNorm1d(4),
            nn.ReLU(inplace=True),
            nn.AvgPool1d(3, 2),
            nn.Conv1d(4, 4, 7),
        ],
    ],
)
def test_the_arithmetic_of_receptive_fields_is_the_gradients_support(layers):
    network, series = (
        nn.Sequential(*layers, nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(4, 2)),
        torch.randn(3, 2, 200),
    )
    passed = trace(network, series)
    step, seen = last_map(passed, 1)
    assert not seen.whole
    assert support(network, step.number, series) == seen.size
    assert fields_of(passed, 1)[passed.last].whole


def test_late_pooling():
    def convolutions(count):
        return [
            part for n in range(count) for part in (nn.Conv2d(1 if n == 0 else 8, 8, 3, padding=1), nn.ReLU())
        ]

    late = nn.Sequential(*convolutions(4), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(8 * 49, 2))
    assert "late-pooling" in codes(late, IMAGES)
    more = [nn.Conv2d(8, 8, 3), nn.ReLU()] * 3
    early = nn.Sequential(*convolutions(1), nn.MaxPool2d(2), *more, nn.Flatten(), nn.Linear(8 * 64, 2))
    assert "late-pooling" not in codes(early, IMAGES)


def test_batch_normalization_of_few_rows():
    network, target = sound_image_network(), torch.arange(4)
    finding = next(
        f for f in advisor.inspect(network, IMAGES[:4], target).findings if f.code == "batch-norm-small-batch"
    )
    assert "4 rows" in finding.message and "nn.GroupNorm(4, 32)" in finding.fix and finding.notes == ("N4",)
    assert "batch-norm-small-batch" not in codes(network, IMAGES[:4], target, batch_size=64)
    assert "batch-norm-small-batch" in codes(network, IMAGES, batch_size=8)
    table = nn.Sequential(nn.Linear(20, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    assert "does not accept so few" in str(advisor.inspect(table, ROWS[:1]))


def test_residual_branches_without_normalization():
    blocks = [Residual(8, norm=False), Residual(8)]
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *blocks, nn.Flatten(), nn.Linear(8 * 784, 2))
    finding = next(f for f in advisor.inspect(network, IMAGES).findings if f.code == "residual-without-norm")
    assert finding.where == ("1.conv",) and finding.notes == ("N30",)


def test_what_stands_before_batch_normalization():
    network = nn.Sequential(
        nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32),
        nn.ReLU(), nn.Linear(32, 2),
    )  # fmt: skip
    found = {f.code: f for f in advisor.inspect(network, ROWS).findings}
    assert (
        found["bias-before-batch-norm"].where == ("0",) and found["bias-before-batch-norm"].severity == "note"
    )
    assert found["dropout-before-batch-norm"].where == ("3",)


def test_softmax_before_cross_entropy():
    network = nn.Sequential(*he(mlp(20, 32, 3)), nn.Softmax(dim=1))
    found = advisor.inspect(network, ROWS, torch.arange(64) % 3)
    assert found.findings[0].code == "softmax-before-cross-entropy" and found.findings[0].severity == "error"
    assert not found.passed
    assert "softmax-before-cross-entropy" not in codes(
        nn.Sequential(*network[:-1], nn.LogSoftmax(dim=1)), ROWS
    )


def test_parameters_against_rows():
    network = he(mlp(20, 512, 512, 2))
    assert "many-parameters-for-the-rows" in codes(network, ROWS, rows=100)
    assert "many-parameters-for-the-rows" not in codes(network, ROWS, rows=1_000)


def test_the_scale_of_the_inputs():
    network = he(mlp(20, 32, 2))
    pixels = torch.randint(0, 256, (32, 1, 28, 28)).float()
    assert "unscaled-inputs" in codes(sound_image_network(), pixels)
    assert "unscaled-inputs" not in codes(sound_image_network(), pixels / 255)
    years = ROWS.clone()
    years[:, 4] = 1990 + years[:, 4]
    finding = next(f for f in advisor.inspect(network, years).findings if f.code == "unscaled-inputs")
    assert "column (or channel) 4 of 20" in finding.message and finding.rule == "scaled-inputs"
    assert "unscaled-inputs" not in codes(nn.Sequential(nn.BatchNorm1d(20), network), years)
    years[0, 0] = torch.nan
    assert advisor.inspect(network, years).findings[0].code == "input-not-finite"


def test_unused_parameters_rows_mixed_and_missing_activations():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.forgotten = nn.Linear(20, 16), nn.Linear(16, 2), nn.Linear(3, 3)

        def forward(self, x):
            h = self.one(x)
            return self.two(h - h.mean(dim=0))

    found = {f.code: f for f in advisor.inspect(Odd(), ROWS).findings}
    assert found["unused-parameters"].where == ("forgotten.weight", "forgotten.bias")
    assert "rows-mixed" in found
    assert "no-activation-between" in codes(nn.Sequential(nn.Linear(20, 16), nn.Linear(16, 2)), ROWS)


def test_an_output_that_is_not_finite():
    class Log(nn.Module):
        def forward(self, x):
            return x.log()

    assert "output-not-finite" in codes(nn.Sequential(nn.Linear(20, 2), Log()), ROWS)


class _Square(torch.autograd.Function):
    factor = 2.0

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(context, gradient):
        return gradient * _Square.factor * context.saved_tensors[0]


def test_a_gradient_that_is_no_derivative(monkeypatch):
    class Square(nn.Module):
        def forward(self, x):
            return _Square.apply(x)

    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(20, 3)

        def forward(self, x):
            return _Square.apply(self.linear(x))

    network = nn.Sequential(nn.Linear(20, 16), Square(), nn.Linear(16, 2))
    assert not {"gradient-wrong"} & (codes(network, ROWS) | codes(Inside(), ROWS))
    monkeypatch.setattr(_Square, "factor", 1.0)
    finding = advisor.inspect(network, ROWS).findings[0]
    assert (finding.code, finding.severity, finding.where) == (
        "gradient-wrong",
        "error",
        ("1",),
    ) and finding.notes == ("N7",)
    assert "gradient-wrong" in codes(Inside(), ROWS)


def test_arrays_and_several_inputs_are_taken():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.words = nn.Linear(20, 8), nn.Embedding(5, 8)

        def forward(self, x, codes):
            return self.table(x) * self.words(codes)

    found = advisor.inspect(Two(), (np.random.default_rng(0).normal(size=(16, 20)), np.arange(16) % 5))
    assert found.parameters == 20 * 8 + 8 + 40
    assert found.to_dict()["input_shape"] == (16, 20)


@pytest.mark.parametrize(
    ("module", "input", "target", "said"),
    [
        ("no module", ROWS, None, "takes a torch.nn.Module, not str"),
        (nn.LazyLinear(2), ROWS, None, "pass one batch through it first"),
        (mlp(20, 2), "text", None, "must be a tensor"),
        (mlp(20, 2), torch.zeros(0, 20), None, "at least one row"),
        (mlp(20, 2), torch.zeros(3, 7), None, "does not take an input of 3 x 7"),
        (mlp(20, 2), ROWS, torch.zeros(3), "the target has 3 rows and the input 64"),
        (mlp(20, 2), ROWS, torch.arange(64) % 5, "5 classes need as many columns"),
        (mlp(20, 1), ROWS, torch.arange(64) % 3, "3 classes need as many columns"),
        (mlp(20, 2), ROWS, torch.zeros(64, 3), "they must agree"),
        (nn.Identity(), torch.arange(4), None, "no tensor of numbers"),
    ],
)
def test_what_cannot_be_inspected_is_one_clear_line(module, input, target, said):
    with pytest.raises(UserError, match=said):
        advisor.inspect(module, input, target)


@pytest.mark.parametrize(
    ("code", "name", "said"),
    [
        ("", "model", "write package.module:factory"),
        ("", "no_such_package_here:make", "there is no module 'no_such_package_here'"),
        ("import nothing_at_all", "own_model:make", "own_model:make cannot be imported"),
        ("raise SystemExit(3)", "own_model:make", "own_model:make cannot be imported: SystemExit: 3"),
        ("1 +", "own_model:make", "SyntaxError"),
        ("def make(): pass", "own_model:maek", r"did you mean 'make'\?"),
        (
            "def make(): raise ValueError('no weights')",
            "own_model:make",
            r"make\(\) raised ValueError: no weights",
        ),
        ("def make(): return 3", "own_model:make", "made a int: expected a torch.nn.Module"),
    ],
)
def test_factories_that_do_not_work(tmp_path, monkeypatch, code, name, said):
    (tmp_path / "own_model.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_model", raising=False)
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(UserError, match=said):
        load_module(name)


@pytest.mark.parametrize("shape", ["", "a,b", "0,3", "1,28,28,", "100000,100000"])
def test_shapes_that_are_none(shape):
    with pytest.raises(UserError, match="--input-shape"):
        random_input(shape, 4)
