"""The pattern of a stride, measured on made networks: with and without skips, before and after training."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import advisor
from advisor.networks.decoder import SceneShape

X = torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))


def resize(channels, out):
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(channels, out, 3, padding=1, padding_mode="replicate")
    )


def transposed(kernel, start):
    def make(channels, out):
        padding = {2: 0, 3: 1, 4: 1}[kernel]
        layer = nn.ConvTranspose2d(channels, out, kernel, 2, padding, output_padding=int(kernel == 3))
        with torch.no_grad():
            if start == "equal":
                layer.weight.copy_(layer.weight[:, :, :1, :1].expand_as(layer.weight))
            elif start == "bilinear":
                line = {2: [1.0, 1.0], 3: [0.5, 1.0, 0.5], 4: [0.25, 0.75, 0.75, 0.25]}[kernel]
                layer.weight.copy_(layer.weight[:, :, :1, :1] * torch.outer(torch.tensor(line), torch.tensor(line)))
        return layer

    return make


def shuffled(start):
    def make(channels, out):
        first = nn.Conv2d(channels, 4 * out, 3, padding=1)
        if start == "equal":
            with torch.no_grad():
                for own in (first.weight, first.bias):
                    own.copy_(own[::4].repeat_interleave(4, dim=0))
        return nn.Sequential(first, nn.PixelShuffle(2))

    return make


class Decoded(nn.Module):
    def __init__(self, up, skips):
        super().__init__()
        self.skips, self.first = skips, nn.Conv2d(1, 6, 3, padding=1)
        self.second, self.up = nn.Conv2d(6, 8, 3, padding=1), up(8, 6)
        self.last = nn.Conv2d(12 if skips else 6, 2, 3, padding=1)

    def forward(self, x):
        fine = self.first(x).relu()
        h = self.up(F.max_pool2d(self.second(fine), 2).relu())
        return self.last(torch.cat([h.relu(), fine], dim=1) if self.skips else h.relu())


def trained(module, steps=12):
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    target = (F.avg_pool2d(X, 9, 1, 4) > 0).long()[:, 0]
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(X), target).backward()
        optimizer.step()
    return module


UPS = {
    "resize": (resize, False),
    "2/2": (transposed(2, "random"), True),
    "4/2": (transposed(4, "random"), True),
    "3/2": (transposed(3, "random"), True),
    "2/2 equal": (transposed(2, "equal"), False),
    "4/2 equal": (transposed(4, "equal"), False),
    "4/2 bilinear": (transposed(4, "bilinear"), False),
    "3/2 equal": (transposed(3, "equal"), True),
    "3/2 bilinear": (transposed(3, "bilinear"), False),
    "sub-pixel": (shuffled("random"), True),
    "sub-pixel equal": (shuffled("equal"), False),
}


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("name", UPS)
def test_the_pattern_is_found_where_it_is_and_nowhere_else(name, skips):
    make, expected = UPS[name]
    for seed in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = Decoded(make, skips)
            found = [f for f in advisor.inspect(module, X).findings if f.code == "checkerboard"]
        assert bool(found) == expected, found
        if found:
            assert found[0].rule.startswith("kernel" if name.startswith("3/2") else "upsampling")
            assert set(found[0].notes) & {"N8", "N9"} and found[0].where == ("up.1" if "sub" in name else "up",)


@pytest.mark.parametrize(("name", "expected"), [("resize", False), ("3/2", True), ("2/2", True)])
def test_training_does_not_hide_it_so_soon(name, expected):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = trained(Decoded(UPS[name][0], skips=False))
    found = [f for f in advisor.inspect(module, X).findings if f.code == "checkerboard"]
    assert bool(found) == expected


@pytest.mark.parametrize("upsampling", ["resize", "transposed", "subpixel"])
def test_our_own_upsampling_begins_without_a_pattern(upsampling):
    configuration = {
        **dict(stages=3, blocks=1, block="residual", width=8, growth=2.0, kernel=3, pooling="max", squeeze=False),
        **dict(upsampling=upsampling, skips=False, deep_supervision=False, activation="relu", norm_layer="batch"),
        **dict(weight_init="he_normal", output_init="same", dropout=0.0, crop=0),
    }
    shape = SceneShape(1, (48, 48))
    own = shape.network(configuration, 2, members=1, generator=torch.Generator().manual_seed(0))

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = own

        def forward(self, x):
            return self.own(x.unsqueeze(0))[0]

    assert "checkerboard" not in [f.code for f in advisor.inspect(Plain(), X).findings]
