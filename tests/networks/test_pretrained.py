"""Networks of timm: how their weights are read, and what a stack of them computes."""

import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from advisor.errors import UserError
from advisor.networks.pretrained.backbone import BackboneShape, features_of
from advisor.networks.pretrained.names import backbone_name, is_frozen, needs_weights
from advisor.networks.pretrained.start import Start, moved
from advisor.networks.pretrained.timm_models import (
    backbone_info,
    backbone_module,
    backbone_size,
    layer_groups,
    load_timm,
)
from advisor.networks.pretrained.weights import pretrained, read_weights

NAME, SIDE = "test_resnet", 32
CONFIGURATION = {
    "network": f"timm:{NAME}",
    "backbone_side": SIDE,
    "backbone_training": "fine_tuned",
    "layer_decay": 0.5,
    "dropout": 0.0,
}


def weights(seed=1, classes=5):
    """The weights that timm's own scripts would save, those of an output layer among them."""
    torch.manual_seed(seed)
    return load_timm().create_model(NAME, num_classes=classes).state_dict()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.pt"
    torch.save(weights(), path)
    return path


def stack(members=2, channels=3, **other):
    shape = BackboneShape.of(CONFIGURATION, (channels, 8, 8))
    configuration = CONFIGURATION | other
    return shape.network(configuration, 4, members=members, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize("way", ["plain", "checkpoint", "ema", "parallel", "safetensors"])
def test_weights_are_read_however_they_were_saved(tmp_path, way):
    own, path = weights(), tmp_path / ("w.safetensors" if way == "safetensors" else "w.pt")
    if way == "safetensors":
        save_file(own, path)
    else:
        parallel = {f"module.{name}": tensor for name, tensor in own.items()}
        torch.save(
            {
                "plain": own,
                "checkpoint": {"epoch": 3, "state_dict": own},
                "ema": {"state_dict": weights(2), "state_dict_ema": own},
                "parallel": {"model": parallel},
            }[way],
            path,
        )
    start = pretrained(NAME, path)
    assert "fc.weight" not in start.backbone and str(path) in start.source
    assert all(torch.equal(tensor, own[name]) for name, tensor in start.backbone.items())


class Program:
    """An object whose pickle writes a file when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("save", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))])
def test_a_file_that_would_run_a_program_is_refused_and_nothing_runs(tmp_path, save):
    path, mark = tmp_path / "w.pt", tmp_path / "mark"
    save({"conv1.weight": torch.zeros(2), "args": Program(mark)}, path)
    with pytest.raises(UserError, match=r"could run code|damaged") as told:
        read_weights(path)
    assert not mark.exists() and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("w.pt", b"", "damaged or not a file of weights"),
        ("w.pt", b"PK\x03\x04 half of a file", "damaged or not a file of weights"),
        ("w.safetensors", b"no such header", "damaged or not a .safetensors file"),
        ("w.csv", b"a,b\n1,2\n", "--weights"),
        ("absent.pt", None, "there is no such file"),
    ],
)
def test_a_file_that_holds_no_weights_is_one_line(tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says) as told:
        read_weights(path)
    assert "\n" not in str(told.value)


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=200), safe=st.booleans())
def test_any_file_is_read_or_refused(tmp_path_factory, content, safe):
    path = tmp_path_factory.mktemp("any") / ("w.safetensors" if safe else "w.pt")
    path.write_bytes(content)
    try:
        read_weights(path)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("what", [[torch.zeros(1)], {"a": 1}, {"a": [torch.zeros(1)]}, torch.zeros(3)])
def test_a_file_without_named_tensors_is_one_line(tmp_path, what):
    torch.save(what, tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds no weights by name"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda own: own.pop("layer1.0.conv1.weight"), "'layer1.0.conv1.weight' is missing"),
        (lambda own: own.update({"bn1.weight": torch.ones(7)}), r"'bn1.weight' has the shape \(7,\), not"),
        (lambda own: own.update({"layer9.weight": torch.ones(7)}), "they have 'layer9.weight'"),
    ],
)
def test_weights_of_another_network_say_what_differs(tmp_path, change, says):
    own = dict(weights())
    change(own)
    torch.save(own, tmp_path / "w.pt")
    with pytest.raises(UserError, match=f"not those of timm:{NAME}: .*{says}"):
        pretrained(NAME, tmp_path / "w.pt")


def test_weights_come_from_the_usual_cache_without_a_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    own, commit = weights(), "0" * 40
    repository = tmp_path / f"models--{backbone_info(NAME).hub.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    save_file(own, repository / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    start = pretrained(NAME, None)
    assert all(torch.equal(tensor, own[name]) for name, tensor in start.backbone.items())


def test_without_a_file_and_a_network_one_line_says_both_ways(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"no trained weights of test_resnet .* give --weights FILE, or run"
    ) as told:
        pretrained(NAME, None)
    assert "\n" not in str(told.value)


# --------------------------------------------------------------------------------------------------- the names


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("test_resnett", "did you mean 'test_resnet'"),
        ("nothing at all", "timm has no network 'nothing at all'"),
        ("test_resnet.r160_in2k", "did you mean 'test_resnet.r160_in1k'"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(name, says):
    with pytest.raises(UserError, match=says):
        backbone_info(name)


def test_without_timm_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'tuning-advisor\[backbones\]'"):
        load_timm()


def test_a_network_of_one_size_refuses_another():
    with pytest.raises(UserError, match="leave backbone_side at 224"):
        backbone_size("vit_tiny_patch16_224", 64)


def test_the_configuration_says_which_network_and_what_is_trained():
    assert backbone_name(CONFIGURATION) == NAME and backbone_name({"network": "convolutional"}) is None
    assert not is_frozen(CONFIGURATION) and is_frozen(CONFIGURATION | {"backbone_training": "frozen"})
    assert needs_weights(CONFIGURATION) and not needs_weights(
        CONFIGURATION | {"backbone_training": "scratch"}
    )
    assert not is_frozen({"network": "mixer"})


# --------------------------------------------------------------------------------------------------- the stack


def images(rows=3, channels=3, side=8):
    return torch.rand(rows, channels, side, side, generator=torch.Generator().manual_seed(3))


def test_a_member_computes_what_timm_computes(file):
    """Scaled images, in the side and the colours of the weights; the output layer is ours."""
    network, start = stack(), pretrained(NAME, file)
    network.begin_with(start, [None, None])
    module = backbone_module(NAME)
    module.load_state_dict(start.backbone, strict=False)
    x = images(side=SIDE)
    with torch.no_grad():
        network.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        out = network.eval()(torch.stack([x, x.flip(0)]))
        wanted = module.eval()(x)
        torch.testing.assert_close(out[0], wanted @ network.head.weight[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(out[1], wanted.flip(0) @ network.head.weight[1], rtol=1e-4, atol=1e-5)


def test_grey_images_are_seen_as_grey_colours(file):
    """A grey image and the same image in three colours have the same features."""
    start, grey = pretrained(NAME, file), (255 * images(channels=1)).to(torch.uint8)
    one, three = (BackboneShape.of(CONFIGURATION, (channels, 8, 8)) for channels in (1, 3))
    colour = features_of(three, start.backbone, grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(features_of(one, start.backbone, grey), colour, rtol=1e-3, atol=1e-3)


def test_members_are_trained_apart():
    """The second member has no gradient when only the first one's output counts, and statistics of its own."""
    network = stack().train()
    with torch.no_grad():
        network.head.weight.fill_(0.1)
    x = torch.stack([images(4), 2 * images(4)])
    network(x)[0].square().sum().backward()
    backbone = {name: weight for name, weight in network.named_parameters() if name.startswith("backbone_")}
    assert all(weight.grad[1].abs().sum() == 0 for weight in backbone.values())
    assert any(weight.grad[0].abs().sum() > 0 for weight in backbone.values())
    mean = network.get_buffer("backbone_bn1__running_mean")
    assert not torch.equal(mean[0], mean[1])


def test_from_scratch_members_differ_and_trained_weights_are_alike():
    name = "backbone_conv1__0__weight"
    assert not torch.equal(*stack(backbone_training="scratch").get_parameter(name))
    assert torch.equal(*stack().get_parameter(name))


def test_each_group_of_layers_has_a_rate_below_that_of_the_next():
    network = stack()
    rates = [share for share, _ in network.rates(CONFIGURATION)]
    assert rates == [0.5**power for power in range(len(rates), 0, -1)]
    grouped = {id(weight) for _, weights in network.rates(CONFIGURATION) for weight in weights}
    assert grouped | {id(weight) for weight in network.head_parameters()} == {
        id(weight) for weight in network.parameters()
    }
    assert set(layer_groups(backbone_module(NAME)).values()) == set(range(len(rates)))


def test_a_network_of_another_family_has_positions_that_move_along():
    """A transformer: its tables of positions are weights, what it computes itself is no part of the state."""
    configuration = CONFIGURATION | {
        "network": "timm:test_vit",
        "backbone_side": backbone_info("test_vit").side,
    }
    shape = BackboneShape.of(configuration, (3, 8, 8))
    network = shape.network(configuration, 2, members=2, generator=torch.Generator()).double()
    assert network(torch.rand(2, 3, 3, 8, 8, dtype=torch.float64)).shape == (2, 3, 2)
    again = BackboneShape.from_dict(
        {**vars(shape), "mean": list(shape.mean), "deviation": list(shape.deviation)}
    )
    assert again == shape


# --------------------------------------------------------------------------------------------------- the start


def test_members_of_an_earlier_run_are_taken_in_turn():
    start = Start("run", state={"w": torch.arange(6.0).view(3, 2)})
    assert start.of_members("w", 4)[:, 0].tolist() == [0.0, 2.0, 4.0, 0.0]
    assert start.of_members("other", 4) is None


@settings(max_examples=50, deadline=None)
@given(
    old=st.lists(st.integers(0, 9), unique=True),
    new=st.lists(st.integers(0, 9), unique=True, min_size=1),
    axis=st.integers(0, 1),
)
def test_what_both_know_is_taken_and_the_rest_stays(old, new, axis):
    """Inputs are found by their label, whatever their place."""

    def numbers(labels, sign):
        values = torch.tensor([float(sign * (label + 1)) for label in labels]).view(-1, 1).repeat(1, 2)
        return values if axis == 0 else values.T

    found = moved(numbers(new, -1), numbers(old, 1), axis, [(str(n),) for n in new], [(str(n),) for n in old])
    wanted = [(label + 1.0) if label in old else -(label + 1.0) for label in new]
    assert np.array_equal(found.select(1 - axis, 0).numpy(), wanted)
