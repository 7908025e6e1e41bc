"""Faults of the set-up: inputs, initialization, learning rate, optimizer, steps, batch size."""

from __future__ import annotations

import program as p
import torch
from program import Program, case, so
from torch import nn
from torch.nn import functional as F

CS231N = "https://cs231n.github.io/neural-networks-2/"
MUTANTS = "https://github.com/dlfaults/dnn-auto-fl-empirical-assesment"
BACKPROP = "https://karpathy.medium.com/yes-you-should-understand-backprop-e2f06eab496b"


@case(so(39525358), "three columns of very different size as they are, rows one by one", "inputs")
def columns_as_they_are(fixed: bool) -> Program:
    data = p.cancer().map(lambda t: t[:, [0, 3, 4]] * torch.tensor([1.0, 10.0, 1.0]))
    module = p.mlp([3, 12, 3, 1], nn.ReLU, nn.Sigmoid())
    return Program(
        module, data.scaled() if fixed else data, nn.BCELoss(), p.adam(module, 3e-3), 20, 16, "auc"
    )


@case(so(31627380), "ages, fares and codes as they are", "inputs")
def codes_as_they_are(fixed: bool) -> Program:
    data = p.wine()
    module = p.mlp([13, 64, 3])
    return Program(
        module, data.scaled() if fixed else data, nn.CrossEntropyLoss(), p.adam(module, 3e-3), 12, 16
    )


@case(so(47724077), "columns in the thousands next to columns from 0 to 1", "inputs")
def thousands_beside_ones(fixed: bool) -> Program:
    x = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).float()[:, None]
    size = torch.tensor([1.0, 1.0, 1.0, 2000.0, 1.0, 40_000.0, 1.0, 90.0])
    data = p._split(x * size + size, y)
    module = p.mlp([8, 24, 1])
    return Program(
        module,
        data.scaled() if fixed else data,
        nn.BCEWithLogitsLoss(),
        p.adam(module, 3e-3),
        40,
        score="auc",
    )


@case(so(48594888), "pixels from 0 to 255, plain descent", "inputs|learning rate")
def pixels_to_255(fixed: bool) -> Program:
    data = p.digits().map(lambda t: t if fixed else t * 255)
    module = p.small_cnn()
    return Program(module, data, nn.CrossEntropyLoss(), p.sgd(module, 0.05, momentum=0.9), 6)


@case(
    "https://github.com/SigmaJahan/DEFault-DNN-Debugging",
    "measurements around 1,000 with a deviation of 5: the mean hides what differs",
    "inputs",
)
def far_from_zero(fixed: bool) -> Program:
    x = 1000 + 5 * torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
    y = ((x[:, 0] - 1000) * 0.2 + ((x[:, 1] - 1000) * 0.2).sin())[:, None]
    data = p._split(x, y)
    module = p.mlp([6, 32, 1], nn.Tanh)
    return Program(
        module, data.scaled() if fixed else data, nn.MSELoss(), p.adam(module, 5e-3), 40, score="r2"
    )


@case(
    "https://github.com/prs-eth/Marigold/issues/111",
    "missing numbers among the inputs make every weight nan",
    "inputs",
)
def missing_numbers(fixed: bool) -> Program:
    data = p.wine().scaled()

    def holes(t: torch.Tensor) -> torch.Tensor:
        hole = torch.rand(t.shape, generator=torch.Generator().manual_seed(0)) < 0.05
        return t.masked_fill(hole, 0.0 if fixed else torch.nan)

    module = p.mlp([13, 32, 3])
    return Program(module, data.map(holes), nn.CrossEntropyLoss(), p.adam(module, 1e-2), 20)


@case(CS231N, "all weights begin at 0: all units of a layer stay the same", "initialization")
def zero_weights(fixed: bool) -> Program:
    module = p.mlp([64, 32, 32, 10])
    if not fixed:
        p.initialized(module, nn.init.zeros_)
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module), 12)


@case(MUTANTS, "all weights begin at 1", "initialization")
def weights_of_one(fixed: bool) -> Program:
    module = p.small_cnn()
    if not fixed:
        p.initialized(module, nn.init.ones_)
    return Program(module, p.digits(), nn.CrossEntropyLoss(), p.adam(module), 8)


@case(
    "https://github.com/neuralint/neuralint/blob/main/sample_buggy_scripts/Synthetic%20Samples/TF_lenet_constant_init.py",
    "weights of one constant",
    "initialization",
)
def constant_weights(fixed: bool) -> Program:
    module = p.mlp([13, 24, 24, 3], nn.Tanh)
    if not fixed:
        p.initialized(module, lambda w: nn.init.constant_(w, 0.05))
    return Program(module, p.wine().scaled(), nn.CrossEntropyLoss(), p.adam(module), 20)


@case(
    so(48385830),
    "weights with deviation 1, no activation, squared error at a rate of 3",
    "activation|initialization",
    "learning rate|loss",
)
def normal_weights(fixed: bool) -> Program:
    data = p.flat_digits()
    if fixed:
        module = p.mlp([64, 30, 10], nn.ReLU)
        return Program(module, data, nn.CrossEntropyLoss(), p.sgd(module, 0.1, momentum=0.9), 12)
    module = p.initialized(
        nn.Sequential(nn.Linear(64, 30), nn.Linear(30, 10)), nn.init.normal_, nn.init.normal_
    )

    def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(out, F.one_hot(y, 10).float())

    return Program(module, data, loss, p.sgd(module, 3.0), 12, 10)


@case(CS231N, "weights of 0.01 deviation in a deep network: nothing arrives at the end", "initialization")
def small_weights_deep(fixed: bool) -> Program:
    module = p.mlp([64, *[48] * 7, 10])
    if fixed:
        p.initialized(module, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"))
    else:
        p.initialized(module, lambda w: nn.init.normal_(w, std=0.01))
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module, 1e-3), 12)


@case(CS231N, "weights of deviation 1 before tanh: every unit is saturated", "initialization|activation")
def saturated_tanh(fixed: bool) -> Program:
    module = p.mlp([64, 128, 128, 128, 10], nn.Tanh)
    if not fixed:
        p.initialized(module, nn.init.normal_)
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module, 1e-3), 12)


@case(
    "https://github.com/neuralint/neuralint/blob/main/sample_buggy_scripts/Synthetic%20Samples/TF_lenet_non_zeros_biases.py",
    "biases far below 0: most units are dead from the start",
    "initialization|activation",
)
def dead_from_the_start(fixed: bool) -> Program:
    module = p.mlp([64, 48, 48, 10])
    if not fixed:
        with torch.no_grad():
            module[0].bias.fill_(-3.0)
            module[2].bias.fill_(-3.0)
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module, 1e-3), 10)


@case(so(48934338), "plain descent at 0.1 on numbers up to 125", "learning rate|target|inputs")
def descent_that_explodes(fixed: bool) -> Program:
    data = p.parabola()
    module = p.mlp([1, 50, 30, 1])
    if fixed:
        mean, deviation = data.y.mean(), data.y.std()
        return Program(
            module,
            data.scaled().map(y=lambda t: (t - mean) / deviation),
            nn.MSELoss(),
            p.sgd(module, 0.05),
            60,
            score="r2",
        )
    return Program(module, data, nn.MSELoss(), p.sgd(module, 0.1), 60, score="r2")


@case(MUTANTS, "Adam at a rate of 0.5", "learning rate")
def adam_too_fast(fixed: bool) -> Program:
    module = p.small_cnn()
    return Program(module, p.digits(), nn.CrossEntropyLoss(), p.adam(module, 3e-3 if fixed else 0.5), 8)


@case(BACKPROP, "a rate so large that the ReLUs die in the first steps", "learning rate")
def relus_that_die(fixed: bool) -> Program:
    module = p.mlp([10, 64, 64, 1])
    return Program(module, p.friedman(), nn.MSELoss(), p.sgd(module, 0.05 if fixed else 2.0), 40, score="r2")


@case(MUTANTS, "Adam at a rate of 0.000001", "learning rate")
def adam_too_slow(fixed: bool) -> Program:
    module = p.mlp([64, 48, 10])
    return Program(
        module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module, 3e-3 if fixed else 1e-6), 10
    )


@case(
    "https://github.com/dlfaults/dnn-auto-repair-empirical-assesment",
    "plain descent at 0.00001",
    "learning rate",
)
def descent_too_slow(fixed: bool) -> Program:
    module = p.small_cnn(norm=True)
    return Program(
        module, p.digits(), nn.CrossEntropyLoss(), p.sgd(module, 0.05 if fixed else 1e-5, momentum=0.9), 6
    )


@case(
    so(39217567),
    "three sigmoid layers, plain descent at 0.01, squared error, for 8 bits",
    "learning rate|optimizer|steps",
    "activation|loss",
)
def bits_through_sigmoids(fixed: bool) -> Program:
    x = torch.tensor([[float(b) for b in f"{n:08b}"] for n in range(256)])
    data = p._split(x, x[:, [3, 1, 0, 2, 5, 4, 7, 6]])
    if fixed:
        module = p.mlp([8, 32, 8], nn.ReLU)
        return Program(module, data, nn.BCEWithLogitsLoss(), p.adam(module, 1e-2), 60, score="auc")
    module = p.initialized(
        p.mlp([8, 8, 8, 8], nn.Sigmoid, nn.Sigmoid()), lambda w: nn.init.normal_(w, std=0.05)
    )
    return Program(module, data, nn.MSELoss(), p.sgd(module, 0.01), 60, 50, "auc")


@case(
    "https://github.com/OrderLab/TrainCheck-Evaluation-Workloads/tree/main/silent-issue-detection/bug-reprod-scripts/pytorch-forum-84911",
    "every parameter is frozen but those of the norms, which the optimizer does not hold",
    "optimizer|frozen",
    silent=True,
)
def frozen_but_the_norms(fixed: bool) -> Program:
    module = p.small_cnn(norm=True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(fixed or name.split(".")[0] in ("1", "5"))
    held = module.parameters() if fixed else module[-1].parameters()
    return Program(module, p.digits(), nn.CrossEntropyLoss(), torch.optim.Adam(held, lr=3e-3), 6)


@case(
    "https://discuss.pytorch.org/t/best-practice-for-freezing-layers/58156",
    "the first layers, which nobody trained, are frozen",
    "frozen|optimizer",
    silent=True,
)
def untrained_and_frozen(fixed: bool) -> Program:
    module = p.mlp([2, 4, 4, 4, 1])
    if not fixed:
        module[0].requires_grad_(False)
        module[2].requires_grad_(False)
    trained = [q for q in module.parameters() if q.requires_grad]
    return Program(
        module, p.moons(), nn.BCEWithLogitsLoss(), torch.optim.Adam(trained, lr=1e-2), 40, score="auc"
    )


@case(
    "https://docs.pytorch.org/docs/stable/optim.html",
    "the optimizer holds the parameters of a network that was made before",
    "optimizer",
    silent=True,
)
def optimizer_of_another_network(fixed: bool) -> Program:
    before = p.mlp([13, 32, 3])
    module = p.mlp([13, 32, 3])
    return Program(
        module, p.wine().scaled(), nn.CrossEntropyLoss(), p.adam(module if fixed else before, 1e-2), 15
    )


@case(
    "https://discuss.pytorch.org/t/freezing-the-updates-without-freezing-the-gradients/7358",
    "the last layer is replaced after the optimizer was made",
    "optimizer",
    silent=True,
)
def head_replaced_later(fixed: bool) -> Program:
    module = p.mlp([64, 32, 5])
    optimizer = p.adam(module)
    module[-1] = nn.Linear(32, 10)
    nn.init.zeros_(module[-1].weight)
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module) if fixed else optimizer, 10)


@case(
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleList.html",
    "layers in a plain list: nobody knows their parameters",
    "optimizer|architecture|registration",
    silent=True,
)
def layers_in_a_plain_list(fixed: bool) -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Linear(2, 3), nn.Linear(3, 3)]
            self.hidden = nn.ModuleList(layers) if fixed else layers
            self.last = nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.hidden:
                x = torch.tanh(layer(x))
            return self.last(x)

    module = Net()
    return Program(module, p.moons(), nn.BCEWithLogitsLoss(), p.adam(module, 2e-2), 60, score="auc")


@case(
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.Parameter.html",
    "a weight that is a plain tensor and no Parameter",
    "optimizer|architecture|registration",
    silent=True,
)
def weight_as_plain_tensor(fixed: bool) -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = 0.02 * torch.randn(10, 24)
            self.weight = nn.Parameter(weight) if fixed else weight
            self.last = nn.Linear(24, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(x @ self.weight))

    module = Net()
    return Program(module, p.friedman(), nn.MSELoss(), p.adam(module, 1e-2), 40, score="r2")


@case(so(50306988), "five epochs of 200 rows: 35 steps", "steps|learning rate")
def five_epochs(fixed: bool) -> Program:
    module = p.mlp([2, 16, 1], nn.Sigmoid)
    return Program(
        module,
        p.moons(280),
        nn.BCEWithLogitsLoss(),
        p.adam(module, 3e-2 if fixed else 1e-3),
        150 if fixed else 5,
        score="auc",
    )


@case("https://github.com/SigmaJahan/DEFault-DNN-Debugging/tree/main/e_Evaluation", "two epochs", "steps")
def two_epochs(fixed: bool) -> Program:
    module = p.mlp([10, 32, 1])
    return Program(module, p.friedman(), nn.MSELoss(), p.adam(module, 3e-3), 60 if fixed else 2, score="r2")


@case(
    "https://github.com/dlfaults/deepcrime/tree/master/operators",
    "a single epoch of large batches",
    "steps|batch size",
)
def one_epoch(fixed: bool) -> Program:
    module = p.small_cnn()
    return Program(
        module, p.digits(), nn.CrossEntropyLoss(), p.adam(module), 12 if fixed else 1, 32 if fixed else 256
    )


@case("https://arxiv.org/abs/2301.11568", "all rows in one batch: a step an epoch", "batch size|steps")
def all_rows_in_a_batch(fixed: bool) -> Program:
    data = p.flat_digits()
    module = p.mlp([64, 48, 10])
    return Program(
        module, data, nn.CrossEntropyLoss(), p.adam(module, 1e-3), 12, 32 if fixed else len(data.x)
    )


@case("https://arxiv.org/abs/1803.08494", "batch normalization in batches of two", "batch size|normalization")
def normalization_of_two_rows(fixed: bool) -> Program:
    module = p.small_cnn(norm=True)
    return Program(
        module,
        p.digits(500),
        nn.CrossEntropyLoss(),
        p.adam(module),
        5,
        32 if fixed else 2,
        shown=64 if fixed else 2,
    )


@case(
    "https://github.com/nikitakaraevv/pointnet/issues/18",
    "batch normalization of one row at a time",
    "batch size|normalization",
)
def normalization_of_one_row(fixed: bool) -> Program:
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    return Program(
        module,
        p.digits(500),
        nn.CrossEntropyLoss(),
        p.adam(module, 1e-2),
        30 if fixed else 6,
        32 if fixed else 1,
        shown=64 if fixed else 1,
    )


@case(
    "https://github.com/dlfaults/deepcrime/tree/master/operators",
    "a weight decay of 1 that is added to Adam's gradients",
    "regularization|optimizer",
)
def decay_that_wins(fixed: bool) -> Program:
    module = p.mlp([64, 48, 10])
    return Program(
        module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module, weight_decay=0.0 if fixed else 1.0), 10
    )


@case(
    "https://github.com/neuralint/neuralint/blob/main/sample_buggy_scripts/SO%20Samples/60566498.py",
    "nine of ten units are dropped, in a narrow network",
    "regularization",
)
def nearly_all_dropped(fixed: bool) -> Program:
    rate = 0.1 if fixed else 0.95
    module = nn.Sequential(
        nn.Linear(64, 24),
        nn.ReLU(),
        nn.Dropout(rate),
        nn.Linear(24, 24),
        nn.ReLU(),
        nn.Dropout(rate),
        nn.Linear(24, 10),
    )
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module), 10)
