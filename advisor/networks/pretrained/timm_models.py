"""timm's networks: what there is, what their weights were trained with, how large they are."""

from __future__ import annotations

import functools
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from advisor.errors import UserError, did_you_mean
from advisor.networks.pretrained.without_torchvision import stand_in

COLOURS = 3
"""Channels that trained weights read."""


@dataclass(frozen=True)
class BackboneInfo:
    """A network of timm. side: of the images that its weights were trained with; fixed: whether it reads no
    other. mean, deviation: of each colour, white being 1. classifier: names of its own output layer.
    hub: where its weights are on the Hugging Face hub; url: elsewhere; "" for neither."""

    name: str
    side: int
    fixed: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    classifier: tuple[str, ...]
    hub: str
    url: str


@dataclass(frozen=True)
class BackboneSize:
    """What one image takes. products: multiplications. numbers: outputs of all layers.
    features: what the output layer reads."""

    parameters: int
    products: int
    numbers: int
    features: int


def load_timm() -> Any:
    """The package. UserError where it is not installed."""
    if sys.modules.get("timm") is not None:
        return sys.modules["timm"]
    try:
        import torchvision  # noqa: F401  whether timm can import it
    except (ImportError, RuntimeError):
        standing_in: AbstractContextManager[None] = stand_in()
    else:
        standing_in = nullcontext()
    try:
        with standing_in:
            import timm
    except ImportError:
        raise UserError(
            "networks of timm need the package timm: pip install 'tuning-advisor[backbones]'"
        ) from None
    return timm


@functools.cache
def backbone_info(name: str) -> BackboneInfo:
    """What timm says of a network. UserError for a name that it does not have."""
    timm = load_timm()
    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        raise UserError(f"timm has no network '{name}'{did_you_mean(architecture, known)}")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tagged:
        raise UserError(f"timm has no weights '{name}'{did_you_mean(name, tagged)}")
    known_of = timm.get_pretrained_cfg(name, allow_unregistered=True)
    classifier = known_of.classifier or ()
    return BackboneInfo(
        name=name,
        side=int(known_of.input_size[-1]),
        fixed=bool(known_of.fixed_input_size),
        mean=tuple(map(float, known_of.mean)),
        deviation=tuple(map(float, known_of.std)),
        classifier=(classifier,) if isinstance(classifier, str) else tuple(classifier),
        hub=known_of.hf_hub_id or "",
        url=known_of.url if isinstance(known_of.url, str) else "",
    )


def backbone_module(name: str, seed: int = 0) -> nn.Module:
    """The network without its output layer, (rows, 3, side, side) -> (rows, features), drawn by a seed."""
    timm = load_timm()
    with torch.random.fork_rng(devices=[]):  # timm draws from torch's own generator
        torch.manual_seed(seed)
        module: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    return module


@functools.cache
def backbone_size(name: str, side: int) -> BackboneSize:
    """Counted in one pass. UserError for images of a side that the network cannot read."""
    module, products, numbers = backbone_module(name).eval(), [0], [0]

    def count(layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            numbers[0] += output.numel()
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor) and weight.dim() > 1:
                products[0] += output.numel() * weight[0].numel()

    for layer in module.modules():
        if not list(layer.children()):
            layer.register_forward_hook(count)
    try:
        with torch.no_grad():
            features = module(torch.zeros(1, COLOURS, side, side))
    except (AssertionError, RuntimeError, ValueError):
        info = backbone_info(name)
        raise UserError(
            f"timm:{name} cannot read images of {side} x {side} points: leave backbone_side at {info.side}"
        ) from None
    parameters = sum(weight.numel() for weight in module.parameters())
    return BackboneSize(parameters, products[0], numbers[0], int(features.shape[1]))


def layer_groups(module: nn.Module) -> dict[str, int]:
    """Each weight's group, from the input (0) to the output, as timm parts its layers."""
    from timm.models import group_parameters

    matcher: Any = getattr(module, "group_matcher", None)
    names = [name for name, _ in module.named_parameters()]
    if matcher is None:
        return dict.fromkeys(names, 0)
    groups: dict[str, int] = group_parameters(module, matcher(coarse=True), reverse=True)
    return groups
