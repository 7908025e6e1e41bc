"""Ten healthy networks of kinds that ``healthy`` does not have, written after the rules and committed before any
debugger saw one of them: what is said of these is reported apart, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import program as p
import torch
from program import Data, Program, adam
from torch import Tensor, nn
from torch.nn import functional as F

NEW: dict[str, Callable[[], Program]] = {}


def new(make: Callable[[], Program]) -> Callable[[], Program]:
    def seeded() -> Program:
        torch.manual_seed(0)
        return make()

    NEW[make.__name__.replace("_", "-")] = seeded
    return make


@new
def discriminator_of_a_gan() -> Program:
    """Real digits, and smooth noise in their place."""
    real = p.digits(500)
    generator = torch.Generator().manual_seed(9)

    def with_fakes(x: Tensor) -> tuple[Tensor, Tensor]:
        fake = F.avg_pool2d(torch.rand(x.shape, generator=generator), 3, stride=1, padding=1)
        both = torch.cat([x, fake]) * 2 - 1
        y = torch.cat([torch.ones(len(x), 1), torch.zeros(len(x), 1)])
        order = torch.randperm(len(both), generator=generator)
        return both[order], y[order]

    data = Data(*with_fakes(real.x), *with_fakes(real.test_x))
    norm = nn.utils.parametrizations.spectral_norm
    module = nn.Sequential(
        norm(nn.Conv2d(1, 16, 4, stride=2, padding=1)), nn.LeakyReLU(0.2),
        norm(nn.Conv2d(16, 32, 4, stride=2, padding=1)), nn.LeakyReLU(0.2), nn.Flatten(), norm(nn.Linear(128, 1)),
    )  # fmt: skip
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3, betas=(0.5, 0.999))
    return Program(module, data, nn.BCEWithLogitsLoss(), optimizer, 20, score="auc")


@new
def siamese() -> Program:
    """Two digits side by side: are they of one class?"""

    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1),
                nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 32),
            )  # fmt: skip
            self.head = nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            one, two = self.body(x[:, :1]), self.body(x[:, 1:])
            return self.head((one - two).abs())

    found = p.digits()

    def paired(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        other = torch.randperm(len(x), generator=generator)
        for row in range(0, len(x), 2):  # half of the pairs are alike
            same = (y == y[row]).nonzero().flatten()
            other[row] = same[torch.randint(len(same), (1,), generator=generator)]
        return torch.cat([x, x[other]], dim=1), (y == y[other]).float()[:, None]

    module = Siamese()
    data = Data(*paired(found.x, found.y), *paired(found.test_x, found.test_y))
    return Program(module, data, nn.BCEWithLogitsLoss(), adam(module), 20, score="auc")


@new
def lstm_language_model() -> Program:
    """The next of 12 words, where a word is mostly followed by one of two."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.rnn = nn.Embedding(12, 24), nn.LSTM(24, 48, batch_first=True)
            self.drop, self.head = nn.Dropout(0.1), nn.Linear(48, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(self.rnn(self.words(x))[0])).transpose(1, 2)

    generator = torch.Generator().manual_seed(8)
    rows = torch.randint(12, (400, 1), generator=generator)
    for _ in range(20):
        jump = torch.tensor([1, 5])[torch.randint(2, (400, 1), generator=generator)]
        rows = torch.cat([rows, (rows[:, -1:] * 5 + jump) % 12], dim=1)
    data = Data(rows[:300, :-1], rows[:300, 1:], rows[300:, :-1], rows[300:, 1:])
    module = Model()
    return Program(module, data, nn.CrossEntropyLoss(), adam(module, 5e-3), 15)


@new
def transformer_encoder_with_a_class_token() -> Program:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Linear(4, 32)
            self.token = nn.Parameter(torch.zeros(1, 1, 32))
            self.places = nn.Parameter(0.02 * torch.randn(1, 17, 32))
            layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            seen = self.patches(F.unfold(x, 2, stride=2).transpose(1, 2))
            seen = torch.cat([self.token.expand(len(x), -1, -1), seen], dim=1) + self.places
            return self.head(self.norm(self.encoder(seen)[:, 0]))

    module = Model()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.05)
    return Program(module, p.digits(900), nn.CrossEntropyLoss(), optimizer, 15)


@new
def mixture_of_experts() -> Program:
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(p.mlp([10, 24, 1]) for _ in range(4))
            self.gate = nn.Linear(10, 4)

        def forward(self, x: Tensor) -> Tensor:
            share = torch.softmax(self.gate(x), dim=1)
            return (torch.cat([expert(x) for expert in self.experts], dim=1) * share).sum(dim=1, keepdim=True)

    module = Mixture()
    return Program(module, p.friedman(), nn.MSELoss(), adam(module, 5e-3), 40, score="r2")


@new
def graph_network_by_hand() -> Program:
    """Graphs of 10 nodes as rows (features and edges side by side); the class is whether there are many edges."""

    class Graphs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(6, 32), nn.Linear(64, 32), nn.Linear(32, 2)

        def forward(self, x: Tensor) -> Tensor:
            edges, nodes = x[:, :, :10], x[:, :, 10:]
            seen = torch.relu(self.first(torch.cat([nodes, edges @ nodes], dim=2)))
            seen = torch.relu(self.second(torch.cat([seen, edges @ seen / 10], dim=2)))
            return self.head(seen.mean(dim=1))

    generator = torch.Generator().manual_seed(12)
    chance = 0.2 + 0.3 * torch.rand(400, 1, 1, generator=generator)
    upper = (torch.rand(400, 10, 10, generator=generator) < chance).float().triu(1)
    edges, nodes = upper + upper.transpose(1, 2), torch.randn(400, 10, 3, generator=generator)
    x, y = torch.cat([edges, nodes], dim=2), (upper.sum(dim=(1, 2)) > 15.5).long()
    module = Graphs()
    return Program(
        module, Data(x[:300], y[:300], x[300:], y[300:]), nn.CrossEntropyLoss(), adam(module, 5e-3), 30
    )


@new
def variational_autoencoder() -> Program:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 16))
            self.decoder = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 64))

        def forward(self, x: Tensor) -> Any:
            mean, spread = self.encoder(x).chunk(2, dim=1)
            code = mean + (0.5 * spread).exp() * torch.randn_like(mean) if self.training else mean
            return self.decoder(code), mean, spread

    def loss(out: Any, y: Tensor) -> Tensor:
        logits, mean, spread = out
        rebuilt = F.binary_cross_entropy_with_logits(logits, y, reduction="sum") / len(y)
        return rebuilt - 0.5 * (1 + spread - mean.square() - spread.exp()).sum() / len(y)

    data = p.flat_digits()
    module = Model()
    return Program(module, Data(data.x, data.x, data.test_x, data.test_x), loss, adam(module), 15, score="r2")


@new
def u_net() -> Program:
    """Which pixels belong to the digit, under noise."""

    def block(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
        )

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.deep, self.middle = block(1, 12), block(12, 24), block(24, 24)
            self.up, self.again = nn.ConvTranspose2d(24, 12, 2, stride=2), block(24, 12)
            self.out = nn.Conv2d(12, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            fine = self.down(x)
            coarse = self.middle(self.deep(F.max_pool2d(fine, 2)))
            return self.out(self.again(torch.cat([fine, self.up(coarse)], dim=1)))

    data = p.digits(500)
    generator = torch.Generator().manual_seed(4)

    def noisy(x: Tensor) -> Tensor:
        return x + 0.3 * torch.randn(x.shape, generator=generator)

    def mask(x: Tensor) -> Tensor:
        return (x > 0.4).float()

    module = Net()
    made = Data(noisy(data.x), mask(data.x), noisy(data.test_x), mask(data.test_x))
    return Program(module, made, nn.BCEWithLogitsLoss(), adam(module), 15, score="auc")


@new
def policy_network() -> Program:
    """One-step decisions: the action that was taken, and its reward less the mean, as the target's columns."""
    generator = torch.Generator().manual_seed(21)
    x = torch.randn(800, 6, generator=generator)
    best = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    action = torch.randint(4, (800,), generator=generator)
    reward = (action == best).float() + 0.1 * torch.randn(800, generator=generator)
    y = torch.stack([action.float(), reward - reward.mean()], dim=1)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        chance = torch.log_softmax(out, dim=1)
        taken = chance.gather(1, y[:, :1].long()).squeeze(1)
        return -(taken * y[:, 1]).mean() - 0.05 * -(chance.exp() * chance).sum(dim=1).mean()

    module = p.mlp([6, 48, 4], nn.Tanh)
    return Program(module, Data(x[:600], y[:600], x[600:], best[600:]), loss, adam(module, 5e-3), 30)


@new
def sets_of_points() -> Program:
    """Deep sets: on a circle or in a square, whatever the points' order."""

    class Sets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.all = p.mlp([2, 32, 32]), p.mlp([32, 32, 2])

        def forward(self, x: Tensor) -> Tensor:
            return self.all(torch.relu(self.each(x)).amax(dim=1))

    generator = torch.Generator().manual_seed(30)
    y = torch.arange(400) % 2
    angle = 2 * math.pi * torch.rand(400, 20, generator=generator)
    circle = torch.stack([angle.cos(), angle.sin()], dim=2)
    square = 1.8 * torch.rand(400, 20, 2, generator=generator) - 0.9
    x = torch.where(y[:, None, None] == 1, circle, square)
    x = x + 0.1 * torch.randn(x.shape, generator=generator)
    module = Sets()
    return Program(
        module, Data(x[:300], y[:300], x[300:], y[300:]), nn.CrossEntropyLoss(), adam(module, 5e-3), 20
    )
