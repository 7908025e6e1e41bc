"""Ten more pairs, written after the rules were changed for the mechanisms that the second set had shown, and committed
before any debugger saw one of them: no rule is changed for these.

The kinds are those of the field's own lists (DeepCrime's operators, the classes of faults in DEFault and Humbatova et al.),
each after a described fault that no other pair is after.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import program as p
import torch
from program import THIRD, Data, Program, usual_step
from torch import Tensor, nn
from torch.nn import functional as F

case = functools.partial(p.case, among=THIRD)
OPERATORS = "https://github.com/dlfaults/deepcrime/blob/main/operators/"


@case(
    "https://github.com/seathiefwang/RankPose/issues/4",
    "a margin loss that takes 1 and -1 is given 1 and 0: rows of the second kind pull at nothing",
    "loss|target",
    silent=True,
)
def zeros_for_a_margin_loss(fixed: bool) -> Program:
    module = p.mlp([2, 32, 32, 1])
    data = p.moons()

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.soft_margin_loss(out, 2 * y - 1 if fixed else y)

    return Program(module, data, loss, p.adam(module, 5e-3), 30, score="auc")


@case(
    OPERATORS + "weights_operators.py",
    "a penalty on the squares of all weights, as heavy as the loss itself",
    "regularization|loss",
    silent=True,
)
def penalty_as_heavy_as_the_loss(fixed: bool) -> Program:
    module = p.mlp([64, 48, 10])
    share = 1e-5 if fixed else 1.0

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y) + share * sum(w.square().sum() for w in module.parameters())

    return Program(module, p.flat_digits(), loss, p.adam(module), 10)


@case(
    "https://github.com/tinygrad/tinygrad/pull/10981",
    "a warm-up by epochs that begins at 0: nothing is learned in the first of three",
    "learning rate|steps|loop",
    silent=True,
)
def nothing_in_the_first_epoch(fixed: bool) -> Program:
    module = p.mlp([64, 48, 10])
    optimizer = p.sgd(module, 0.1, momentum=0.9)
    count = [0]

    def step(module: nn.Module, optimizer: Any, loss: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
        epoch = count[0] // 39
        count[0] += 1
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * ((epoch + 1) / 3 if fixed else epoch / 3 * (epoch > 1))
        return usual_step(module, optimizer, loss, x, y)

    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), optimizer, 3, step=step)


@case(
    "https://github.com/Cadene/pretrained-models.pytorch/issues/5",
    "batch normalization with a momentum of 0: what it uses after training is what it began with",
    "normalization|evaluation",
    silent=True,
)
def statistics_that_stand_still(fixed: bool) -> Program:
    momentum = 0.1 if fixed else 0.0
    module = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12, momentum=momentum), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24, momentum=momentum), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip
    return Program(module, p.digits(), nn.CrossEntropyLoss(), p.adam(module), 8)


@case(
    "https://github.com/IndicoDataSolutions/finetune/issues/181",
    "the weight of the most frequent class is 0: its rows count for nothing",
    "loss|target",
    silent=True,
)
def no_weight_for_the_largest_class(fixed: bool) -> Program:
    module = p.mlp([13, 32, 3])
    data = p.wine().scaled()
    share = data.y.bincount().float() / len(data.y)
    weight = 1 / share if fixed else torch.log(share.max() / share)
    return Program(module, data, nn.CrossEntropyLoss(weight=weight), p.adam(module, 5e-3), 30)


@case(
    "https://github.com/utcsilab/deepinpy/issues/13",
    "the squared error is added up over the batch and not averaged: the rate is that of a mean",
    "loss|learning rate",
)
def sum_of_a_large_batch(fixed: bool) -> Program:
    module = p.mlp([10, 48, 1])
    loss = nn.MSELoss(reduction="mean" if fixed else "sum")
    return Program(module, p.friedman(), loss, p.sgd(module, 0.05, momentum=0.5), 60, 64, score="r2")


@case(
    "https://github.com/DengPingFan/Inf-Net/issues/43",
    "the activation is made in the block, and never called",
    "activation",
    silent=True,
)
def activation_never_called(fixed: bool) -> Program:
    class Block(nn.Module):
        def __init__(self, before: int, after: int) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            seen = self.bn(self.conv(x))
            return self.relu(seen) if fixed else seen

    module = nn.Sequential(
        Block(1, 12),
        Block(12, 12),
        nn.AvgPool2d(2),
        Block(12, 24),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
    )
    return Program(module, p.digits(), nn.CrossEntropyLoss(), p.adam(module), 6)


@case(
    "https://github.com/pytorch/pytorch/issues/19250",
    "instance normalization of maps of one position: all of them are 0",
    "normalization|gradient|architecture",
    silent=True,
)
def normalized_to_nothing(fixed: bool) -> Program:
    last = nn.BatchNorm2d(32) if fixed else nn.InstanceNorm2d(32)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), last, nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    return Program(module, p.digits(), nn.CrossEntropyLoss(), p.adam(module, 5e-3), 8)


@case(
    OPERATORS + "bias_operators.py",
    "layers without a bias for a target that is far from 0",
    "architecture|output|target|initialization",
    silent=True,
)
def no_bias_for_an_offset(fixed: bool) -> Program:
    module = nn.Sequential(
        nn.Linear(10, 32, bias=fixed),
        nn.Tanh(),
        nn.Linear(32, 32, bias=fixed),
        nn.Tanh(),
        nn.Linear(32, 1, bias=fixed),
    )
    data = p.friedman()
    data = Data(data.x, data.y + 3, data.test_x, data.test_y + 3)
    return Program(module, data, nn.MSELoss(), p.adam(module, 5e-3), 40, score="r2")


@case(
    OPERATORS + "training_data_operators.py",
    "half of the training rows of three classes carry the label of the next class",
    "target|data",
    silent=True,
)
def labels_of_the_next_class(fixed: bool) -> Program:
    module = p.mlp([64, 48, 10])
    data = p.flat_digits()
    generator = torch.Generator().manual_seed(13)
    moved = (data.y < 3) & (torch.rand(len(data.y), generator=generator) < 0.5)
    y = data.y if fixed else torch.where(moved, data.y + 1, data.y)
    return Program(
        module, Data(data.x, y, data.test_x, data.test_y), nn.CrossEntropyLoss(), p.adam(module), 10
    )
