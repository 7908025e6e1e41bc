"""Networks with which nothing is wrong: what a debugger says of these is a false alarm. And twelve ways to spoil some."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import program as p
import torch
from program import Program, adam, held_back, sgd
from torch import Tensor, nn
from torch.nn import functional as F

HEALTHY: dict[str, Callable[[], Program]] = {}


def healthy(make: Callable[[], Program]) -> Callable[[], Program]:
    def seeded() -> Program:
        torch.manual_seed(0)
        return make()

    HEALTHY[make.__name__.replace("_", "-")] = seeded
    return make


CE, MSE, BCE = nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss


@healthy
def dense_relu_classes() -> Program:
    module = p.mlp([64, 64, 64, 10])
    return Program(module, p.flat_digits(), CE(), adam(module), 15)


@healthy
def dense_tanh_numbers() -> Program:
    module = p.mlp([10, 32, 32, 1], nn.Tanh)
    return Program(module, p.friedman(), MSE(), adam(module, 5e-3), 40, score="r2")


@healthy
def one_logit() -> Program:
    module = p.mlp([30, 32, 1])
    return Program(module, p.cancer().scaled(), BCE(), adam(module), 20, score="auc")


@healthy
def one_sigmoid() -> Program:
    module = p.mlp([2, 32, 32, 1], nn.ReLU, nn.Sigmoid())
    return Program(module, p.moons(), nn.BCELoss(), adam(module, 5e-3), 40, score="auc")


@healthy
def logistic_regression() -> Program:
    module = nn.Linear(30, 1)
    return Program(module, p.cancer().scaled(), BCE(), sgd(module, 0.1), 30, score="auc")


@healthy
def softmax_regression() -> Program:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return Program(module, p.digits(), CE(), sgd(module, 0.5), 20)


@healthy
def linear_regression() -> Program:
    module = nn.Linear(10, 1)
    return Program(module, p.friedman(), MSE(), sgd(module, 0.05), 30, score="r2")


@healthy
def several_labels() -> Program:
    module = p.mlp([10, 48, 3], nn.GELU)
    return Program(module, p.several(), BCE(), adam(module, 5e-3), 30, score="auc")


@healthy
def log_softmax_and_nll() -> Program:
    module = p.mlp([13, 32, 3], nn.ReLU, nn.LogSoftmax(dim=1))
    return Program(module, p.wine().scaled(), nn.NLLLoss(), adam(module, 5e-3), 20, 16)


@healthy
def huber_regression() -> Program:
    module = p.mlp([10, 48, 1], nn.SiLU)
    data = p.diabetes().scaled()
    mean, deviation = data.y.mean(), data.y.std()
    return Program(
        module, data.map(y=lambda t: (t - mean) / deviation), nn.HuberLoss(), adam(module), 20, 32, "r2"
    )


@healthy
def absolute_error() -> Program:
    module = p.mlp([10, 48, 24, 1], nn.ELU)
    return Program(
        module,
        p.friedman(),
        nn.L1Loss(),
        torch.optim.AdamW(module.parameters(), lr=5e-3, weight_decay=0.01),
        30,
        score="r2",
    )


@healthy
def selu_network() -> Program:
    module = p.initialized(
        p.mlp([64, 48, 48, 48, 10], nn.SELU), lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear")
    )
    return Program(module, p.flat_digits(), CE(), adam(module, 1e-3), 12)


@healthy
def dense_with_norm_and_dropout() -> Program:
    module = nn.Sequential(
        nn.Linear(64, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(64, 10),
    )
    return Program(module, p.flat_digits(), CE(label_smoothing=0.1), adam(module), 10)


@healthy
def two_images_classes_by_glorot() -> Program:
    module = p.initialized(p.mlp([13, 64, 64, 3]), nn.init.xavier_uniform_)
    return Program(module, p.wine().scaled(), CE(), sgd(module, 0.05, momentum=0.9), 20, 16)


@healthy
def plain_convolutions() -> Program:
    module = p.small_cnn()
    return Program(module, p.digits(), CE(), adam(module), 8)


@healthy
def lenet() -> Program:
    module = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 60), nn.Tanh(), nn.Linear(60, 42), nn.Tanh(), nn.Linear(42, 10),
    )  # fmt: skip
    return Program(module, p.digits(), CE(), sgd(module, 0.05, momentum=0.9), 10)


@healthy
def vgg() -> Program:
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 16), (0, 0), (16, 32), (32, 32), (0, 0)):
        layers += (
            [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            if before
            else [nn.MaxPool2d(2)]
        )
    module = nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(128, 64), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(64, 10)
    )
    return Program(module, p.digits(900), CE(), sgd(module, 0.02, momentum=0.9, weight_decay=5e-4), 8)


class Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        self.short = (
            nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            if before != after
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


@healthy
def resnet() -> Program:
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Residual(16, 16), Residual(16, 32, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    return Program(module, p.digits(900), CE(), sgd(module, 0.05, momentum=0.9), 6)


@healthy
def mobile_net() -> Program:
    def block(before: int, after: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False), nn.BatchNorm2d(before), nn.ReLU6(),
            nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU6(),
        ]  # fmt: skip

    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(), *block(16, 32, 2), *block(32, 32, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 10),
    )  # fmt: skip
    return Program(module, p.digits(900), CE(), adam(module, 3e-3), 8)


@healthy
def dense_net() -> Program:
    class Dense(nn.Module):
        def __init__(self, before: int) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, 8, 3, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, self.part(x)], dim=1)

    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), Dense(8), Dense(16), nn.AvgPool2d(2), Dense(24), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    return Program(module, p.digits(900), CE(), adam(module, 2e-3), 8)


@healthy
def group_norm_images() -> Program:
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.GELU(), nn.Conv2d(16, 32, 3, 2, 1), nn.GroupNorm(4, 32), nn.GELU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    return Program(module, p.digits(900), CE(), torch.optim.AdamW(module.parameters(), lr=2e-3), 8, 8)


@healthy
def temporal_convolutions() -> Program:
    module = nn.Sequential(
        nn.Conv1d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv1d(16, 16, 5, padding=8, dilation=4), nn.ReLU(),
        nn.Conv1d(16, 16, 5, padding=16, dilation=8), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    return Program(module, p.waves(), CE(), adam(module, 3e-3), 12)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.head = kind(1, 24, batch_first=True), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.transpose(1, 2))[0][:, -1])


@healthy
def gru_of_series() -> Program:
    module = Recurrent(nn.GRU)
    return Program(module, p.waves(300, 24), CE(), adam(module, 1e-2), 20)


@healthy
def lstm_of_series() -> Program:
    module = Recurrent(nn.LSTM)
    return Program(module, p.waves(300, 24), CE(), adam(module, 1e-2), 20)


@healthy
def mean_of_word_vectors() -> Program:
    module = nn.Sequential(nn.EmbeddingBag(30, 16), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 2))
    return Program(module, p.tokens(), CE(), adam(module, 1e-2), 20)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.place = nn.Embedding(30, 24), nn.Parameter(0.02 * torch.randn(16, 24))
        layer = nn.TransformerEncoderLayer(24, 4, 48, dropout=0.1, batch_first=True, norm_first=True)
        self.body, self.norm, self.head = (
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            nn.LayerNorm(24),
            nn.Linear(24, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(self.words(x) + self.place)).mean(dim=1))


@healthy
def transformer_of_words() -> Program:
    module = Words()
    return Program(module, p.tokens(), CE(), torch.optim.AdamW(module.parameters(), lr=2e-3), 15)


@healthy
def mixer() -> Program:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.LayerNorm(16), nn.LayerNorm(16)
            self.places = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
            self.channels = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.places(self.one(x).transpose(1, 2)).transpose(1, 2)
            return x + self.channels(self.two(x))

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.blocks = nn.Conv2d(1, 16, 2, 2), nn.Sequential(Block(), Block())
            self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.blocks(self.patch(x).flatten(2).transpose(1, 2))).mean(dim=1))

    module = Mixer()
    return Program(module, p.digits(), CE(), adam(module, 3e-3), 10)


@healthy
def autoencoder() -> Program:
    data = p.flat_digits()
    data = p.Data(data.x, data.x, data.test_x, data.test_x)
    module = nn.Sequential(
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 12),
        nn.ReLU(),
        nn.Linear(12, 32),
        nn.ReLU(),
        nn.Linear(32, 64),
        nn.Sigmoid(),
    )
    return Program(module, data, MSE(), adam(module, 5e-3), 20, score="r2")


@healthy
def encoder_decoder_of_images() -> Program:
    data = p.digits(900)
    clean = p.Data(data.x + 0.2 * torch.randn_like(data.x), data.x, data.test_x, data.test_x)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(24, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1),
    )  # fmt: skip
    return Program(module, clean, MSE(), adam(module, 5e-3), 8, score="r2")


@healthy
def trained_body_frozen() -> Program:
    module = p.small_cnn(norm=True)
    before = Program(module, p.digits(900), CE(), adam(module), 4)
    p.train(before)
    module[:-1].requires_grad_(False)
    module[-1] = nn.Linear(96, 10)
    return Program(module, p.digits(), CE(), adam(module[-1], 1e-2), 5)


@healthy
def trained_already() -> Program:
    module = p.mlp([64, 48, 10])
    program = Program(module, p.flat_digits(), CE(), adam(module), 4)
    p.train(program)
    return Program(module, p.flat_digits(), CE(), adam(module, 1e-3), 5)


@healthy
def shared_weights() -> Program:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.last = nn.Linear(13, 32), nn.Linear(32, 32), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            for _ in range(3):
                x = torch.relu(self.again(x))
            return self.last(x)

    module = Twice()
    return Program(module, p.wine().scaled(), CE(), adam(module, 5e-3), 25, 16)


@healthy
def low_rank() -> Program:
    """Two matrices on purpose: the second is narrow on both sides of nothing that bends."""
    module = nn.Sequential(
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 8, bias=False),
        nn.Linear(8, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    return Program(module, p.flat_digits(), CE(), adam(module), 12)


@healthy
def bits_as_inputs() -> Program:
    x = (torch.rand(500, 20, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    y = ((x[:, 0] + x[:, 1] * x[:, 2] + x[:, 3]) > 0.5).float()[:, None]
    module = p.mlp([20, 32, 1])
    return Program(module, p._split(x, y), BCE(), adam(module, 1e-2), 20, score="auc")


@healthy
def one_hot_inputs() -> Program:
    codes = torch.randint(12, (500, 3), generator=torch.Generator().manual_seed(0))
    y = ((codes[:, 0] < 5) ^ (codes[:, 1] < 4)).long()
    module = p.mlp([36, 32, 2])
    return Program(module, p._split(F.one_hot(codes, 12).flatten(1).float(), y), CE(), adam(module, 1e-2), 25)


def _example(name: str) -> Any:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
    return __import__(name)


# ----------------------------------------------------------------------------------------------- mutations

MUTATIONS: dict[str, tuple[str, Callable[[Program], Program]]] = {}
SPOILT = ("dense-relu-classes", "plain-convolutions", "one-logit", "dense-tanh-numbers")
"""Healthy networks that every mutation is applied to."""


def mutation(labels: str) -> Callable[..., Any]:
    def register(make: Callable[[Program], Program]) -> Callable[[Program], Program]:
        MUTATIONS[make.__name__.replace("_", "-")] = labels, make
        return make

    return register


def _same_optimizer(program: Program, module: nn.Module | None = None, factor: float = 1.0) -> Any:
    group = {
        k: v for k, v in program.optimizer.param_groups[0].items() if k in ("lr", "momentum", "weight_decay")
    }
    return type(program.optimizer)(
        (module or program.module).parameters(), **(group | {"lr": group["lr"] * factor})
    )


@mutation("loss|output|target")
def wrong_loss(program: Program) -> Program:
    if program.score == "accuracy":
        program.loss = nn.NLLLoss()
    elif program.score == "auc":
        program.loss = nn.L1Loss()
    else:
        program.loss = BCE()
    return program


@mutation("output|loss")
def wrong_last_activation(program: Program) -> Program:
    last = {"accuracy": nn.Softmax(dim=1), "auc": nn.Softmax(dim=1), "r2": nn.ReLU()}[program.score]
    program.module = nn.Sequential(*program.module, last)
    return program


@mutation("activation")
def no_hidden_activation(program: Program) -> Program:
    kept = [part for part in program.module if not isinstance(part, nn.ReLU | nn.Tanh)]
    program.module = nn.Sequential(*kept)
    return program


@mutation("learning rate")
def rate_times_a_hundred(program: Program) -> Program:
    program.optimizer = _same_optimizer(program, factor=100)
    return program


@mutation("learning rate|steps")
def rate_by_a_thousand(program: Program) -> Program:
    program.optimizer = _same_optimizer(program, factor=1e-3)
    return program


@mutation("target|data")
def shuffled_targets(program: Program) -> Program:
    order = torch.randperm(len(program.data.y), generator=torch.Generator().manual_seed(3))
    program.data = p.Data(program.data.x, program.data.y[order], program.data.test_x, program.data.test_y)
    return program


@mutation("inputs")
def unscaled_inputs(program: Program) -> Program:
    program.data = program.data.map(lambda t: 300 * t + 500)
    return program


@mutation("initialization")
def zero_initialization(program: Program) -> Program:
    p.initialized(program.module, nn.init.zeros_)
    return program


@mutation("frozen|optimizer")
def frozen_layer(program: Program) -> Program:
    next(part for part in program.module if hasattr(part, "weight")).requires_grad_(False)
    return program


@mutation("loop")
def missing_zero_grad(program: Program) -> Program:
    def step(module: nn.Module, optimizer: Any, loss: Any, x: Tensor, y: Tensor) -> Tensor:
        value = loss(module(x), y)
        value.backward()
        optimizer.step()
        return value

    program.step = step
    return program


@mutation("shape|output|loss|target")
def wrong_axis(program: Program) -> Program:
    class Mixed(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Tensor:
            out = self.body(x)
            return out.t().reshape(out.shape) if out.shape[1] > 1 else out - out.mean(dim=0, keepdim=True)

    program.module = Mixed(program.module)
    return program


@mutation("steps")
def too_few_steps(program: Program) -> Program:
    program.epochs = 1
    program.batch_size = 128
    return program


@mutation("batch size|normalization")
def normalized_one_by_one(program: Program) -> Program:
    norm = (
        nn.BatchNorm2d(12)
        if isinstance(program.module[0], nn.Conv2d)
        else nn.BatchNorm1d(program.module[0].out_features)
    )
    program.module = nn.Sequential(program.module[0], norm, *list(program.module)[1:])
    program.batch_size = program.shown = 1 if isinstance(norm, nn.BatchNorm2d) else 2
    return program


def mutants() -> list[tuple[str, str, Callable[[], Program]]]:
    """(name, labels, factory) of every mutation of every network in ``SPOILT``."""

    def spoil(change: Callable[[Program], Program], name: str) -> Callable[[], Program]:
        def made() -> Program:
            program = HEALTHY[name]()
            before = program.module
            program = change(program)
            if program.module is not before:
                program.optimizer = _same_optimizer(program)
            return program

        return made

    return [
        (f"{kind} of {name}", labels, spoil(change, name))
        for kind, (labels, change) in MUTATIONS.items()
        for name in SPOILT
    ]


__all__ = ["HEALTHY", "MUTATIONS", "held_back", "mutants"]
