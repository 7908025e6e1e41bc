"""Networks for images and sequences: their plans against what is built, papers'
numbers, fields, and members apart."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from advisor.networks.convolutional import SignalNetwork, StackedConvolution, StackedMapNorm
from advisor.networks.geometry import (
    group_count,
    layers,
    map_sizes,
    memory_bytes,
    multiplications,
    parameter_count,
    problem,
    receptive_field,
    receptive_fields,
    rows_per_pass,
)
from advisor.networks.kernels import kernel_features
from advisor.networks.plan import blocks_per_stage, plan_of
from advisor.rules import shipped

SPACES = {"image": shipped.base_space("image"), "sequence": shipped.base_space("sequence")}


def configured(kind, **changes):
    """A configuration of the base space with some values changed, inactive and derived ones too."""
    return {**SPACES[kind].complete({}), "resolution": 1.0, **changes}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def built(plan, outputs=3, members=2, seed=0, prior=None):
    return SignalNetwork(plan, outputs, members=members, generator=seeded(seed), prior=prior)


class Drawn:
    """An Optuna trial whose suggestions hypothesis draws."""

    def __init__(self, draw):
        self.draw = draw

    def suggest_categorical(self, name, choices):
        return self.draw(st.sampled_from(choices))

    def suggest_int(self, name, low, high, log=False):
        return self.draw(st.integers(low, min(high, max(low, 24))))

    def suggest_float(self, name, low, high, log=False):
        return self.draw(st.floats(low, high))


@st.composite
def plans(draw):
    """Any configuration of the base spaces, kept small, that nothing speaks
    against, for inputs of any shape."""
    kind = draw(st.sampled_from(["image", "sequence"]))
    configuration = SPACES[kind].suggest(Drawn(draw))
    if kernel_features(configuration) is not None:  # without a plan: tests/networks/test_kernels.py
        configuration["network"] = "convolutional"
    configuration |= {
        "norm_layer": draw(st.sampled_from(["none", "batch", "group", "layer"])),
        "width": 8,
        "compound": 0.0,
    }
    size = [draw(st.integers(16, 24)) for _ in range(2 if kind == "image" else 1)]
    plan = plan_of(configuration, draw(st.integers(1, 3)), size)
    if problem(plan, 3, 16) or (len(plan.blocks) > 8 and kind == "image"):
        small = {"stages": 2, "blocks": 1, "stem_stride": 1, "network": "convolutional"}
        plan = plan_of({**configuration, **small}, 2, size)
    return plan


# ------------------------------------------------------------------ papers


def test_parameter_counts_of_the_papers():
    """ResNet-20 for CIFAR with projections (He et al. 2015: 0.27 M), EfficientNet-B0 (5.3 M), Mixer-S/16 and
    B/16 (18.5 and 59.9 M); to the last weight those of the authors' code."""
    resnet = configured(
        "image",
        block="residual",
        norm_layer="batch",
        blocks=3,
        width=16,
        growth=2.0,
        pooling="stride",
        head="average",
    )
    assert parameter_count(plan_of(resnet, 3, (32, 32)), 10) == 272_474
    b0 = plan_of(
        configured("image", network="efficientnet", width=32, norm_layer="batch", head="average"),
        3,
        (224, 224),
    )
    assert parameter_count(b0, 1000) == 5_288_548
    assert map_sizes(b0)[-1] == (7, 7)
    for width, depth, count in ((512, 8, 18_528_264), (768, 12, 59_880_472)):
        mixer = configured(
            "image", network="mixer", width=width, mixer_layers=depth, patch=16, head="average"
        )
        assert parameter_count(plan_of(mixer, 3, (224, 224)), 1000) == count


def test_multiplications_of_the_papers():
    """ResNet-20 41 M, EfficientNet-B0 0.39 G, Mixer-S/16 3.8 G and B/16 12.7 G. A mixer's tokens and a
    squeeze are counted at each point of the map, which is good to a quarter."""
    resnet = configured(
        "image",
        block="residual",
        norm_layer="batch",
        blocks=3,
        width=16,
        growth=2.0,
        pooling="stride",
        head="average",
    )
    assert multiplications(plan_of(resnet, 3, (32, 32)), 10) == pytest.approx(41e6, rel=0.02)
    b0 = plan_of(
        configured("image", network="efficientnet", width=32, norm_layer="batch", head="average"),
        3,
        (224, 224),
    )
    assert multiplications(b0, 1000) == pytest.approx(0.39e9, rel=0.25)
    for width, depth, count in ((512, 8, 3.8e9), (768, 12, 12.7e9)):
        mixer = configured(
            "image", network="mixer", width=width, mixer_layers=depth, patch=16, head="average"
        )
        assert multiplications(plan_of(mixer, 3, (224, 224)), 1000) == pytest.approx(count, rel=0.25)


@settings(max_examples=20, deadline=None)
@given(plans())
def test_multiplications_are_those_that_torch_counts(plan):
    network = built(plan, members=1).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(1, 4, plan.channels, *plan.size, generator=seeded(1)))
    assert 1 / 3 < multiplications(plan, 3) / (counter.get_total_flops() / 2 / 4) < 3


def test_compound_scaling_follows_the_paper():
    """EfficientNet-B1's coefficients (phi 0.5): depth 1.2^phi, width 1.1^phi, resolution 1.15^phi."""
    small, large = (
        plan_of(
            configured("image", network="efficientnet", width=32, compound=phi, norm_layer="batch"),
            3,
            (224, 224),
        )
        for phi in (0.0, 2.0)
    )
    assert large.size == (round(224 * 1.15**2),) * 2
    assert len(large.blocks) == sum(math.ceil(n * 1.2**2) for n in (1, 2, 2, 3, 3, 4, 1))
    assert large.blocks[-1].outputs == 384 and small.blocks[-1].outputs == 320


def test_small_images_are_not_halved_to_nothing():
    plan = plan_of(configured("image", network="efficientnet", width=32, norm_layer="batch"), 1, (8, 8))
    assert min(map_sizes(plan)[-1]) == 2
    assert problem(plan, 10, 16) is None


def test_an_inception_network_has_what_its_paper_says():
    inception = configured(
        "sequence", network="inception", width=32, kernel=39, stages=3, blocks=2, norm_layer="batch"
    )
    plan = plan_of(inception, 1, [100])
    assert len(plan.blocks) == 6  # two residual connections over three modules each
    assert [block.shortcut for block in plan.blocks] == [0, 0, 1, 0, 0, 128]
    # the first module has no bottleneck for its single channel; 39, 19 and 9 points beside a pooled path
    assert layers(plan)[0].parameters == 32 * (39 + 19 + 9) + 32 + 2 * 128


# ------------------------------------------------------------------ plan and network agree


@settings(max_examples=40, deadline=None)
@given(plans(), st.integers(1, 3))
def test_the_plan_counts_what_is_built_and_knows_its_shapes(plan, members):
    network = built(plan, members=members)
    assert sum(weight.numel() for weight in network.parameters()) == members * parameter_count(plan, 3)
    x = torch.randn(members, 4, plan.channels, *plan.size, generator=seeded(1))
    assert network(x).shape == (members, 4, 3)
    assert torch.isfinite(network(x)).all()
    maps = network.features(x)
    if plan.patch:
        assert maps.shape[3] == math.prod(map_sizes(plan)[-1])
    else:
        assert tuple(maps.shape[2:]) == map_sizes(plan)[-1]
        assert maps.shape[1] == members * plan.width
    assert memory_bytes(plan, 3, 8, members) > 0 and rows_per_pass(plan, members) >= 1


@settings(max_examples=25, deadline=None)
@given(plans())
def test_members_never_meet(plan):
    """Member 1's output and gradient do not change when member 0's rows and weights do."""
    network, other = built(plan, seed=1), built(plan, seed=1)
    with torch.no_grad():
        for weight in other.parameters():
            weight[0] += 0.5
    x = torch.randn(2, 4, plan.channels, *plan.size, generator=seeded(2))
    y = x.clone()
    y[0] = torch.randn(x[0].shape, generator=seeded(3))
    one, two = network(x, seeded(7)), other(y, seeded(7))
    torch.testing.assert_close(one[1], two[1])
    one[1].sum().backward()
    two.sum().backward()
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad[1], theirs.grad[1])
        assert not mine.grad[0].any()


def test_a_stack_computes_what_its_members_compute_alone():
    configuration = configured(
        "image", block="residual", norm_layer="batch", width=8, head="average", pooling="average"
    )
    plan = plan_of(configuration, 1, (12, 10))
    stack, alone = built(plan, members=3), built(plan, members=1)
    x = torch.randn(3, 6, 1, 12, 10, generator=seeded(5))
    together = stack(x)
    for member in range(3):
        with torch.no_grad():
            for mine, theirs in zip(alone.state_dict().values(), stack.state_dict().values(), strict=True):
                mine.copy_(theirs[member : member + 1])
        alone.train()
        torch.testing.assert_close(alone(x[member : member + 1])[0], together[member], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("network", ["convolutional", "inception"])
def test_a_network_that_averages_over_time_knows_places_by_the_ramp_alone(network):
    """A bump early or late: the same numbers on average, where no unit that sees the bump sees a border."""
    x = torch.zeros(1, 2, 1, 64)
    x[0, 0, 0, 20:24] = x[0, 1, 0, 40:44] = 1.0
    plain, ramp = (
        plan_of(
            configured(
                "sequence", network=network, width=8, stages=1, kernel=3, head="average", position=position
            ),
            1,
            (64,),
        )
        for position in ("none", "coordinate")
    )
    assert (plain.inputs, ramp.inputs, ramp.channels) == (1, 2, 1)
    early, late = built(plain, members=1)(x)[0]
    assert torch.allclose(early, late, atol=1e-6)
    early, late = built(ramp, members=1)(x)[0]
    assert not torch.allclose(early, late, atol=1e-4)


@pytest.mark.parametrize("network", ["recurrent", "mixer"])
def test_a_ramp_that_a_person_asks_for_is_an_input_of_every_network(network):
    plan = plan_of(
        configured("sequence", network=network, width=8, stages=1, position="coordinate"), 1, (64,)
    )
    stack = built(plan)
    assert stack(torch.randn(2, 4, 1, 64, generator=seeded(1))).shape == (2, 4, 3)
    assert sum(weight.numel() for weight in stack.parameters()) == 2 * parameter_count(plan, 3)


# ------------------------------------------------------------------ receptive field


FIELDS = [
    ("sequence", {"kernel": 5, "stages": 3, "pooling": "max"}),
    ("sequence", {"kernel": 7, "stages": 2, "pooling": "stride", "stem_stride": 2}),
    (
        "sequence",
        {"kernel": 3, "stages": 3, "dilation": 2, "pooling": "average", "blocks": 2, "block_place": "late"},
    ),
    ("sequence", {"kernel": 3, "stages": 2, "block": "residual", "pooling": "stride"}),
    ("sequence", {"network": "inception", "kernel": 9, "stages": 3, "blocks": 1, "width": 8}),
    ("sequence", {"kernel": 5, "stages": 2, "position": "coordinate"}),
    ("image", {"kernel": 3, "stages": 2, "pooling": "average"}),
    ("image", {"kernel": 5, "stages": 2, "factorised": True, "pooling": "stride"}),
    ("image", {"kernel": 3, "stages": 2, "block": "residual", "stem_stride": 2}),
    ("image", {"network": "efficientnet", "width": 8}),
]


@pytest.mark.parametrize(("kind", "changes"), FIELDS)
def test_the_receptive_field_is_where_the_gradient_lies(kind, changes):
    """Notes N20 and N25: exactly the inputs that a unit in the middle of the last map depends on."""
    smooth = {"norm_layer": "none", "activation": "leaky_relu", "width": 16}
    configuration = configured(kind, **{**smooth, **changes})
    size = 160 if kind == "sequence" else 96
    plan = plan_of(configuration, 1, [size] * (1 if kind == "sequence" else 2))
    if (
        plan.blocks[0].kind == "inverted"
    ):  # squeeze-and-excitation sees everything: without it the arithmetic is met
        plan = replace(plan, blocks=tuple(replace(block, squeeze=False) for block in plan.blocks))
    network = built(plan, members=1).double().eval()
    with (
        torch.no_grad()
    ):  # no zero anywhere that would hide a dependence; a maximum passes on one of its inputs only
        for weight in network.parameters():
            weight.abs_().add_(0.01)
    x = torch.rand(1, 1, 1, *plan.size, generator=seeded(4)).double().requires_grad_()
    middle = [n // 2 for n in map_sizes(plan)[-1]]
    field = receptive_fields(plan)[-1]
    reach = torch.zeros(plan.size, dtype=torch.bool)
    for seed in range(1 if "max" not in str(changes.get("pooling", "max")) else 30):
        x = torch.rand(1, 1, 1, *plan.size, generator=seeded(seed)).double().requires_grad_()
        maps = network.features(x)
        maps[(0, slice(None), *middle)].sum().backward()
        reach |= x.grad[0, 0, 0] != 0
    for axis in range(plan.axes):
        seen = reach.movedim(axis, 0).reshape(plan.size[axis], -1).any(dim=1).nonzero().flatten()
        assert int(seen[-1] - seen[0]) + 1 == min(field.size[axis], plan.size[axis])
    assert receptive_field(plan) == min(field.size[0], size)


def test_global_parts_see_everything():
    for network in ("recurrent", "mixer"):
        plan = plan_of(configured("sequence", network=network, width=8, stages=1), 1, (64,))
        assert receptive_field(plan) == 64
        assert receptive_fields(plan)[-1].whole
    squeezed = plan_of(configured("image", squeeze=True, norm_layer="batch"), 1, (64, 64))
    assert receptive_field(squeezed) == 64


def test_late_blocks_let_the_field_grow_toward_the_end():
    """N20, N21: as many blocks, but the halvings come earlier and the field is larger."""
    late, even = (
        plan_of(configured("image", blocks=2, stages=4, block_place=place, kernel=3), 1, (128, 128))
        for place in ("late", "even")
    )
    assert len(late.blocks) == len(even.blocks) == 8
    assert receptive_field(late) > receptive_field(even)
    growth = [b.size[0] - a.size[0] for a, b in itertools.pairwise(receptive_fields(late))]
    assert max(growth) == growth[-1]


@given(st.integers(1, 6), st.integers(1, 4))
def test_blocks_are_placed_without_loss(stages, blocks):
    late = blocks_per_stage(stages, blocks, "late")
    assert abs(sum(late) - stages * blocks) <= stages / 2
    assert min(late) >= 1 and list(late) == sorted(late)
    assert blocks_per_stage(stages, blocks, "even") == (blocks,) * stages


# ------------------------------------------------------------------ what cannot work is refused


def test_what_cannot_work_is_refused_before_it_is_trained():
    tiny = plan_of(configured("image", stages=5), 1, (8, 8))
    assert "nothing is left of an input of 8 x 8" in problem(tiny, 10, 16)
    patch = plan_of(configured("image", network="mixer", patch=16), 1, (8, 8))
    assert "smaller patch" in problem(patch, 10, 16)
    single = plan_of(configured("image", norm_layer="batch"), 1, (8, 8))
    assert "batches of one row" in problem(single, 10, 1)
    assert problem(single, 10, 2) is None
    large = plan_of(configured("image", width=512), 3, (224, 224))
    assert "GB are free" in problem(large, 10, 256, memory=1e9)
    assert problem(large, 10, 1, memory=1e12) is None
    with pytest.raises(ValueError, match="no efficientnet network"):
        plan_of(configured("sequence", network="efficientnet"), 1, (40,))


@pytest.mark.parametrize("channels", [1, 8, 12, 30, 64, 512])
def test_groups_divide_the_channels(channels):
    assert channels % group_count(channels) == 0
    assert group_count(channels) <= 32


# ------------------------------------------------------------------ parts


@pytest.mark.parametrize("how", ["he_normal", "xavier_uniform", "lecun_normal", "torch_default"])
def test_kernels_start_with_the_variance_of_their_fan_in(how):
    """Notes N22 and N31."""
    weight = StackedConvolution(2, 16, 32, (5, 5), how, seeded()).weight
    fan_in, fan_out = 16 * 25, 32 * 25
    wanted = {
        "he_normal": 2 / fan_in, "xavier_uniform": 2 / (fan_in + fan_out), "lecun_normal": 1 / fan_in,
        "torch_default": 1 / (3 * fan_in),
    }[how]  # fmt: skip
    assert float(weight.detach().var()) == pytest.approx(wanted, rel=0.05)


def test_batch_normalization_is_torchs_and_group_normalization_ignores_the_batch():
    x = torch.randn(6, 2 * 8, 5, generator=seeded())
    ours, theirs = StackedMapNorm(2, 8, "batch"), torch.nn.BatchNorm1d(16)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_mean.flatten(), theirs.running_mean)
    torch.testing.assert_close(ours.running_variance.flatten(), theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    group = StackedMapNorm(2, 8, "group")
    torch.testing.assert_close(group(x)[:1], group(x[:1]))


def test_the_first_prediction_is_the_class_shares():
    prior = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]).log()
    plan = plan_of(configured("image", output_init="zero", norm_layer="batch"), 1, (8, 8))
    out = built(plan, prior=prior)(torch.randn(2, 5, 1, 8, 8))
    torch.testing.assert_close(out.softmax(dim=2), prior.exp().unsqueeze(1).expand(2, 5, 3))


def test_dropout_draws_from_the_generator_that_is_handed_in():
    plan = plan_of(configured("image", dropout=0.5, norm_layer="batch", output_init="same"), 1, (8, 8))
    network, x = built(plan), torch.randn(2, 5, 1, 8, 8)
    network.train()
    torch.testing.assert_close(network(x, seeded(1)), network(x, seeded(1)))
    assert not torch.equal(network(x, seeded(1)), network(x, seeded(2)))


def test_penalties_act_on_kernels_and_matrices_alone():
    plan = plan_of(configured("image", norm_layer="batch", squeeze=True), 1, (16, 16))
    network = built(plan)
    kernels = {id(m.weight) for m in network.modules() if hasattr(m, "weight")}
    assert {id(weight) for weight in network.decayed()} == kernels
    assert {id(weight) for weight in network.head_parameters()} == {
        id(network.head.weight),
        id(network.head.bias),
    }
