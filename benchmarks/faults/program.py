"""What a case of the benchmark is: a small training program as data, how it is trained, and how well it does."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from sklearn import datasets, metrics
from torch import Tensor, nn
from torch.utils.data import DataLoader

Step = Callable[[nn.Module, Any, Callable[..., Tensor], Tensor, Tensor], Tensor]
"""One step of a program's own loop: module, optimizer, loss, batch, target -> the loss."""


@dataclass(frozen=True)
class Data:
    """Rows that train and rows that test."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    def map(
        self, x: Callable[[Tensor], Tensor] = lambda t: t, y: Callable[[Tensor], Tensor] = lambda t: t
    ) -> Data:
        return Data(x(self.x), y(self.y), x(self.test_x), y(self.test_y))

    def scaled(self) -> Data:
        """Columns (or channels) with mean 0 and deviation 1 in the training rows."""
        axes = [a for a in range(self.x.dim()) if a != 1]
        mean, deviation = self.x.mean(axes, keepdim=True), self.x.std(axes, keepdim=True)
        return self.map(lambda t: (t - mean) / deviation.clamp(min=1e-6))


@dataclass
class Program:
    """A network, its data and its set-up, as a user wrote it.

    score: accuracy (of classes), auc (of 0/1 columns; 0.5 is worth nothing) or r2 (of numbers); all from 0 to 1.
    shown: rows of the batch that a debugger is given.
    """

    module: nn.Module
    data: Data
    loss: Callable[..., Tensor]
    optimizer: Any
    epochs: int = 20
    batch_size: int = 32
    score: str = "accuracy"
    step: Step | None = None
    loader: DataLoader[Any] | None = None
    shown: int = 0

    def batch(self) -> tuple[Tensor, Tensor]:
        """The first rows in a random order that is always the same."""
        order = torch.randperm(len(self.data.x), generator=torch.Generator().manual_seed(1))
        rows = order[: self.shown or max(self.batch_size, 128)]
        return self.data.x[rows], self.data.y[rows]


def usual_step(
    module: nn.Module, optimizer: Any, loss: Callable[..., Tensor], x: Tensor, y: Tensor
) -> Tensor:
    optimizer.zero_grad()
    value = loss(module(x), y)
    value.backward()
    optimizer.step()
    return value


def train(program: Program, on_loss: Callable[[Tensor], None] | None = None, most_steps: int = 10**9) -> None:
    """All epochs of a program, in batches of rows in a random order. Stops at a loss that is not finite."""
    generator, step, done = torch.Generator().manual_seed(0), program.step or usual_step, 0
    for _ in range(program.epochs):
        order = torch.randperm(len(program.data.x), generator=generator)
        for rows in order.split(program.batch_size):
            if done >= most_steps or (len(rows) < program.batch_size and len(order) > program.batch_size):
                continue
            value = step(
                program.module, program.optimizer, program.loss, program.data.x[rows], program.data.y[rows]
            )
            done += 1
            if on_loss is not None:
                on_loss(value)
            if not torch.isfinite(value.detach()).all():
                return


@torch.no_grad()
def score(program: Program) -> float:
    """How well the trained module does on the test rows, from 0 to 1."""
    program.module.eval()
    data = program.data
    out = program.module(data.test_x)
    program.module.train()
    if not torch.isfinite(out).all():
        return 0.0
    if program.score == "accuracy":
        flat = out.flatten(1)
        return (
            float((flat.argmax(dim=1) == data.test_y.flatten()).float().mean()) if flat.shape[1] > 1 else 0.0
        )
    wanted, got = (
        data.test_y.flatten(1) if data.test_y.dim() > 1 else data.test_y[:, None],
        out.flatten(1) if out.dim() > 1 else out[:, None],
    )
    if program.score == "auc":
        if got.shape != wanted.shape:
            return 0.0
        areas = [
            metrics.roc_auc_score(w.round().numpy() > w.min().item(), g)
            for w, g in zip(wanted.T, got.T, strict=True)
        ]
        return max(0.0, 2 * sum(areas) / len(areas) - 1)
    if got.shape != wanted.shape:
        return 0.0
    return max(0.0, float(metrics.r2_score(wanted, got, multioutput="variance_weighted")))


@dataclass(frozen=True)
class Case:
    """A public fault, made anew: ``make(False)`` is the faulty program, ``make(True)`` its repaired twin.

    labels: what a debugger should name, each as categories of which any will do.
    silent: it shows only in the loop, and training goes on without an error.
    """

    name: str
    make: Callable[[bool], Program] = field(repr=False)
    labels: tuple[frozenset[str], ...]
    source: str
    fault: str
    silent: bool = False

    @property
    def held_back(self) -> bool:
        return held_back(self.name)


def held_back(name: str) -> bool:
    """A third of the names, by their hash: nobody looks at these while rules are written."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 3 == 0


CASES: list[Case] = []
SECOND: list[Case] = []
"""Pairs that were written and committed after the rules, before any debugger was run on them."""
THIRD: list[Case] = []
"""The same again, after the rules were changed for mechanisms that the second set had shown."""


def case(
    source: str, fault: str, *labels: str, silent: bool = False, among: list[Case] = CASES
) -> Callable[..., Any]:
    """Register a function of ``fixed``; its name is the case's. labels: "output", or "loss|output" where either will do."""

    def register(make: Callable[[bool], Program]) -> Callable[[bool], Program]:
        def seeded(fixed: bool) -> Program:
            torch.manual_seed(0)
            return make(fixed)

        wanted = tuple(frozenset(label.split("|")) for label in labels)
        among.append(Case(make.__name__.replace("_", "-"), seeded, wanted, source, fault, silent))
        return make

    return register


def so(number: int) -> str:
    return f"https://stackoverflow.com/questions/{number}"


# ------------------------------------------------------------------------------------------------ networks


def mlp(
    widths: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU, *last: nn.Module
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1], *last)


def small_cnn(classes: int = 10, channels: int = 1, *last: nn.Module, norm: bool = False) -> nn.Sequential:
    """For 8 x 8 pixels."""
    between = (lambda c: [nn.BatchNorm2d(c)]) if norm else (lambda c: [])
    return nn.Sequential(
        nn.Conv2d(channels, 12, 3, padding=1), *between(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), *between(24), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(24 * 4, classes), *last,
    )  # fmt: skip


def initialized(
    module: nn.Module, draw: Callable[[Tensor], Any], bias: Callable[[Tensor], Any] = nn.init.zeros_
) -> Any:
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
            draw(part.weight)
            if part.bias is not None:
                bias(part.bias)
    return module


def adam(module: nn.Module, rate: float = 3e-3, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=rate, **options)


def sgd(module: nn.Module, rate: float, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=rate, **options)


# ---------------------------------------------------------------------------------------------------- data


def _split(x: Any, y: Any, share: float = 0.7) -> Data:
    x = torch.as_tensor(x).float() if not (isinstance(x, Tensor) and not x.is_floating_point()) else x
    y = torch.as_tensor(y)
    y = y.float() if y.is_floating_point() else y.long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(7))
    cut = int(share * len(x))
    return Data(x[order[:cut]], y[order[:cut]], x[order[cut:]], y[order[cut:]])


def digits(rows: int = 1797) -> Data:
    found = datasets.load_digits()
    return _split(found.images[:rows, None] / 16, found.target[:rows])


def flat_digits() -> Data:
    return digits().map(lambda t: t.flatten(1))


def iris() -> Data:
    return _split(*datasets.load_iris(return_X_y=True))


def wine() -> Data:
    return _split(*datasets.load_wine(return_X_y=True))


def cancer() -> Data:
    return as_columns(_split(*datasets.load_breast_cancer(return_X_y=True)))


def diabetes() -> Data:
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return as_columns(_split(x, y))


def moons(rows: int = 600) -> Data:
    return as_columns(_split(*datasets.make_moons(rows, noise=0.15, random_state=0)))


def as_columns(data: Data) -> Data:
    """A target of numbers, as a column."""
    return data.map(y=lambda t: t.float()[:, None])


def friedman(rows: int = 600) -> Data:
    x, y = datasets.make_friedman1(rows, noise=0.3, random_state=0)
    return as_columns(_split(2 * x - 1, (y - y.mean()) / y.std()))


def several(rows: int = 600) -> Data:
    """Three labels that do not exclude each other."""
    x = torch.randn(rows, 10, generator=torch.Generator().manual_seed(3))
    y = torch.stack([x[:, 0] + x[:, 1] > 0, x[:, 2] * x[:, 3] > 0, x[:, 4] > x[:, 5].abs() - 0.5], dim=1)
    return _split(x, y.float())


def waves(rows: int = 450, length: int = 64, classes: int = 3) -> Data:
    """Series (rows, 1, length); the class is the frequency."""
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(rows) % classes
    t = torch.linspace(0, 1, length)[None]
    phase = 6.28 * torch.rand(rows, 1, generator=generator)
    x = torch.sin(6.28 * (2 + 3 * y[:, None]) * t + phase) + 0.4 * torch.randn(
        rows, length, generator=generator
    )
    return _split(x[:, None], y)


def tokens(rows: int = 500, length: int = 16, words: int = 30) -> Data:
    """Rows of words as numbers; the class is whether a word of the first ten comes more than twice."""
    x = torch.randint(words, (rows, length), generator=torch.Generator().manual_seed(6))
    return _split(x, ((x < 6).sum(dim=1) > 3).long())


def xor(repeats: int = 1) -> Data:
    x = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]).repeat(repeats, 1)
    y = (x[:, :1] != x[:, 1:]).float()
    return Data(x, y, x, y)


def parabola(rows: int = 300, top: float = 5.0) -> Data:
    x = top * torch.rand(rows, 1, generator=torch.Generator().manual_seed(2))
    return _split(x, 5 * x**2 + torch.randn(rows, 1, generator=torch.Generator().manual_seed(4)))
