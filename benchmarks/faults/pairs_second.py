"""Twelve more pairs, written after the rules of the inspection and committed before any debugger saw one of them.

They are after other public faults than those of ``pairs_network``, ``pairs_output`` and ``pairs_setup``, and are
reported apart: no rule may be changed for them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import program as p
import torch
from program import SECOND, Data, Program, usual_step
from torch import Tensor, nn
from torch.nn import functional as F

case = functools.partial(p.case, among=SECOND)


class Attending(nn.Module):
    """A mean over the places of a series, weighted by attention; ``axis`` is that of its softmax."""

    def __init__(self, axis: int, *, one_score: bool) -> None:
        super().__init__()
        self.rnn, self.score = nn.GRU(1, 24, batch_first=True), nn.Linear(24, 1)
        self.head, self.axis, self.one_score = nn.Linear(24, 3), axis, one_score

    def forward(self, x: Tensor) -> Tensor:
        seen = self.rnn(x)[0]
        score = self.score(seen)
        weight = torch.softmax(score if self.one_score else score.squeeze(-1), dim=self.axis)
        weight = weight if self.one_score else weight.unsqueeze(-1)
        return self.head((weight * seen).sum(dim=1) / (seen.shape[1] ** 0.5))


def _series() -> Data:
    return p.waves(240, 32).map(lambda t: t.transpose(1, 2))


@case(
    "https://github.com/DEEP-PolyU/KEQA_WSDM19/issues/2",
    "attention whose softmax runs over an axis of one: each weight is 1",
    "activation|architecture|gradient|shape|output",
    silent=True,
)
def attention_over_one(fixed: bool) -> Program:
    module = Attending(1 if fixed else 2, one_score=True)
    return Program(module, _series(), nn.CrossEntropyLoss(), p.adam(module, 1e-2), 20)


@case(
    "https://github.com/PetrochukM/PyTorch-NLP/issues/2",
    "attention whose softmax runs along the rows of the batch",
    "shape|activation|architecture",
    silent=True,
)
def attention_along_the_batch(fixed: bool) -> Program:
    module = Attending(1 if fixed else 0, one_score=False)
    return Program(module, _series(), nn.CrossEntropyLoss(), p.adam(module, 1e-2), 20)


@case(
    "https://github.com/alan-turing-institute/deepsensor/issues/47",
    "the optimizer is made anew again and again, so that its momentum is lost",
    "optimizer|loop|learning rate",
    silent=True,
)
def optimizer_made_anew(fixed: bool) -> Program:
    module = p.mlp([64, 64, 10])

    def step(module: nn.Module, optimizer: Any, loss: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
        return usual_step(module, p.sgd(module, 3e-3, momentum=0.95), loss, x, y)

    return Program(
        module,
        p.flat_digits(),
        nn.CrossEntropyLoss(),
        p.sgd(module, 3e-3, momentum=0.95),
        8,
        step=None if fixed else step,
    )


@case(
    "https://github.com/ProteomicsML/ProteomicsML/pull/203",
    "a ReLU after the last layer of a regression, drawn so that it is 0 for every row",
    "output|activation|initialization|gradient",
)
def zero_by_the_last_relu(fixed: bool) -> Program:
    module = p.mlp([10, 32, 32, 1], nn.ReLU, *([] if fixed else [nn.ReLU()]))
    if not fixed:
        nn.init.constant_(module[4].bias, -1.0)
    data = p.friedman().map(y=lambda t: t + 3.0)
    return Program(module, data, nn.MSELoss(), p.adam(module, 5e-3), 30, score="r2")


@case(
    "https://github.com/lightly-ai/lightly/pull/1341",
    "a divergence of probabilities, where the loss takes their logarithms",
    "output|loss",
    silent=True,
)
def divergence_of_probabilities(fixed: bool) -> Program:
    module = p.mlp([64, 48, 10], nn.ReLU, nn.LogSoftmax(dim=1) if fixed else nn.Softmax(dim=1))

    def loss(out: Tensor, y: Tensor) -> Tensor:
        smooth = 0.9 * F.one_hot(y, 10).float() + 0.01
        return F.kl_div(out, smooth, reduction="batchmean")

    return Program(module, p.flat_digits(), loss, p.adam(module), 10)


@case(
    "https://github.com/itakurah/focal-loss-pytorch/pull/5",
    "a focal loss that takes the sigmoid before a loss that has its own",
    "output|loss",
    silent=True,
)
def sigmoid_inside_the_loss(fixed: bool) -> Program:
    module = p.mlp([10, 48, 3], nn.ReLU)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        chance = torch.sigmoid(out)
        entropy = F.binary_cross_entropy_with_logits(out if fixed else chance, y, reduction="none")
        right = chance * y + (1 - chance) * (1 - y)
        return ((1 - right) ** 2 * entropy).mean()

    return Program(module, p.several(), loss, p.adam(module, 5e-3), 30, score="auc")


@case(
    "https://github.com/PacktPublishing/Deep-Reinforcement-Learning-Hands-On/issues/33",
    "a loss written by hand takes a column from a row of numbers: every row is compared with every other",
    "shape|loss|target",
    silent=True,
)
def column_less_row(fixed: bool) -> Program:
    module = p.mlp([10, 32, 1])
    data = p.friedman().map(y=lambda t: t[:, 0])

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return ((out.squeeze(-1) if fixed else out) - y).square().mean()

    return Program(module, data, loss, p.adam(module, 5e-3), 40, score="r2")


@case(
    "https://github.com/wkentaro/pytorch-fcn/issues/57",
    "after a validation in the middle of an epoch nobody goes back to training mode",
    "evaluation|loop",
    silent=True,
)
def validated_and_left(fixed: bool) -> Program:
    module = nn.Sequential(
        nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10)
    )
    data = p.digits(400).map(lambda t: t.flatten(1))
    held = data.test_x[:64]
    count = [0]

    def step(module: nn.Module, optimizer: Any, loss: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
        value = usual_step(module, optimizer, loss, x, y)
        count[0] += 1
        if count[0] % 2 == 0:
            module.eval()
            with torch.no_grad():
                module(held)
            if fixed:
                module.train()
        return value

    return Program(module, data, nn.CrossEntropyLoss(), p.adam(module, 3e-3), 20, step=step)


@case(
    "https://github.com/cherubicXN/hawp/issues/3",
    "the schedule is told a number that it takes for its own: the rate falls after the first epoch",
    "learning rate|loop",
    silent=True,
)
def decayed_after_one_epoch(fixed: bool) -> Program:
    module = p.mlp([64, 48, 10])
    optimizer = p.sgd(module, 0.1, momentum=0.9)
    made = torch.optim.lr_scheduler.MultiStepLR(optimizer, [9], gamma=1e-3)
    count = [0]

    def step(module: nn.Module, optimizer: Any, loss: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
        value = usual_step(module, optimizer, loss, x, y)
        count[0] += 1
        if fixed and count[0] % 8 == 0:
            made.step()
        elif not fixed:
            made.step(count[0])
        return value

    data = p.digits(400).map(lambda t: t.flatten(1))
    return Program(module, data, nn.CrossEntropyLoss(), optimizer, 12, step=step)


@case(
    "https://github.com/Vision-CAIR/MiniGPT-4/pull/263",
    "a warm-up that counts the steps of an epoch: it begins again in each, and the rate never gets up",
    "learning rate|loop|steps",
    silent=True,
)
def warm_up_anew(fixed: bool) -> Program:
    module = p.mlp([64, 48, 10])
    optimizer = p.sgd(module, 0.2)
    count = [0]

    def step(module: nn.Module, optimizer: Any, loss: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
        done = count[0] if fixed else count[0] % 8
        for group in optimizer.param_groups:
            group["lr"] = 0.2 * min(1.0, (done + 1) / 400 if not fixed else (done + 1) / 20)
        count[0] += 1
        return usual_step(module, optimizer, loss, x, y)

    data = p.digits(400).map(lambda t: t.flatten(1))
    return Program(module, data, nn.CrossEntropyLoss(), optimizer, 12, step=step)


@case(
    "https://github.com/maddin79/darch/issues/12",
    "dropout on the output layer: classes are taken away at random",
    "regularization|output|architecture",
    silent=True,
)
def dropout_on_the_output(fixed: bool) -> Program:
    module = nn.Sequential(
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 10),
        *([] if fixed else [nn.Dropout(0.5)]),
    )
    return Program(module, p.flat_digits(), nn.CrossEntropyLoss(), p.adam(module), 10)


@case(
    "https://github.com/leftthomas/ESPCN/issues/30",
    "an output from 0 to 1 for pixels from 0 to 255",
    "output|target|loss",
)
def pixels_beyond_the_output(fixed: bool) -> Program:
    top = 1.0 if fixed else 255.0
    data = p.digits(600)
    data = Data(
        F.avg_pool2d(data.x, 2),
        top * data.x.flatten(1),
        F.avg_pool2d(data.test_x, 2),
        top * data.test_x.flatten(1),
    )
    module = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 4, 3, padding=1), nn.PixelShuffle(2), nn.Sigmoid(), nn.Flatten(),
    )  # fmt: skip
    return Program(module, data, nn.MSELoss(), p.adam(module, 3e-3), 20, score="r2")
