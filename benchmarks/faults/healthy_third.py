"""Five healthy networks after kinds of PyTorch's own examples (the programs that TrainCheck's authors count false alarms
on), written after the rules and committed before any debugger saw one of them."""

from __future__ import annotations

from collections.abc import Callable

import program as p
import torch
from program import Data, Program, adam
from torch import Tensor, nn
from torch.nn import functional as F

LATEST: dict[str, Callable[[], Program]] = {}


def latest(make: Callable[[], Program]) -> Callable[[], Program]:
    def seeded() -> Program:
        torch.manual_seed(0)
        return make()

    LATEST[make.__name__.replace("_", "-")] = seeded
    return make


@latest
def time_sequence_prediction() -> Program:
    """The next value of a sine at each of its points, by two cells that are called step by step."""

    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.LSTMCell(1, 24), nn.LSTMCell(24, 24), nn.Linear(24, 1)

        def forward(self, x: Tensor) -> Tensor:
            one = two = (x.new_zeros(len(x), 24), x.new_zeros(len(x), 24))
            made = []
            for value in x.split(1, dim=1):
                one = self.one(value, one)
                two = self.two(one[0], two)
                made.append(self.out(two[0]))
            return torch.cat(made, dim=1)

    generator = torch.Generator().manual_seed(2)
    start = 6.28 * torch.rand(300, 1, generator=generator)
    wave = torch.sin(start + torch.arange(21)[None] / 4)
    x, y = wave[:, :-1], wave[:, 1:]
    module = Cells()
    return Program(
        module, Data(x[:200], y[:200], x[200:], y[200:]), nn.MSELoss(), adam(module, 1e-2), 20, score="r2"
    )


@latest
def super_resolution() -> Program:
    """Digits of 8 x 8 pixels from 4 x 4 by sub-pixel convolution."""
    data = p.digits(700)
    data = Data(F.avg_pool2d(data.x, 2), data.x, F.avg_pool2d(data.test_x, 2), data.test_x)
    module = nn.Sequential(
        nn.Conv2d(1, 64, 5, padding=2), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 3, padding=1), nn.PixelShuffle(2),
    )  # fmt: skip
    return Program(module, data, nn.MSELoss(), adam(module, 2e-3), 15, score="r2")


@latest
def polynomial_regression() -> Program:
    """A single matrix on powers of one number."""
    x = 2 * torch.rand(500, 1, generator=torch.Generator().manual_seed(3)) - 1
    powers = torch.cat([x, x**2, x**3, x**4], dim=1)
    y = powers @ torch.tensor([[1.5], [-2.0], [0.5], [1.0]]) + 0.3
    module = nn.Linear(4, 1)
    data = Data(powers[:350], y[:350], powers[350:], y[350:])
    return Program(module, data, nn.SmoothL1Loss(), p.sgd(module, 0.1, momentum=0.9), 40, score="r2")


@latest
def digits_row_by_row() -> Program:
    """A recurrent network that reads an image as a series of its rows."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.norm = nn.LSTM(8, 48, batch_first=True), nn.BatchNorm1d(48)
            self.drop, self.one, self.two = nn.Dropout(0.25), nn.Linear(48, 32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            seen = self.norm(self.rnn(x.flatten(0, 1))[0][:, -1])
            return F.log_softmax(self.two(F.relu(self.one(self.drop(seen)))), dim=1)

    module = Rows()
    return Program(module, p.digits(), nn.NLLLoss(), adam(module, 3e-3), 12)


@latest
def vision_transformer() -> Program:
    """Patches, positions, two blocks written by hand, mean over the patches."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.attention = nn.LayerNorm(32), nn.MultiheadAttention(32, 4, batch_first=True)
            self.again = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

        def forward(self, x: Tensor) -> Tensor:
            seen = self.norm(x)
            x = x + self.attention(seen, seen, seen, need_weights=False)[0]
            return x + self.again(x)

    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, 32, 2, stride=2)
            self.places = nn.Parameter(0.02 * torch.randn(1, 16, 32))
            self.blocks, self.head = (
                nn.Sequential(Block(), Block()),
                nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 10)),
            )

        def forward(self, x: Tensor) -> Tensor:
            seen = self.patches(x).flatten(2).transpose(1, 2) + self.places
            return self.head(self.blocks(seen).mean(dim=1))

    module = Seen()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    return Program(module, p.digits(900), nn.CrossEntropyLoss(label_smoothing=0.05), optimizer, 12)
