"""A parameter of words may also have words that begin with a prefix: they are set by a user and never suggested."""

import pytest

from advisor.errors import UserError
from advisor.rules.shipped import base_space
from advisor.spaces.parameter import Parameter
from advisor.spaces.space import union

NETWORK = base_space("image")["network"]


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:resnet18.a1_in1k"])
def test_a_word_with_the_prefix_is_allowed_and_fixed(name):
    fixed = NETWORK.fixed(name)
    assert fixed.default == name and not fixed.searched and fixed.choices == NETWORK.choices
    space = base_space("image")
    assert space.complete({"network": name})["network"] == name


@pytest.mark.parametrize("name", ["timm:", "timm", "tim:resnet18", 3, None])
def test_anything_else_is_refused_with_what_is_allowed(name):
    with pytest.raises(UserError, match=r"one of convolutional, efficientnet, mixer or timm:NAME"):
        NETWORK.check(name)


def test_parameters_of_tables_and_series_have_no_such_words():
    with pytest.raises(UserError, match="is not one of"):
        base_space("sequence")["network"].check("timm:resnet18")


def test_a_prefix_is_for_words():
    with pytest.raises(UserError, match="prefix"):
        Parameter("x", "categorical", 1, choices=(1, 2), prefix="a:")
    with pytest.raises(UserError, match="prefix"):
        Parameter("x", "int", 1, low=1, high=2, prefix="a:")
    both = union([base_space("sequence"), base_space("image")])
    assert both["network"].check("timm:resnet18") and NETWORK.to_dict()["prefix"] == "timm:"
