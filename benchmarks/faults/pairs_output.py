"""Faults of the last layer, the loss and the target."""

from __future__ import annotations

import program as p
import torch
from program import Program, case, so
from torch import nn
from torch.nn import functional as F

NEURALINT = "https://github.com/neuralint/neuralint/tree/main/sample_buggy_scripts"
KARPATHY = "https://karpathy.github.io/2019/04/25/recipe/"


@case(so(31880720), "softmax over one unit: the output is 1 for every row", "output")
def softmax_over_one_unit(fixed: bool) -> Program:
    module = p.mlp([30, 32, 1], nn.ReLU, nn.Sigmoid() if fixed else nn.Softmax(dim=1))
    return Program(module, p.cancer().scaled(), nn.BCELoss(), p.adam(module), 20, score="auc")


@case(so(45378493), "softmax over one unit after convolutions and batch normalization", "output")
def softmax_one_unit_series(fixed: bool) -> Program:
    data = p.as_columns(p.waves(classes=2))
    module = nn.Sequential(
        nn.Conv1d(1, 16, 5, padding=2), nn.BatchNorm1d(16), nn.LeakyReLU(), nn.MaxPool1d(4),
        nn.Conv1d(16, 16, 5, padding=2), nn.BatchNorm1d(16), nn.LeakyReLU(), nn.Flatten(),
        nn.Linear(256, 1), nn.Sigmoid() if fixed else nn.Softmax(dim=1),
    )  # fmt: skip
    return Program(module, data, nn.BCELoss(), p.adam(module, 1e-3), 10, score="auc")


@case(so(45442843), "softmax over one unit, judged by the absolute error", "output", "loss|output")
def softmax_one_unit_absolute(fixed: bool) -> Program:
    module = p.mlp([2, 16, 1], nn.Tanh, nn.Sigmoid() if fixed else nn.Softmax(dim=1))
    loss = nn.BCELoss() if fixed else nn.L1Loss()
    return Program(module, p.moons(), loss, p.adam(module, 1e-2), 40, score="auc")


@case(
    so(33969059),
    "a softmax over one unit and inputs in the thousands for a sum of three numbers",
    "output",
    "inputs",
)
def softmax_for_a_number(fixed: bool) -> Program:
    x = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 10_000
    y = x @ torch.tensor([[2.0], [1.0], [0.5]]) + 2.2
    data = p._split(x, y)
    if not fixed:
        module = p.mlp([3, 8, 4, 1], nn.Tanh, nn.Softmax(dim=1))
        return Program(module, data, nn.MSELoss(), p.sgd(module, 0.1, momentum=0.9), 20, score="r2")
    mean, deviation = data.y.mean(), data.y.std()
    module = p.mlp([3, 8, 4, 1], nn.Tanh)
    scaled = data.scaled().map(y=lambda t: (t - mean) / deviation)
    return Program(module, scaled, nn.MSELoss(), p.adam(module, 1e-2), 40, score="r2")


@case(
    so(34311586),
    "exclusive or: softmax over one unit, a rate of 0.001 and 20 epochs",
    "output",
    "learning rate|steps|optimizer",
)
def xor_with_softmax(fixed: bool) -> Program:
    module = p.mlp([2, 8, 1], nn.Tanh if fixed else nn.Sigmoid, nn.Sigmoid() if fixed else nn.Softmax(dim=1))
    if fixed:
        return Program(module, p.xor(), nn.BCELoss(), p.adam(module, 0.05), 200, 4, "auc", shown=4)
    return Program(module, p.xor(), nn.MSELoss(), p.sgd(module, 0.001, momentum=0.9), 20, 4, "auc", shown=4)


@case(
    so(31556268),
    "exclusive or: sigmoid units, absolute error, plain descent at 0.05",
    "loss",
    "learning rate|steps|optimizer",
)
def xor_by_absolute_error(fixed: bool) -> Program:
    module = p.mlp([2, 8, 1], nn.Tanh if fixed else nn.Sigmoid, nn.Sigmoid())
    if fixed:
        return Program(module, p.xor(), nn.BCELoss(), p.adam(module, 0.05), 200, 4, "auc", shown=4)
    return Program(module, p.xor(), nn.L1Loss(), p.sgd(module, 0.05, momentum=0.11), 200, 4, "auc", shown=4)


@case(so(44164749), "a softmax for labels that do not exclude each other", "output|loss")
def softmax_for_several_labels(fixed: bool) -> Program:
    module = p.mlp([10, 32, 3], nn.ReLU, *([] if fixed else [nn.Softmax(dim=1)]))
    loss = nn.BCEWithLogitsLoss() if fixed else nn.BCELoss()
    return Program(module, p.several(), loss, p.adam(module, 1e-2), 30, score="auc")


@case(so(38648195), "a softmax and squared error for labels that do not exclude each other", "output|loss")
def softmax_and_squares_for_labels(fixed: bool) -> Program:
    module = p.mlp([10, 32, 32, 3], nn.ReLU, *([] if fixed else [nn.Softmax(dim=1)]))
    if fixed:
        return Program(module, p.several(), nn.BCEWithLogitsLoss(), p.adam(module, 1e-2), 30, score="auc")
    return Program(module, p.several(), nn.MSELoss(), p.sgd(module, 0.01), 30, score="auc")


@case(so(44066044), "ReLU before a loss of probabilities, columns of any size", "output", "inputs")
def relu_before_binary_loss(fixed: bool) -> Program:
    data = p.cancer()
    module = p.mlp([30, 12, 12, 1], nn.ReLU, nn.Sigmoid() if fixed else nn.ReLU())

    def loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy(out.clamp(0, 1), target)

    return Program(module, data.scaled() if fixed else data, loss, p.adam(module, 1e-2), 20, score="auc")


@case(so(47352366), "ReLU after the last layer, so that no logit is below 0", "output")
def relu_on_the_logits(fixed: bool) -> Program:
    module = p.small_cnn(10, 1, *([] if fixed else [nn.ReLU()]))
    return Program(module, p.digits(), nn.CrossEntropyLoss(), p.adam(module), 6)


@case(so(48221692), "a sigmoid output for a number without bounds", "output")
def sigmoid_for_a_number(fixed: bool) -> Program:
    module = p.mlp([5, 24, 1], nn.Tanh, *([] if fixed else [nn.Sigmoid()]))
    data = p.friedman().map(lambda t: t[:, :5])
    return Program(module, data, nn.MSELoss(), p.adam(module, 1e-2), 40, score="r2")


@case(so(48251943), "a ReLU output for numbers of which half are below 0", "output")
def relu_for_numbers_below_zero(fixed: bool) -> Program:
    module = p.mlp([10, 32, 1], nn.ReLU, *([] if fixed else [nn.ReLU()]))
    return Program(module, p.friedman(), nn.MSELoss(), p.adam(module, 1e-2), 40, score="r2")


@case(
    "https://discuss.pytorch.org/t/cross-entropy-loss-is-not-decreasing/43814",
    "softmax, and cross-entropy that does it again",
    "output|loss",
)
def softmax_before_cross_entropy(fixed: bool) -> Program:
    module = p.mlp([64, 48, 10], nn.ReLU, *([] if fixed else [nn.Softmax(dim=1)]))
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module), 10)


@case(
    KARPATHY,
    "a softmax in the forward of a convolutional network, then cross-entropy",
    "output|loss",
    silent=True,
)
def softmax_in_the_forward(fixed: bool) -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = p.small_cnn()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x) if fixed else F.softmax(self.body(x), dim=-1)

    module = Net()
    return Program(module, p.digits(), F.cross_entropy, p.sgd(module, 0.05, momentum=0.9), 8)


@case(KARPATHY, "sigmoid, and a loss that does it again", "output|loss", silent=True)
def sigmoid_before_logit_loss(fixed: bool) -> Program:
    module = p.mlp([2, 32, 1], nn.ReLU, *([] if fixed else [nn.Sigmoid()]))
    return Program(
        module, p.moons(), nn.BCEWithLogitsLoss(), p.sgd(module, 0.1, momentum=0.9), 25, score="auc"
    )


@case(
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html",
    "raw scores into a loss that takes logarithms of probabilities",
    "output|loss",
)
def scores_into_nll(fixed: bool) -> Program:
    module = p.mlp([13, 32, 3], nn.ReLU, *([nn.LogSoftmax(dim=1)] if fixed else []))
    return Program(module, p.wine().scaled(), nn.NLLLoss(), p.adam(module), 20)


@case(
    "https://runebook.dev/ru/docs/pytorch/generated/torch.nn.nllloss",
    "probabilities into a loss that takes their logarithms",
    "output|loss",
)
def probabilities_into_nll(fixed: bool) -> Program:
    module = p.small_cnn(10, 1, nn.LogSoftmax(dim=1) if fixed else nn.Softmax(dim=1))
    return Program(module, p.digits(), F.nll_loss, p.sgd(module, 0.05, momentum=0.9), 6)


@case(so(44399299), "sigmoids and cross-entropy for four classes that exclude each other", "output|loss")
def sigmoid_for_exclusive_classes(fixed: bool) -> Program:
    data = p.waves(classes=4)
    module = nn.Sequential(
        nn.Conv1d(1, 16, 7, padding=3), nn.ReLU(), nn.MaxPool1d(4), nn.Conv1d(16, 32, 5, padding=2), nn.ReLU(),
        nn.MaxPool1d(4), nn.Flatten(), nn.Linear(128, 4), *([] if fixed else [nn.Sigmoid()]),
    )  # fmt: skip
    return Program(module, data, nn.CrossEntropyLoss(), p.adam(module, 1e-3), 12)


@case(so(50426349), "a tanh output for values beyond -1 and 1", "output")
def tanh_for_larger_values(fixed: bool) -> Program:
    data = p.friedman().map(y=lambda t: 2.5 * t)
    module = p.mlp([10, 48, 1], nn.ReLU, *([] if fixed else [nn.Tanh()]))
    return Program(module, data, nn.MSELoss(), p.adam(module, 1e-2), 40, score="r2")


@case(so(50555434), "sigmoid outputs for six numbers that reach far beyond 1", "output")
def sigmoid_for_six_numbers(fixed: bool) -> Program:
    x = torch.randn(500, 28, generator=torch.Generator().manual_seed(1))
    y = 3 * x[:, :6] + 2 * x[:, 6:12].abs()
    module = p.mlp([28, 48, 24, 6], nn.ReLU, *([] if fixed else [nn.Sigmoid()]))
    return Program(module, p._split(x, y), nn.L1Loss(), p.adam(module, 5e-3), 40, score="r2")


@case(
    "https://github.com/deepset-ai/FARM/issues/229",
    "a target (rows,) and an output (rows, 1): the loss is of all pairs",
    "loss|target|shape",
    silent=True,
)
def target_without_its_axis(fixed: bool) -> Program:
    data = p.friedman()
    module = p.mlp([10, 32, 1])
    data = data if fixed else data.map(y=lambda t: t[:, 0])
    return Program(module, data, nn.MSELoss(), p.adam(module, 1e-2), 30, score="r2")


@case(
    "https://github.com/mlcommons/GaNDLF/issues/134",
    "an output that lost its column, against a target that has one",
    "loss|target|shape",
    silent=True,
)
def output_without_its_axis(fixed: bool) -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = p.mlp([2, 32, 1], nn.Tanh)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x) if fixed else self.body(x).squeeze(1)

    module, mse = Net(), nn.SmoothL1Loss()
    return Program(module, p.moons().map(y=lambda t: 4 * t - 2), mse, p.adam(module, 1e-2), 30, score="auc")


@case(
    "https://github.com/pytorch/pytorch/issues/123339",
    "classes 1 and 2 for a loss that takes 0 and 1",
    "loss|target",
)
def classes_one_and_two(fixed: bool) -> Program:
    data = p.cancer().scaled().map(y=lambda t: t if fixed else t + 1)
    module = p.mlp([30, 16, 1])
    return Program(module, data, nn.BCEWithLogitsLoss(), p.adam(module, 3e-2), 20, score="auc")


@case(
    "https://github.com/bigmb/Unet-Segmentation-Pytorch-Nest-of-Unets/issues/18",
    "targets from -1 to 1 for a loss that takes 0 to 1: it falls below 0",
    "loss|target",
)
def targets_from_minus_one(fixed: bool) -> Program:
    data = p.several().map(y=lambda t: t if fixed else 2 * t - 1)
    module = p.mlp([10, 32, 3])
    return Program(module, data, nn.BCEWithLogitsLoss(), p.adam(module, 3e-2), 20, score="auc")


@case(so(55731589), "one sigmoid unit and a binary loss for ten classes", "output|loss|target")
def one_unit_for_ten_classes(fixed: bool) -> Program:
    if fixed:
        module = p.small_cnn()
        return Program(module, p.digits(), nn.CrossEntropyLoss(), p.sgd(module, 0.05, momentum=0.9), 8)
    module = p.small_cnn(1)
    data = p.digits().map(y=lambda t: t.float()[:, None])
    return Program(module, data, nn.BCEWithLogitsLoss(), p.sgd(module, 0.05, momentum=0.9), 8)


@case(
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html",
    "cross-entropy over a single column: it is 0 whatever the weights",
    "output|loss",
)
def cross_entropy_of_one_column(fixed: bool) -> Program:
    module = p.mlp([2, 16, 1])
    if fixed:
        return Program(module, p.moons(), nn.BCEWithLogitsLoss(), p.adam(module, 1e-2), 30, score="auc")
    return Program(module, p.moons(), nn.CrossEntropyLoss(), p.adam(module, 1e-2), 30, score="auc")


@case(NEURALINT, "the network ends in a softmax along the rows", "output|loss|shape")
def softmax_along_the_rows(fixed: bool) -> Program:
    module = p.mlp([13, 32, 3], nn.ReLU, nn.LogSoftmax(dim=1 if fixed else 0))
    return Program(module, p.wine().scaled(), nn.NLLLoss(), p.adam(module, 1e-2), 20)


@case(
    "https://github.com/pytorch/pytorch/issues/1339",
    "the loss is computed from the predicted class, which has no gradient",
    "loop|output|gradient",
    silent=True,
)
def loss_of_the_predicted_class(fixed: bool) -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = p.mlp([2, 16, 1])
            self.scale = None if fixed else nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = torch.sigmoid(self.body(x))
            return out if fixed else torch.round(out) * self.scale

    module = Net()
    return Program(
        module,
        p.moons(),
        F.mse_loss if not fixed else F.binary_cross_entropy,
        p.adam(module, 1e-2),
        30,
        score="auc",
    )


@case(
    "https://github.com/Wardat-ISU/DeepLocalize/tree/master/Benchmark/GitHub",
    "prices in the hundreds of thousands as they are, for a network that begins at 0",
    "target|inputs|learning rate|steps",
)
def prices_as_they_are(fixed: bool) -> Program:
    data = p.friedman().map(y=lambda t: 250_000 + 80_000 * t)
    mean, deviation = data.y.mean(), data.y.std()
    module = p.mlp([10, 32, 32, 1])
    data = data.map(y=lambda t: (t - mean) / deviation) if fixed else data
    return Program(module, data, nn.MSELoss(), p.adam(module, 3e-3), 30, score="r2")


@case(
    "https://github.com/dlfaults/deepcrime/tree/master/operators",
    "squared error on the classes' numbers",
    "loss|output|target",
)
def squares_of_class_numbers(fixed: bool) -> Program:
    if fixed:
        module = p.mlp([64, 48, 10])
        return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module), 10)
    module = p.mlp([64, 48, 10])
    return Program(
        module,
        p.flat_digits(),
        lambda out, y: F.mse_loss(out, y.float()[:, None].expand_as(out)),
        p.adam(module),
        10,
    )
