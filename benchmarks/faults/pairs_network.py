"""Faults inside the network and inside the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import program as p
import torch
from program import Program, case, so, usual_step
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

NEURALINT = "https://github.com/neuralint/neuralint/blob/main/sample_buggy_scripts"
MISTAKES = "https://twitter.com/karpathy/status/1013244313327681536"
RECIPE = "https://karpathy.github.io/2019/04/25/recipe/"


class Through(nn.Module):
    """A network with a hand-written forward."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.way = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


@case(f"{NEURALINT}/tensorflow/TF_lenet_missing_relus.py", "no activation between the layers", "activation")
def no_activation(fixed: bool) -> Program:
    between = nn.Tanh if fixed else nn.Identity
    module = p.mlp([2, 24, 24, 1], between)
    return Program(module, p.moons(), nn.BCEWithLogitsLoss(), p.adam(module, 1e-2), 50, score="auc")


@case(
    f"{NEURALINT}/SO%20Samples/42913869.py",
    "convolutions with nothing but pooling between them",
    "activation",
)
def convolutions_without_activation(fixed: bool) -> Program:
    act = nn.ReLU if fixed else nn.Identity
    module = nn.Sequential(
        nn.Conv1d(1, 12, 7, padding=3), act(), nn.AvgPool1d(4), nn.Conv1d(12, 12, 5, padding=2), act(),
        nn.AvgPool1d(16), nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip
    return Program(module, p.waves(), nn.CrossEntropyLoss(), p.adam(module, 1e-2), 20)


@case(so(48385830), "two matrices, one after the other, with views between", "activation")
def two_matrices_and_a_view(fixed: bool) -> Program:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.one(x).view(len(x), 4, 8).transpose(1, 2).reshape(len(x), 32)
        return self.two(torch.relu(x) if fixed else x)

    module = Through(forward, one=nn.Linear(2, 32), two=nn.Linear(32, 1))
    return Program(module, p.moons(), nn.BCEWithLogitsLoss(), p.adam(module, 1e-2), 50, score="auc")


@case(
    "https://karpathy.medium.com/yes-you-should-understand-backprop-e2f06eab496b",
    "eight layers of sigmoids: no gradient reaches the first",
    "activation|initialization",
)
def deep_sigmoids(fixed: bool) -> Program:
    module = p.mlp([64, *[32] * 8, 10], nn.Sigmoid) if not fixed else p.mlp([64, *[32] * 3, 10], nn.ReLU)
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module), 12)


@case(so(37588632), "softmax as the activation of hidden layers", "activation")
def softmax_inside(fixed: bool) -> Program:
    module = p.mlp([64, 48, 48, 10], nn.ReLU if fixed else lambda: nn.Softmax(dim=1))
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module, 1e-3), 12)


@case(
    "https://github.com/dlfaults/deepcrime/tree/master/operators",
    "hard sigmoids between convolutions",
    "activation",
)
def hard_sigmoids(fixed: bool) -> Program:
    act = nn.ReLU if fixed else nn.Hardsigmoid
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 16), (16, 16), (16, 16)):
        layers += [nn.Conv2d(before, after, 3, padding=1), act()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))
    return Program(module, p.digits(900), nn.CrossEntropyLoss(), p.sgd(module, 0.1, momentum=0.9), 10)


@case(
    "https://arxiv.org/abs/1512.03385",
    "24 plain layers without shortcut or normalization",
    "architecture|initialization|activation|normalization",
)
def deep_and_plain(fixed: bool) -> Program:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.LayerNorm(32), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.linear(torch.relu(self.norm(x)))

    hidden = (
        [Block() for _ in range(8)]
        if fixed
        else [part for _ in range(24) for part in (nn.Linear(32, 32), nn.ReLU())]
    )
    module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), *hidden, nn.Linear(32, 10))
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module, 1e-3), 8)


@case(so(55776436), "kernels nearly as long as the series, without pooling before", "architecture")
def kernels_as_long_as_the_series(fixed: bool) -> Program:
    kernel = 9 if fixed else 61
    module = nn.Sequential(
        nn.Conv1d(1, 24, kernel, padding=4 if fixed else 0), nn.ReLU(), nn.MaxPool1d(4 if fixed else 1),
        nn.AdaptiveMaxPool1d(4), nn.Flatten(), nn.Linear(96, 3),
    )  # fmt: skip
    return Program(module, p.waves(300), nn.CrossEntropyLoss(), p.adam(module, 3e-3), 15)


@case(so(43464835), "a kernel wider than the image, mostly over padding", "architecture")
def kernel_wider_than_the_image(fixed: bool) -> Program:
    first = nn.Conv2d(1, 16, 3, padding=1) if fixed else nn.Conv2d(1, 16, (3, 15), padding=(1, 7))
    module = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
    return Program(module, p.digits(600), nn.CrossEntropyLoss(), p.adam(module, 3e-3), 10)


@case(so(56103207), "filters become fewer from layer to layer", "architecture")
def filters_become_fewer(fixed: bool) -> Program:
    widths = (8, 32) if fixed else (32, 3)
    module = nn.Sequential(
        nn.Conv2d(1, widths[0], 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(widths[0], widths[1], 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * widths[1], 10),
    )  # fmt: skip
    return Program(module, p.digits(), nn.CrossEntropyLoss(), p.adam(module), 8)


@case(so(41372874), "two units, twice, for a curve that needs more", "architecture")
def two_units(fixed: bool) -> Program:
    width = 24 if fixed else 2
    module = p.mlp([64, width, width, 10])
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module, 1e-2), 15)


@case(
    so(53119432),
    "the last layer stands on each position: no flatten, and the loss spreads the target over all",
    "architecture|shape|target|output",
)
def no_flatten(fixed: bool) -> Program:
    data = p.as_columns(p.waves(300, classes=2))
    body = [
        nn.Conv1d(1, 16, 7, padding=3),
        nn.ReLU(),
        nn.MaxPool1d(4),
        nn.Conv1d(16, 16, 5, padding=2),
        nn.ReLU(),
    ]
    if fixed:
        module = nn.Sequential(*body, nn.Flatten(), nn.Linear(256, 1))
        return Program(module, data, nn.BCEWithLogitsLoss(), p.adam(module), 10, score="auc")
    module = nn.Sequential(*body, nn.Linear(16, 1))
    return Program(
        module, data, lambda o, y: F.mse_loss(o, y[:, None].expand_as(o)), p.adam(module), 10, score="auc"
    )


@case(
    "https://discuss.pytorch.org/t/lstm-change-batch-first-true-loss-does-not-decrease/62364",
    "a recurrent layer that takes rows for time",
    "shape",
    silent=True,
)
def rows_taken_for_time(fixed: bool) -> Program:
    data = p.waves(240, 32).map(lambda t: t.transpose(1, 2))

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0].mean(dim=1))

    module = Through(forward, rnn=nn.GRU(1, 24, batch_first=fixed), head=nn.Linear(24, 3))
    return Program(module, data, nn.CrossEntropyLoss(), p.adam(module, 1e-2), 25)


@case(
    "https://twitter.com/karpathy/status/1013245864570073090",
    "view where permute was meant: rows and columns are mixed up",
    "shape|architecture",
    silent=True,
)
def view_for_permute(fixed: bool) -> Program:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.permute(1, 0, 2) if fixed else x.reshape(x.shape[1], x.shape[0], x.shape[2])
        return self.head(self.rnn(x)[1][0])

    module = Through(forward, rnn=nn.GRU(1, 24), head=nn.Linear(24, 3))
    data = p.waves(240, 32).map(lambda t: t.transpose(1, 2))
    return Program(module, data, nn.CrossEntropyLoss(), p.adam(module, 1e-2), 25)


@case(
    RECIPE,
    "a sum over rows inside the network: each prediction depends on the others",
    "shape|architecture",
    silent=True,
)
def mean_over_rows(fixed: bool) -> Program:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.one(x)
        return self.two(torch.relu(h - h.mean(dim=1 if fixed else 0, keepdim=True)))

    module = Through(forward, one=nn.Linear(13, 32), two=nn.Linear(32, 3))
    return Program(module, p.wine().scaled(), nn.CrossEntropyLoss(), p.adam(module, 3e-3), 20)


@case(
    "https://github.com/PRBonn/lidar-bonnetal/issues/99",
    "the body is detached from the head: it never learns",
    "gradient|loop|frozen",
    silent=True,
)
def body_detached(fixed: bool) -> Program:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = torch.relu(self.two(torch.relu(self.one(x))))
        return self.head(h if fixed else h.detach())

    module = Through(forward, one=nn.Linear(2, 4), two=nn.Linear(4, 4), head=nn.Linear(4, 1))
    return Program(module, p.moons(), nn.BCEWithLogitsLoss(), p.adam(module, 2e-2), 50, score="auc")


@case(
    "https://github.com/kevinzakka/recurrent-visual-attention/issues/4",
    "through NumPy and back in the middle of the network",
    "gradient|loop|frozen",
    silent=True,
)
def through_numpy(fixed: bool) -> Program:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.one(x)
        h = torch.clamp(h, min=0) if fixed else torch.from_numpy(np.maximum(h.detach().numpy(), 0))
        return self.two(h)

    module = Through(forward, one=nn.Linear(2, 6), two=nn.Linear(6, 1))
    return Program(module, p.moons(), nn.BCEWithLogitsLoss(), p.adam(module, 2e-2), 50, score="auc")


@case(
    "https://thecodeforge.io/ml-ai/pytorch-neural-network/",
    "a layer that is made anew in every forward",
    "registration|architecture|optimizer",
    silent=True,
)
def layer_made_in_forward(fixed: bool) -> Program:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.one if fixed else nn.Linear(2, 16)
        return self.two(torch.relu(hidden(x)))

    parts = {"one": nn.Linear(2, 16)} if fixed else {}
    module = Through(forward, **parts, two=nn.Linear(16, 1))
    return Program(module, p.moons(), nn.BCEWithLogitsLoss(), p.adam(module, 1e-2), 30, score="auc")


@case(so(53419474), "F.dropout, which drops in use as well", "regularization|loop|evaluation")
def dropout_in_use(fixed: bool) -> Program:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = F.dropout(torch.relu(self.one(x)), 0.6, training=self.training if fixed else True)
        return self.two(h)

    module = Through(forward, one=nn.Linear(10, 64), two=nn.Linear(64, 1))
    return Program(module, p.friedman(), nn.MSELoss(), p.adam(module, 1e-2), 40, score="r2")


@case(MISTAKES, "gradients are never set to zero", "loop", silent=True)
def gradients_kept(fixed: bool) -> Program:
    def step(module: nn.Module, optimizer: Any, loss: Any, x: Tensor, y: Tensor) -> Tensor:
        if fixed:
            optimizer.zero_grad()
        value = loss(module(x), y)
        value.backward()
        optimizer.step()
        return value

    module = p.mlp([10, 32, 32, 1])
    return Program(
        module, p.friedman(), nn.MSELoss(), p.sgd(module, 0.03, momentum=0.5), 40, score="r2", step=step
    )


@case(
    "https://github.com/OrderLab/TrainCheck-Evaluation-Workloads/tree/main/silent-issue-detection/bug-reprod-scripts/stackoverflow-60335387",
    "an image network whose gradients are never set to zero",
    "loop",
    silent=True,
)
def gradients_kept_images(fixed: bool) -> Program:
    def step(module: nn.Module, optimizer: Any, loss: Any, x: Tensor, y: Tensor) -> Tensor:
        value = loss(module(x), y)
        value.backward()
        optimizer.step()
        if fixed:
            optimizer.zero_grad()
        return value

    module = p.small_cnn()
    return Program(module, p.digits(), nn.CrossEntropyLoss(), p.sgd(module, 0.1), 8, step=step)


@case(
    MISTAKES,
    "evaluation mode is left on: batch normalization keeps the statistics that it began with",
    "loop|normalization|evaluation",
    silent=True,
)
def evaluation_left_on(fixed: bool) -> Program:
    data = p.digits().map(lambda t: 40 * t + 100)
    module = nn.Sequential(nn.BatchNorm2d(1), p.small_cnn(norm=True))
    module.train(fixed)

    def step(module: nn.Module, optimizer: Any, loss: Any, x: Tensor, y: Tensor) -> Tensor:
        module.train(fixed)
        return usual_step(module, optimizer, loss, x, y)

    return Program(module, data, nn.CrossEntropyLoss(), p.sgd(module, 0.05), 5, step=step)


@case(
    "https://docs.pytorch.org/docs/stable/optim.html",
    "the gradients are cleared between backward and step",
    "loop",
    silent=True,
)
def cleared_before_the_step(fixed: bool) -> Program:
    def step(module: nn.Module, optimizer: Any, loss: Any, x: Tensor, y: Tensor) -> Tensor:
        if fixed:
            optimizer.zero_grad()
        value = loss(module(x), y)
        value.backward()
        if not fixed:
            optimizer.zero_grad()
        optimizer.step()
        return value

    module = p.mlp([13, 32, 3])
    return Program(module, p.wine().scaled(), nn.CrossEntropyLoss(), p.adam(module, 1e-2), 15, step=step)


@case(
    "https://github.com/leftthomas/SRGAN/issues/94",
    "a schedule of epochs is stepped in every batch",
    "learning rate|loop",
    silent=True,
)
def schedule_in_every_batch(fixed: bool) -> Program:
    module = p.mlp([64, 48, 10])
    optimizer = p.sgd(module, 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5, gamma=0.1)
    count = 0

    def step(module: nn.Module, optimizer: Any, loss: Any, x: Tensor, y: Tensor) -> Tensor:
        nonlocal count
        value, count = usual_step(module, optimizer, loss, x, y), count + 1
        if not fixed or count % 39 == 0:
            schedule.step()
        return value

    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), optimizer, 10, step=step)


@case(
    "https://github.com/wandb/senpai/pull/978",
    "gradients are clipped to a norm of 0.0001",
    "loop|learning rate",
    silent=True,
)
def clipped_to_nothing(fixed: bool) -> Program:
    def step(module: nn.Module, optimizer: Any, loss: Any, x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        value = loss(module(x), y)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0 if fixed else 1e-4)
        optimizer.step()
        return value

    module = p.small_cnn()
    return Program(module, p.digits(), nn.CrossEntropyLoss(), p.sgd(module, 0.1, momentum=0.9), 6, step=step)


@case(RECIPE, "rows and targets are shuffled apart", "target|data", silent=True)
def shuffled_apart(fixed: bool) -> Program:
    data = p.flat_digits()
    order = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(11))
    if not fixed:
        data = p.Data(data.x, data.y[order], data.test_x, data.test_y)
    module = p.mlp([64, 48, 10])
    return Program(module, data, nn.CrossEntropyLoss(), p.adam(module), 10)


class Noisy(Dataset[Any]):
    """Augmented by NumPy's global generator."""

    def __init__(self, data: p.Data) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.from_numpy(np.random.normal(0, 0.1, self.data.x[index].shape)).float()
        return self.data.x[index] + noise, self.data.y[index]


def _same_seed(_: int) -> None:
    np.random.seed(0)


@case(
    "https://github.com/pytorch/pytorch/issues/5059",
    "all workers of the loader draw the same random numbers",
    "data|loop",
    silent=True,
)
def workers_with_equal_seeds(fixed: bool) -> Program:
    data = p.flat_digits()
    loader = DataLoader(
        Noisy(data), batch_size=32, shuffle=True, num_workers=2, worker_init_fn=None if fixed else _same_seed
    )
    module = p.mlp([64, 48, 10])
    return Program(module, data, nn.CrossEntropyLoss(), p.adam(module), 10, loader=loader)


@case(RECIPE, "rows in the order of their classes, never shuffled", "data|loop", silent=True)
def classes_one_after_another(fixed: bool) -> Program:
    data = p.flat_digits()
    order = data.y.argsort()
    data = p.Data(data.x[order], data.y[order], data.test_x, data.test_y)
    loader = DataLoader(list(zip(data.x, data.y, strict=True)), batch_size=32, shuffle=fixed)
    module = p.mlp([64, 48, 10])
    count = 0

    def step(module: nn.Module, optimizer: Any, loss: Any, x: Tensor, y: Tensor) -> Tensor:
        nonlocal count
        if not fixed:
            x, y = data.x.split(32)[count % 39], data.y.split(32)[count % 39]
        count += 1
        return usual_step(module, optimizer, loss, x, y)

    return Program(module, data, nn.CrossEntropyLoss(), p.adam(module), 10, loader=loader, step=step)
