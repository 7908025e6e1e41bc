"""Weights of timm's networks: from a file or the hub, checked against the network, never as a program."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from advisor.errors import UserError, shown
from advisor.networks.pretrained.start import Start
from advisor.networks.pretrained.timm_models import BackboneInfo, backbone_info, backbone_module

HOLDERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Under which of these a training script's checkpoint has its weights."""
WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What data parallelism, compilation and trainers put before the names of weights."""
COUNTERS = "num_batches_tracked"
"""Weights of this name are counters that older files lack."""
REFUSED = "Weights only load failed"
"""How torch begins to say that a file asks for more than tensors."""
HUB_FILES = ("model.safetensors",)
"""Of a repository on the hub. A pickle there is not read: every timm/ repository has this file."""


def pretrained(name: str, file: str | Path | None) -> Start:
    """The trained weights of a network of timm: of a file, or from timm's usual cache and hub.

    UserError where there are none, and for a file that is damaged, that holds more than weights, or that
    holds those of another network.
    """
    info = backbone_info(name)
    state, source = (_of_hub(info), "the hub") if file is None else (read_weights(file), str(file))
    return Start(f"timm:{name} from {source}", backbone=_fitted(state, info, source))


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name: .safetensors, or what ``torch.save`` wrote of tensors alone.

    UserError for anything else; nothing in the file is run.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--weights {shown(path, 200)}: there is no such file")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError):
            raise UserError(f"--weights {shown(path, 200)} is damaged or not a .safetensors file") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle's protocol: it is read, or refused
            read = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  a damaged file raises whatever its bytes ask for
        if REFUSED in str(error):
            raise UserError(
                f"--weights {shown(path, 200)} holds more than tensors and is not loaded, because it could "
                "run code: write the weights alone, torch.save(model.state_dict(), FILE)"
            ) from None
        raise UserError(
            f"--weights {shown(path, 200)} is damaged or not a file of weights: expected .safetensors, or "
            "what torch.save wrote"
        ) from None
    return _unwrapped(read, path)


def _unwrapped(read: Any, path: Path) -> dict[str, Tensor]:
    """The weights themselves, without what a training script keeps beside them."""
    for holder in HOLDERS:
        if isinstance(read, Mapping) and isinstance(read.get(holder), Mapping):
            read = read[holder]
            break
    if not isinstance(read, Mapping) or not all(isinstance(one, Tensor) for one in read.values()):
        raise UserError(f"--weights {shown(path, 200)} holds no weights by name: write model.state_dict()")
    named = {str(name): tensor for name, tensor in read.items()}
    for wrapper in WRAPPERS:
        if named and all(name.startswith(wrapper) for name in named):
            named = {name.removeprefix(wrapper): tensor for name, tensor in named.items()}
    return named


def _of_hub(info: BackboneInfo) -> dict[str, Tensor]:
    """From timm's cache, or its hub where there is a network."""
    both = (
        "give --weights FILE, or run this once where there is a network, so that timm's cache has the "
        f"weights of {info.name}"
    )
    if not info.hub and not info.url:
        raise UserError(f"timm offers no trained weights of {info.name}: give --weights FILE")
    try:
        if not info.hub:
            found = torch.hub.load_state_dict_from_url(
                info.url, map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
            return dict(found)
        from huggingface_hub import hf_hub_download

        return safetensors.torch.load_file(hf_hub_download(info.hub, HUB_FILES[0]))
    except Exception as error:  # noqa: BLE001  each library of the hub has errors of its own
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"no trained weights of {info.name} ({shown(cause[0], 120)}): {both}") from None


def _fitted(state: Mapping[str, Tensor], info: BackboneInfo, source: str) -> dict[str, Tensor]:
    """The weights that the network has, in single precision. UserError where they are another network's."""
    wanted = backbone_module(info.name).state_dict()
    own = {name: tensor for name, tensor in state.items() if not _is_classifier(name, info)}
    wrong = _difference({name: tensor.shape for name, tensor in own.items()}, wanted)
    if wrong:
        raise UserError(f"the weights in {shown(source, 200)} are not those of timm:{info.name}: {wrong}")
    return {name: own[name].to(tensor.dtype) for name, tensor in wanted.items() if name in own}


def _is_classifier(name: str, info: BackboneInfo) -> bool:
    return any(name.startswith(f"{one}.") for one in info.classifier)


def _difference(own: Mapping[str, torch.Size], wanted: Mapping[str, Tensor]) -> str:
    """The first thing in which weights differ from a network's, "" for none."""
    for name, tensor in wanted.items():
        if name not in own and not name.endswith(COUNTERS):
            return f"'{name}' is missing"
        if name in own and own[name] != tensor.shape:
            return f"'{name}' has the shape {tuple(own[name])}, not {tuple(tensor.shape)}"
    more = next((name for name in own if name not in wanted), None)
    return "" if more is None else f"they have '{shown(more, 60)}', which the network lacks"
