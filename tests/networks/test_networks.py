"""Networks: what they compute, how they start, and that the members of a stack never meet."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.networks.tables import (
    ACTIVATIONS,
    InputShape,
    Periodic,
    PiecewiseLinear,
    StackedEmbedding,
    StackedLinear,
    StackedNorm,
    TableNetwork,
    initialize,
)
from advisor.rules import shipped

SPACE = shipped.base_space()
INITS = ["he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "lecun_normal", "torch_default"]
MIXED = InputShape(numeric=3, indicators=2, code_counts=(4, 7))
SHAPES = [MIXED, InputShape(2, 0, ()), InputShape(0, 3, ()), InputShape(0, 0, (5,))]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def configured(**changes):
    return SPACE.complete({"width": 16, **changes})


def edges(members, shape, bins, seed=0):
    """Ascending edges on the scale of the inputs, another set per member."""
    return torch.randn(members, bins + 1, shape.numeric, generator=seeded(seed)).sort(dim=1).values


def built(configuration, shape=MIXED, outputs=3, members=2, seed=0, prior=None):
    bins = edges(members, shape, configuration["numeric_embedding_bins"])
    return TableNetwork(
        configuration, shape, outputs, members=members, generator=seeded(seed), bins=bins, prior=prior
    )


def inputs(shape=MIXED, members=2, rows=5, seed=0):
    generator = seeded(seed)
    numeric = torch.randn(members, rows, shape.numeric, generator=generator)
    indicators = torch.randint(0, 2, (members, rows, shape.indicators), generator=generator).float()
    codes = [torch.randint(0, count, (members, rows, 1), generator=generator) for count in shape.code_counts]
    return numeric, indicators, torch.cat([torch.zeros(members, rows, 0, dtype=torch.int64), *codes], dim=2)


class Drawn:
    """An Optuna trial whose suggestions hypothesis draws, so that failures shrink towards the low ends."""

    def __init__(self, draw):
        self.draw = draw

    def suggest_int(self, name, low, high, *, log=False):
        return self.draw(st.integers(low, min(high, 40) if name == "width" else high), name)

    def suggest_float(self, name, low, high, *, log=False):
        return self.draw(st.floats(low, high), name)

    def suggest_categorical(self, name, choices):
        return self.draw(st.sampled_from(choices), name)


# The whole configuration space


def expected_parameters(c, shape, outputs):
    """Parameters of one member, counted by hand."""
    numeric, total = shape.numeric, 0
    if c["numeric_embedding"] != "none" and numeric:
        size = c["numeric_embedding_dim"]
        if c["numeric_embedding"] == "piecewise_linear":
            total += numeric * size * (2 + c["numeric_embedding_bins"])
        else:
            waves = Periodic.FREQUENCIES
            total += numeric * (2 * waves + (waves + 1) * (size - 1))
        numeric *= size
    size = c["category_embedding_dim"]
    total += sum(shape.code_counts) * size
    total += (shape.numeric + shape.indicators + len(shape.code_counts)) * bool(c["column_scale_rate"])
    width = first = numeric + shape.indicators + len(shape.code_counts) * size
    for _ in range(c["hidden_layers"]):
        total += (width + 1) * c["width"] + (0 if c["norm"] == "none" else 2 * c["width"])
        width = c["width"]
    # a residual block normalizes what comes in, which is as wide as what goes out
    return total + (width + 1) * outputs + ((first + 1) * outputs if c["linear_skip"] else 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_every_configuration_gives_finite_outputs_and_gradients_of_the_right_shape(data):
    configuration = SPACE.suggest(Drawn(data.draw))
    configuration["weight_init"] = data.draw(st.sampled_from(INITS), "weight_init")
    shape = data.draw(st.sampled_from(SHAPES), "shape")
    outputs, members, rows = (data.draw(st.integers(1, 3), name) for name in ("outputs", "members", "rows"))
    network = built(configuration, shape, outputs, members)
    given_inputs = inputs(shape, members, rows)
    own = sum(p[0].numel() for p in network.parameters())
    assert own == expected_parameters(configuration, shape, outputs)
    assert all(len(p) == members for p in network.parameters())
    for mode in (True, False):
        out = network.train(mode)(*given_inputs, seeded())
        assert out.shape == (members, rows, outputs)
        assert out.isfinite().all()
        network.zero_grad()
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    state = network.state_dict()
    assert all(len(tensor) == members for tensor in state.values())  # the best epoch is kept member by member


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_widest_and_deepest_network_starts_with_finite_outputs(activation):
    configuration = SPACE.complete({"hidden_layers": 8, "width": 1024, "activation": activation})
    out = built(configuration, members=1)(*inputs(members=1))
    assert out.isfinite().all()
    assert out.abs().max() < 100


def test_the_activations_are_those_of_torch():
    x = torch.linspace(-4, 4, 33)
    modules = {"relu": torch.nn.ReLU(), "leaky_relu": torch.nn.LeakyReLU(), "sigmoid": torch.nn.Sigmoid(),
               "tanh": torch.nn.Tanh(), "gelu": torch.nn.GELU(), "silu": torch.nn.SiLU(), "mish": torch.nn.Mish(),
               "selu": torch.nn.SELU()}  # fmt: skip
    assert set(modules) == set(ACTIVATIONS) == set(SPACE.parameters["activation"].choices)
    for name, module in modules.items():
        assert torch.equal(ACTIVATIONS[name](x), module(x)), name


# The start


@pytest.mark.parametrize("how", INITS)
@pytest.mark.parametrize(("fan_in", "fan_out"), [(400, 100), (50, 800)])
def test_weights_have_the_variance_of_their_paper(how, fan_in, fan_out):
    expected = {
        "he": 2 / fan_in,
        "xavier": 2 / (fan_in + fan_out),
        "lecun": 1 / fan_in,
        "torch": 1 / (3 * fan_in),
    }
    weight = torch.empty(2, fan_in, fan_out)
    initialize(weight, how, seeded())
    variance, n = expected[how.split("_")[0]], fan_in * fan_out
    for member in weight:
        # six standard errors; the fourth moment of a normal makes its variance the less certain one
        assert member.mean().abs() < 6 * math.sqrt(variance / n)
        assert abs(float(member.var()) / variance - 1) < 6 * math.sqrt(2 / n)
    kurtosis = float((weight**4).mean() / (weight**2).mean() ** 2)
    assert kurtosis == pytest.approx(3.0 if how.endswith("normal") else 1.8, rel=0.1)
    assert not torch.equal(weight[0], weight[1])


def test_the_start_of_torch_is_that_of_torch():
    """The same bound as torch.nn.Linear draws within."""
    weight = torch.empty(1, 300, 200)
    initialize(weight, "torch_default", seeded())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = torch.nn.Linear(300, 200)
    assert float(weight.abs().max()) == pytest.approx(float(linear.weight.detach().abs().max()), rel=1e-3)
    assert float(weight.std()) == pytest.approx(float(linear.weight.detach().std()), rel=0.02)


@pytest.mark.parametrize(("how", "activation"), [("he_normal", "relu"), ("lecun_normal", "selu")])
def test_signals_keep_their_size_through_deep_networks(how, activation):
    """What the initializations are for: the mean square is the same after eight layers."""
    configuration = configured(hidden_layers=8, width=256, weight_init=how, activation=activation)
    shape = InputShape(64, 0, ())
    network = built(configuration, shape, members=1)
    x, _, codes = inputs(shape, 1, 200)
    h, sizes = x, []
    for block in network.blocks:
        h = block(h)
        sizes.append(float(h.detach().square().mean()))
    assert 0.4 < sizes[-1] / sizes[0] < 2.5
    assert codes.shape[-1] == 0


def test_biases_start_at_zero_and_networks_of_one_seed_are_equal():
    one, other, third = built(configured()), built(configured()), built(configured(), seed=1)
    assert all((block.linear.bias == 0).all() for block in one.blocks)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one.head.weight, third.head.weight)
    assert not torch.equal(one.head.weight[0], one.head.weight[1])


def test_building_a_network_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    for embedding in ("none", "piecewise_linear", "periodic"):
        built(configured(numeric_embedding=embedding, linear_skip=True, norm="batch"))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
def test_a_zero_head_with_a_prior_starts_at_the_loss_of_the_class_shares(skip, embedding):
    shares = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    configuration = configured(output_init="zero", linear_skip=skip, numeric_embedding=embedding)
    out = built(configuration, prior=shares.log())(*inputs(rows=10))
    assert torch.allclose(out.softmax(dim=2), shares[:, None].expand(2, 10, 3), atol=1e-6)
    target = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    loss = torch.nn.functional.cross_entropy(out[0], target)
    assert float(loss.detach()) == pytest.approx(float(-(shares[0] * shares[0].log()).sum()), rel=1e-5)


def test_a_zero_head_without_a_prior_starts_at_zero_and_the_prior_is_for_zero_heads_only():
    assert (built(configured(output_init="zero"))(*inputs()) == 0).all()
    prior = torch.full((2, 3), 9.0)
    assert (built(configured(output_init="same"), prior=prior).head.bias == 0).all()


# Members


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
def test_members_have_no_part_in_each_other(norm, embedding):
    configuration = configured(
        norm=norm, numeric_embedding=embedding, block="residual", linear_skip=True, dropout=0.3, hidden_layers=3,
        column_scale_rate=10.0,
    )  # fmt: skip
    network = built(configuration, members=3)
    given_inputs = inputs(members=3)
    before = network(*given_inputs, seeded())
    before[0].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad[1:] == 0).all(), name
    assert network.head.weight.grad[0].abs().sum() > 0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[1] += 1.0
    changed = [torch.cat([t[:1], t[1:2] * 0, t[2:]]) for t in given_inputs]
    after = network(*changed, seeded())
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.allclose(before[1], after[1])


def test_a_stack_computes_what_its_members_compute_alone():
    configuration = configured(
        hidden_layers=3, norm="batch", block="residual", numeric_embedding="piecewise_linear"
    )
    stack = built(configuration, members=3)
    given_inputs = inputs(members=3)
    together = stack(*given_inputs)
    for m in range(3):
        single = built(configuration, members=1)
        buffers = {"numbers.left", "numbers.width"}
        assert buffers <= set(stack.state_dict())
        single.load_state_dict({name: tensor[m : m + 1] for name, tensor in built_state(stack).items()})
        alone = single(*[t[m : m + 1] for t in given_inputs])
        assert torch.allclose(alone[0], together[m], atol=1e-5)


def built_state(network):
    """The state with untouched running statistics, as before the first batch."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name, tensor in state.items():
        if "running" in name:
            tensor.fill_(1.0 if "variance" in name else 0.0)
    return state


def test_in_evaluation_rows_do_not_meet_either():
    for norm in ("none", "batch", "layer"):
        network = built(configured(norm=norm, dropout=0.5)).eval()
        given_inputs = inputs(rows=6)
        whole = network(*given_inputs)
        part = network(*[t[:, 2:4] for t in given_inputs])
        assert torch.allclose(whole[:, 2:4], part, atol=1e-6), norm


# The modules


def test_stacked_linear_is_torch_linear():
    stacked = StackedLinear(2, 4, 3, "he_normal", seeded())
    with torch.no_grad():
        stacked.bias.normal_(generator=seeded(1))
    x = torch.randn(2, 7, 4, generator=seeded(2))
    for m in range(2):
        linear = torch.nn.Linear(4, 3)
        linear.load_state_dict({"weight": stacked.weight[m].T, "bias": stacked.bias[m, 0]})
        assert torch.allclose(stacked(x)[m], linear(x[m]), atol=1e-6)


def test_batch_norm_is_that_of_torch_in_training_and_in_evaluation():
    stacked = StackedNorm(2, 3, "batch")
    theirs = [torch.nn.BatchNorm1d(3) for _ in range(2)]
    with torch.no_grad():
        for m in range(2):
            theirs[m].weight.copy_(torch.tensor([0.5, 1.0, 2.0]) + m)
            theirs[m].bias.copy_(torch.tensor([-1.0, 0.0, 1.0]) * m)
            stacked.scale[m, 0], stacked.shift[m, 0] = theirs[m].weight, theirs[m].bias
    generator = seeded()
    for rows in (8, 2, 30):
        x = 3 * torch.randn(2, rows, 3, generator=generator) + 5
        ours = stacked(x)
        for m in range(2):
            assert torch.allclose(ours[m], theirs[m](x[m]), atol=1e-4)
            assert torch.allclose(stacked.running_mean[m, 0], theirs[m].running_mean, atol=1e-5)
            assert torch.allclose(stacked.running_variance[m, 0], theirs[m].running_var, atol=1e-4)
    x = torch.randn(2, 4, 3, generator=generator)
    ours = stacked.eval()(x)
    for m in range(2):
        assert torch.allclose(ours[m], theirs[m].eval()(x[m]), atol=1e-5)


def test_batch_norm_of_a_single_row_uses_the_running_statistics():
    """Torch raises there; a batch of one row has no variance."""
    stacked = StackedNorm(2, 3, "batch")
    x = torch.randn(2, 1, 3, generator=seeded())
    assert torch.equal(stacked(x), stacked.eval()(x))
    assert (stacked.running_mean == 0).all()


def test_layer_norm_is_that_of_torch():
    stacked = StackedNorm(2, 5, "layer")
    theirs = torch.nn.LayerNorm(5)
    x = 3 * torch.randn(2, 4, 5, generator=seeded()) + 5
    for training in (True, False):
        assert torch.allclose(stacked.train(training)(x), theirs(x), atol=1e-5)
    assert not list(stacked.buffers())


def test_a_code_has_its_own_vector_and_an_unseen_one_the_zero_vector():
    counts, size = (3, 5), 4
    embedding = StackedEmbedding(2, counts, size, seeded())
    codes = torch.tensor([[[0, 0], [1, 4], [2, 0]], [[2, 1], [0, 3], [1, 2]]])
    out = embedding(codes)
    assert out.shape == (2, 3, 8)
    for m in range(2):
        for row in range(3):
            for column, offset in enumerate((0, 3)):
                code = int(codes[m, row, column])
                expected = embedding.weight[m, offset + code] if code else torch.zeros(size)
                assert torch.equal(out[m, row, column * size : (column + 1) * size], expected)
    out.sum().backward()
    assert (embedding.weight.grad[:, [0, 3]] == 0).all()  # and it learns nothing


def test_embeddings_start_with_vectors_of_length_one():
    embedding = StackedEmbedding(1, (2000,), 8, seeded())
    assert float(embedding.weight.detach().square().sum(dim=2).mean()) == pytest.approx(1.0, rel=0.05)


def test_piecewise_linear_embeds_by_the_share_of_each_bin():
    """Against the definition: linear part, plus for each bin the filled share of
    it times its learned vector."""
    bins = torch.tensor([[[0.0, -1.0], [1.0, 0.0], [3.0, 5.0]]])
    module = PiecewiseLinear(bins, 2, seeded())
    with torch.no_grad():
        module.weight.normal_(generator=seeded(1))
    x = torch.tensor([[[-2.0, -1.0], [0.5, 2.5], [2.0, 5.0], [9.0, 0.0]]])
    shares = {0: [[0, 0], [0.5, 0], [1, 0.5], [1, 1]], 1: [[0, 0], [1, 0.5], [1, 1], [1, 0]]}
    out = module(x)
    for column in range(2):
        for row in range(4):
            learned = torch.tensor(shares[column][row], dtype=torch.float32) @ module.weight[0, column]
            linear = x[0, row, column] * module.linear[0, 0, column] + module.bias[0, 0, column]
            assert torch.allclose(out[0, row, 2 * column : 2 * column + 2], linear + learned, atol=1e-6)


def test_piecewise_linear_starts_linear_and_bins_of_no_width_are_steps():
    bins = torch.tensor([[[0.0], [0.0], [1.0]]])
    module = PiecewiseLinear(bins, 3, seeded())
    x = torch.tensor([[[-1.0], [0.0], [1.0], [2.0]]])
    steps = module(x).diff(dim=1)
    assert torch.allclose(steps, steps[:, :1].expand_as(steps), atol=1e-6)
    with torch.no_grad():
        module.weight[0, 0, 0] = 5.0
    jump = module(torch.tensor([[[-1e-3], [1e-3]]])).diff(dim=1)
    assert torch.allclose(jump, torch.full_like(jump, 5.0), atol=0.05)


def test_periodic_keeps_the_number_and_adds_trained_waves():
    module = Periodic(1, 2, 5, 0.3, seeded())
    x = torch.randn(1, 6, 2, generator=seeded(1))
    out = module(x)
    assert out.shape == (1, 6, 10)
    assert torch.equal(out[0, :, [0, 5]], x[0])
    for column in range(2):
        wave = torch.cos(
            2 * math.pi * x[0, :, column, None] * module.frequency[0, 0, column] + module.phase[0, 0, column]
        )
        expected = wave @ module.weight[0, column] + module.bias[0, 0, column]
        assert torch.allclose(out[0, :, 5 * column + 1 : 5 * column + 5], expected, atol=1e-5)
    wide = Periodic(1, 200, 4, 0.3, seeded())
    assert float(wide.frequency.detach().std()) == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
def test_factors_of_columns_start_at_one_and_at_zero_leave_their_column_out(embedding, shape):
    configuration = configured(
        numeric_embedding=embedding, column_scale_rate=10.0, linear_skip=True, output_init="same"
    )
    network, plain = built(configuration, shape), built(configuration | {"column_scale_rate": 0.0}, shape)
    numeric, indicators, codes = given_inputs = inputs(shape)
    assert plain.scale is None and torch.equal(network(*given_inputs), plain(*given_inputs))
    others = numeric + 1.0, 1.0 - indicators, (codes + 1) % torch.tensor(shape.code_counts)
    columns = [(part, column) for part in range(3) for column in range(given_inputs[part].shape[2])]
    for place, (part, column) in enumerate(columns):
        changed = [t.clone() for t in given_inputs]
        changed[part][:, :, column] = others[part][:, :, column]
        with torch.no_grad():
            network.scale.factor.fill_(1.0)
            network.scale.factor[0, 0, place] = 0.0
        before, after = network(*given_inputs), network(*changed)
        assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1]), (
            "of one member alone"
        )


def test_dropout_leaves_out_its_share_keeps_the_mean_and_stops_in_evaluation():
    configuration = configured(hidden_layers=1, width=512, dropout=0.3, activation="sigmoid")
    block = built(configuration, members=2).blocks[0]
    x = torch.randn(2, 40, block.linear.weight.shape[1], generator=seeded())
    full = block.eval()(x)
    dropped = block.train()(x, seeded())
    zero = dropped == 0
    assert float(zero.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.allclose(dropped[~zero], (full / 0.7)[~zero], rtol=1e-5)
    assert not torch.equal(zero[0], zero[1])
    assert torch.equal(block(x, seeded()), dropped)
    assert not torch.equal(block(x, seeded(1)), dropped)
    state = torch.get_rng_state()
    block(x, seeded())
    assert torch.equal(state, torch.get_rng_state())


def test_residual_blocks_add_their_input():
    configuration = configured(hidden_layers=2, block="residual", norm="batch")
    network = built(configuration)
    with torch.no_grad():
        network.blocks[1].linear.weight.zero_()
    h = torch.randn(2, 5, 16, generator=seeded())
    assert torch.equal(network.blocks[1](h), h)  # relu(0) = 0
    assert not network.blocks[0].residual  # its input has another width


def test_the_penalties_act_on_matrices_alone():
    network = built(configured(norm="batch", linear_skip=True, numeric_embedding="periodic", hidden_layers=2))
    decayed = {id(p) for p in network.decayed()}
    names = {name for name, p in network.named_parameters() if id(p) in decayed}
    assert names == {"blocks.0.linear.weight", "blocks.1.linear.weight", "head.weight", "skip.weight"}


# Gradients against the definition of the derivative (note N7)


def modules_with_inputs():
    x = torch.randn(2, 4, 3, generator=seeded(5), dtype=torch.float64, requires_grad=True)
    bins = edges(2, InputShape(3, 0, ()), 4)
    periodic = Periodic(2, 3, 4, 0.5, seeded())
    piecewise = PiecewiseLinear(bins, 4, seeded())
    with torch.no_grad():
        piecewise.weight.normal_(generator=seeded(3))
    yield "linear", StackedLinear(2, 3, 2, "he_normal", seeded()), x
    yield "batch", StackedNorm(2, 3, "batch", momentum=0.0), x
    yield "batch, evaluation", StackedNorm(2, 3, "batch").eval(), x
    yield "layer", StackedNorm(2, 3, "layer"), x
    yield "piecewise linear", piecewise, x
    yield "periodic", periodic, x


@pytest.mark.parametrize(
    ("module", "x"), [pytest.param(m, x, id=name) for name, m, x in modules_with_inputs()]
)
def test_gradients_of_the_modules_are_the_derivatives(module, x):
    module = module.double()
    names = [name for name, _ in module.named_parameters()]

    def function(x, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *module.parameters()))


def test_gradients_of_embeddings_are_the_derivatives():
    module = StackedEmbedding(2, (3, 4), 2, seeded()).double()
    codes = torch.tensor([[[0, 1], [2, 3]], [[1, 0], [2, 2]]])
    assert torch.autograd.gradcheck(
        lambda w: torch.func.functional_call(module, {"weight": w}, (codes,)), (module.weight,)
    )


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("activation", ["tanh", "gelu", "mish"])
def test_gradients_of_a_whole_network_are_the_derivatives(norm, activation):
    """Smooth activations: at a kink the numeric derivative is no reference."""
    configuration = configured(
        hidden_layers=2, norm=norm, activation=activation, block="residual", linear_skip=True,
        numeric_embedding="periodic", numeric_embedding_dim=4,
    ) | {"width": 4}  # fmt: skip
    network = built(configuration, members=1, outputs=2).double()
    for module in network.modules():
        if isinstance(module, StackedNorm):
            module.momentum = 0.0  # else every evaluation would be of another function
    numeric, indicators, codes = inputs(members=1, rows=3)
    numeric = numeric.double().requires_grad_()
    function = lambda x: network(x, indicators.double(), codes)  # noqa: E731
    assert torch.autograd.gradcheck(function, (numeric,))
    weight = network.blocks[1].linear.weight
    loss = network(numeric, indicators.double(), codes).square().sum()
    (gradient,) = torch.autograd.grad(loss, [weight])
    step = 1e-6
    for i, j in np.ndindex(4, 4):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[0, i, j] += sign * step
                values.append(network(numeric, indicators.double(), codes).square().sum().item())
                weight[0, i, j] -= sign * step
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(
            float(gradient[0, i, j]), rel=1e-4, abs=1e-6
        )
