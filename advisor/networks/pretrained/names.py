"""How a configuration names a backbone, and how it is used. Loads neither torch nor timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "timm:"
"""``network: timm:NAME`` is the network NAME of timm."""
FROZEN, SCRATCH = "frozen", "scratch"
"""Values of backbone_training: only the output layer is trained; no trained weights are used."""


def backbone_name(configuration: Mapping[str, Any]) -> str | None:
    """timm's name of a configuration's network; None where its network is one of ours."""
    network = str(configuration.get("network", ""))
    return network.removeprefix(PREFIX) if network.startswith(PREFIX) else None


def is_frozen(configuration: Mapping[str, Any]) -> bool:
    """Whether a configuration trains the output layer of a backbone alone."""
    return backbone_name(configuration) is not None and configuration["backbone_training"] == FROZEN


def needs_weights(configuration: Mapping[str, Any]) -> bool:
    """Whether a configuration begins with trained weights of a backbone."""
    return backbone_name(configuration) is not None and configuration["backbone_training"] != SCRATCH
