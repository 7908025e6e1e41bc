"""What training begins with, beside chance: trained weights of a network of timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from advisor.errors import UserError
from advisor.networks.pretrained.names import PREFIX, SCRATCH, backbone_name, needs_weights
from advisor.runs.advice import AdviceOptions
from advisor.spaces.space import Space

if TYPE_CHECKING:
    from advisor.networks.pretrained.start import Start
    from advisor.runs.advice import Advice


def start_facts(options: AdviceOptions, space: Space) -> dict[str, Any]:
    """What rules may know of it. UserError for a network that timm does not have, and for weights that do not
    fit it."""
    network = space.parameters.get("network")
    name = backbone_name(options.fixed) if network is not None and network.prefix else None
    if name is None:
        if options.weights is not None:
            raise UserError(
                f"--weights is for a network of timm: give --fixed network={PREFIX}NAME too, or leave it out"
            )
        return {}
    from advisor.networks.pretrained.timm_models import backbone_info, backbone_size

    info = backbone_info(name)
    side = int(options.fixed.get("backbone_side", info.side))
    size = backbone_size(name, side)
    if options.weights is not None:
        if options.fixed.get("backbone_training") == SCRATCH:
            raise UserError("--weights are not used with backbone_training=scratch: leave one of them out")
        from advisor.networks.pretrained.weights import pretrained

        # that they do not fit is better said before anything is trained
        pretrained(name, options.weights)
    return {
        "has_backbone": True,
        "backbone.parameters": size.parameters,
        "backbone.products": size.products,
        "backbone.side": info.side,
    }


def start_of(advice: Advice) -> Start | None:
    """The weights that the training of a recommendation begins with; None: they are drawn.

    UserError where weights are needed and there are none.
    """
    configuration: Mapping[str, Any] = advice.recommendation.configuration
    name = backbone_name(configuration)
    if name is None or not (needs_weights(configuration) or _searches_them(advice)):
        return None
    from advisor.networks.pretrained.weights import pretrained

    return pretrained(name, advice.reading.weights)


def _searches_them(advice: Advice) -> bool:
    """Whether some trial may begin with trained weights."""
    return "backbone_training" in advice.recommendation.space.searched
