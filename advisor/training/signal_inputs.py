"""Images and sequences as a network reads them: scaled by statistics of the training rows, batch by batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advisor.dataset import Signals
from advisor.errors import UserError
from advisor.networks.convolutional import SignalShape
from advisor.networks.decoder import SceneShape
from advisor.splits import Split
from advisor.training.augmentation import Mix, Moved, augmented, augmented_scenes, cropped, mixed
from advisor.training.class_balance import SYNTHETIC, ClassBalance

FIT_CELLS = 50_000_000
"""Means and deviations are taken from so many numbers, of evenly spaced training rows."""
DEVICE_BYTES = 4 * 2**30
"""Rows that take more than this stay in main memory (or in their file) and travel to a GPU batch by batch."""
SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class SignalPreprocessor:
    """Fitted statistics.
    scaling: "channel" (of all training rows) or "instance" (of each row by itself).

    mean, scale: (channels,).
    masked: (1,), whether a channel is added that is 1 where a sequence has points.
    """

    scaling: str
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    masked: NDArray[np.int64]

    @classmethod
    def fit(
        cls, signals: Signals, rows: NDArray[np.int64], configuration: Mapping[str, Any], masked: bool
    ) -> SignalPreprocessor:
        """Mean and deviation of each channel over ``rows``, missing points apart."""
        cells = int(np.prod(signals.values.shape[1:]))
        part = signals.values[rows[:: max(1, len(rows) * cells // FIT_CELLS)]].astype(np.float32)
        axes = (0, *range(2, part.ndim))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a channel without any point: 0 and 1 below
            mean, scale = np.nanmean(part, axis=axes), np.nanstd(part, axis=axes)
        scale = np.where(np.isfinite(scale) & (scale > SMALLEST_SCALE), scale, 1.0)
        return cls(
            configuration["scaling"], np.nan_to_num(mean), scale.astype(np.float32), np.array([int(masked)])
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The statistics as arrays by name; ``from_arrays`` takes them back."""
        return {"mean": self.mean, "scale": self.scale, "masked": self.masked}

    @classmethod
    def from_arrays(cls, scaling: str, arrays: Mapping[str, NDArray[Any]]) -> SignalPreprocessor:
        return cls(scaling, **dict(arrays))


class SignalInputs:
    """The rows of a data set under every split's own statistics; scaled when they are asked for."""

    def __init__(
        self, preprocessors: Sequence[SignalPreprocessor], signals: Signals, device: str = "cpu"
    ) -> None:
        self.preprocessors, self.device = tuple(preprocessors), device
        values = interpolated(signals.values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # read-only arrays: nobody writes to them
            self.values = torch.from_numpy(values)
        if device != "cpu" and values.nbytes <= DEVICE_BYTES:
            self.values = self.values.to(device)
        self.masked = bool(self.preprocessors[0].masked[0])
        self.shape: Any = self.shape_of(values.shape[1] + self.masked, tuple(values.shape[2:]))
        self.mean = torch.from_numpy(np.stack([p.mean for p in preprocessors])).to(device)
        self.scale = torch.from_numpy(np.stack([p.scale for p in preprocessors])).to(device)

    @classmethod
    def prepare(
        cls, configuration: Mapping[str, Any], signals: Signals, splits: Sequence[Split], device: str
    ) -> SignalInputs:
        """Fit each split's statistics on its training rows.

        UserError for a treatment of rare classes that makes up rows of a table.
        """
        if configuration["class_balance"] in SYNTHETIC:
            raise UserError(
                f"class_balance {configuration['class_balance']} creates synthetic rows of a table; for "
                "images and sequences use oversample, whose rows are then augmented"
            )
        masked = has_gaps(signals)
        fitted = [SignalPreprocessor.fit(signals, split.train, configuration, masked) for split in splits]
        return cls(fitted, signals, device)

    @classmethod
    def of_new_rows(
        cls, preprocessors: tuple[SignalPreprocessor, ...], shape: Any, signals: Signals, device: str
    ) -> SignalInputs:
        """Rows under statistics that were fitted on others."""
        return cls(preprocessors, signals, device)

    @staticmethod
    def shape_of(channels: int, size: tuple[int, ...]) -> Any:
        """What a network must know of its inputs."""
        return SignalShape(channels, size)

    @property
    def place(self) -> torch.device:
        """Where rows are looked up."""
        return self.values.device

    @property
    def rows(self) -> int:
        return len(self.values)

    def inputs(self, batch: Tensor, member_split: Tensor) -> list[Tensor]:
        """Row numbers (members, rows) and each member's split -> scaled inputs
        (members, rows, channels, *size)."""
        raw = self.values.index_select(0, batch.flatten().to(self.values.device)).to(
            self.device, non_blocking=True
        )
        x = raw.float().view(*batch.shape, *raw.shape[1:])
        shape = (len(batch), 1, -1, *[1] * (x.dim() - 3))
        if self.preprocessors[0].scaling == "instance":
            x = _by_itself(x)
        else:
            which = member_split.to(self.device)
            x = (x - self.mean[which].view(shape)) / self.scale[which].view(shape)
        if x.dim() == 5:
            return [x]
        there = torch.isfinite(x)
        x = torch.where(there, x, 0.0)
        return [torch.cat([x, there.to(x).mean(dim=2, keepdim=True)], dim=2) if self.masked else x]

    def training_inputs(
        self,
        batch: Tensor,
        member_split: Tensor,
        configuration: Mapping[str, Any],
        generator: torch.Generator,
        balance: ClassBalance | None = None,
        target: Tensor | None = None,
    ) -> tuple[list[Tensor], Mix | Moved | None]:
        """The inputs of a batch, changed as the configuration asks, and how rows were mixed; of rare classes
        nothing is made up."""
        x = augmented(self.inputs(batch, member_split)[0], configuration, generator)
        alpha = float(configuration["mixup"])
        if not alpha or batch.shape[1] < 2:
            return [x], None
        x, mix = mixed(x, alpha, generator)
        return [x], mix

    def find_neighbours(
        self, balance: ClassBalance, train: Sequence[Tensor], target: Tensor, member_split: Tensor
    ) -> None:
        """Nothing interpolates between rows."""

    def bins(self, configuration: Mapping[str, Any], members_per_split: int) -> None:
        """There are none."""


class SceneInputs(SignalInputs):
    """Images with a mask each: what is cut, turned or mirrored of an image is so of its mask."""

    @staticmethod
    def shape_of(channels: int, size: tuple[int, ...]) -> SceneShape:
        """What a network must know of its inputs."""
        height, width = size
        return SceneShape(channels, (height, width))

    def training_inputs(
        self,
        batch: Tensor,
        member_split: Tensor,
        configuration: Mapping[str, Any],
        generator: torch.Generator,
        balance: ClassBalance | None = None,
        target: Tensor | None = None,
    ) -> tuple[list[Tensor], Mix | Moved | None]:
        """The images of a batch, or crops of them, changed as the configuration asks, and their masks."""
        assert target is not None, "a step on masks knows the masks of its rows"
        x = self.inputs(batch, member_split)[0]
        if side := int(configuration["crop"]):
            share = float(configuration["crop_foreground"])
            x, target = cropped(x, target, side, share, generator)
        x, target = augmented_scenes(x, target, configuration, generator)
        return [x], Moved(target)


def _by_itself(x: Tensor) -> Tensor:
    """Each row's channels with mean 0 and deviation 1 of their own; constant ones become 0."""
    axes = list(range(3, x.dim()))
    there = torch.isfinite(x)
    count = there.sum(dim=axes, keepdim=True).clamp(min=1)
    mean = torch.where(there, x, 0.0).sum(dim=axes, keepdim=True) / count
    away = x - mean
    variance = torch.where(there, away.square(), 0.0).sum(dim=axes, keepdim=True) / count
    return away / torch.where(variance > SMALLEST_SCALE**2, variance.sqrt(), 1.0)


def interpolated(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Missing points between two that are there, filled on the straight line;
    those at the ends stay missing. Whole numbers, those of images, miss nothing."""
    if values.dtype.kind == "u":
        return values
    missing = np.isnan(values)
    if not missing.any():
        return values
    there = ~missing
    before = np.maximum.accumulate(there, axis=2)
    after = np.maximum.accumulate(there[:, :, ::-1], axis=2)[:, :, ::-1]
    gaps = missing & before & after
    if not gaps.any():
        return values
    filled = np.array(values)
    points = np.arange(values.shape[2])
    for row, channel in np.argwhere(gaps.any(axis=2)):
        own, holes = there[row, channel], gaps[row, channel]
        filled[row, channel, holes] = np.interp(points[holes], points[own], values[row, channel, own])
    return filled


def has_gaps(signals: Signals) -> bool:
    """Whether points are missing that no straight line fills: where a sequence has not begun or has ended."""
    values = interpolated(signals.values)
    return values.dtype.kind == "f" and bool(np.isnan(values).any())
