"""Images and sequences as a network reads them: scaled by statistics of the training rows, batch by batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advisor.dataset import Signals
from advisor.errors import UserError
from advisor.networks.convolutional import PlannedShape, SignalShape
from advisor.networks.decoder import SceneShape
from advisor.networks.kernel_network import KernelShape
from advisor.networks.kernels import KERNELS, MiniRocket, kernel_features, whole
from advisor.networks.pretrained.backbone import WHITE, BackboneShape, features_of
from advisor.networks.pretrained.start import Start
from advisor.splits import Split
from advisor.training.augmentation import Mix, Moved, augmented, augmented_scenes, cropped, mixed
from advisor.training.class_balance import SYNTHETIC, ClassBalance

FIT_CELLS = 50_000_000
"""Means and deviations are taken from this many numbers, of evenly spaced training rows."""
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

    @property
    def points(self) -> SignalPreprocessor:
        """The statistics of the points: these. (Those of fixed convolutions have more beside them.)"""
        return self

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


class _Whole:
    """Rows that are taken as they are: nothing is made up between two of them, no number goes into a bin, and
    no input has a name."""

    def labels(self, features: Signals, split: int) -> None:
        """Points have no names."""

    def find_neighbours(
        self, balance: ClassBalance, train: Sequence[Tensor], target: Tensor, member_split: Tensor
    ) -> None:
        """Nothing interpolates between rows."""

    def bins(self, configuration: Mapping[str, Any], members_per_split: int) -> None:
        """There are none."""


class SignalInputs(_Whole):
    """The rows of a data set under every split's own statistics; scaled when they are asked for."""

    shape_of: ClassVar[type[PlannedShape]] = SignalShape
    """What a network must know of its inputs: channels and size."""

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
        cls,
        configuration: Mapping[str, Any],
        signals: Signals,
        splits: Sequence[Split],
        device: str,
        start: Start | None = None,
    ) -> SignalInputs:
        """Fit each split's statistics on its training rows.

        UserError for a treatment of rare classes that makes up rows of a table.
        """
        masked = _checked(configuration, signals)
        fitted = [SignalPreprocessor.fit(signals, split.train, configuration, masked) for split in splits]
        return cls(fitted, signals, device)

    @classmethod
    def of_new_rows(
        cls, preprocessors: tuple[SignalPreprocessor, ...], shape: Any, signals: Signals, device: str
    ) -> SignalInputs:
        """Rows under statistics that were fitted on others."""
        return cls(preprocessors, signals, device)

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


class SceneInputs(SignalInputs):
    """Images with a mask each: what is cut, turned or mirrored of an image is so of its mask."""

    shape_of = SceneShape

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


@dataclass(frozen=True)
class KernelPreprocessor:
    """Fitted convolutions, and the statistics of the points before them and of the features after.

    mean, scale: (features,), of the training rows. scale also holds the square root of their number, so that
    the input of a row has a length near 1 and rates mean what they mean for other networks.
    """

    points: SignalPreprocessor
    kernels: MiniRocket
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def scaling(self) -> str:
        """The configuration's word for what is done to the points."""
        return self.points.scaling

    @classmethod
    def fit(
        cls,
        signals: Signals,
        rows: NDArray[np.int64],
        configuration: Mapping[str, Any],
        masked: bool,
        seed: int,
    ) -> tuple[KernelPreprocessor, NDArray[np.float32]]:
        """What is fitted on ``rows``, and the features of all rows under it."""
        points = SignalPreprocessor.fit(signals, rows, configuration, masked)
        values, wanted = _points(points, signals), kernel_features(configuration)
        assert wanted is not None
        kernels = MiniRocket.fit(values[rows], max(len(KERNELS), wanted), seed)
        features = kernels.transform(values)
        mean, scale = features[rows].mean(axis=0), features[rows].std(axis=0)
        scale = np.where(scale > SMALLEST_SCALE, scale, 1.0) * np.sqrt(features.shape[1])
        fitted = cls(points, kernels, mean, scale.astype(np.float32))
        return fitted, fitted.standardized(features)

    def standardized(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (rows, features) as the network reads them."""
        return np.asarray((features - self.mean) / self.scale, np.float32)

    def transform(self, signals: Signals) -> NDArray[np.float32]:
        """The rows (rows, features) as the network reads them."""
        return self.standardized(self.kernels.transform(_points(self.points, signals)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The statistics as arrays by name; ``from_arrays`` takes them back."""
        parts = {"points": self.points.arrays(), "kernels": self.kernels.arrays()}
        named = {f"{part}.{name}": array for part, own in parts.items() for name, array in own.items()}
        return {"mean": self.mean, "scale": self.scale, **named}

    @classmethod
    def from_arrays(cls, scaling: str, arrays: Mapping[str, NDArray[Any]]) -> KernelPreprocessor:
        def of(part: str) -> dict[str, NDArray[Any]]:
            return {n.partition(".")[2]: a for n, a in arrays.items() if n.startswith(f"{part}.")}

        points = SignalPreprocessor.from_arrays(scaling, of("points"))
        return cls(points, MiniRocket.from_arrays(of("kernels")), arrays["mean"], arrays["scale"])


class KernelInputs(_Whole):
    """The features of fixed convolutions of a data set's rows, under every split's own; row r of split s lies
    at s * rows + r. They are made once: what changes series at random does not apply to them."""

    def __init__(
        self,
        preprocessors: Sequence[Any],
        features: Sequence[NDArray[np.float32]],
        device: str,
    ) -> None:
        self.preprocessors = tuple(preprocessors)
        self.rows, count = features[0].shape
        self.shape = KernelShape(count)
        self.features = torch.from_numpy(np.concatenate(features)).to(device)

    @classmethod
    def prepare(
        cls,
        configuration: Mapping[str, Any],
        signals: Signals,
        splits: Sequence[Split],
        device: str,
        start: Start | None = None,
    ) -> KernelInputs:
        """Fit each split's convolutions and statistics on its training rows.

        UserError for a treatment of rare classes that makes up rows of a table.
        """
        masked = _checked(configuration, signals)
        fitted = [
            KernelPreprocessor.fit(signals, split.train, configuration, masked, seed)
            for seed, split in enumerate(splits)
        ]
        return cls([one for one, _ in fitted], [features for _, features in fitted], device)

    @classmethod
    def of_new_rows(
        cls, preprocessors: tuple[Any, ...], shape: KernelShape, signals: Signals, device: str
    ) -> KernelInputs:
        """Rows under convolutions that were fitted on others."""
        return cls(preprocessors, [one.transform(signals) for one in preprocessors], device)

    @property
    def place(self) -> torch.device:
        """Where rows are looked up."""
        return self.features.device

    def inputs(self, batch: Tensor, member_split: Tensor) -> list[Tensor]:
        """Row numbers (members, rows) and each member's split -> features (members, rows, features)."""
        index = (batch.to(self.place) + member_split.to(self.place).unsqueeze(1) * self.rows).flatten()
        return [self.features.index_select(0, index).view(*batch.shape, -1)]

    def training_inputs(
        self,
        batch: Tensor,
        member_split: Tensor,
        configuration: Mapping[str, Any],
        generator: torch.Generator,
        balance: ClassBalance | None = None,
        target: Tensor | None = None,
    ) -> tuple[list[Tensor], Mix | None]:
        """The same in a step of training."""
        return self.inputs(batch, member_split), None


class BackboneInputs(SignalInputs):
    """Images as a network of timm reads them: scaled as in the training of its weights, whatever the rows."""

    @classmethod
    def prepare(
        cls,
        configuration: Mapping[str, Any],
        signals: Signals,
        splits: Sequence[Split],
        device: str,
        start: Start | None = None,
    ) -> BackboneInputs:
        """There is nothing to fit. UserError for a treatment of rare classes that makes rows of a table."""
        _checked(configuration, signals)
        shape = BackboneShape.of(configuration, signals.shape)
        return cls.of_new_rows((_of_weights(shape),) * len(splits), shape, signals, device)

    @classmethod
    def of_new_rows(
        cls, preprocessors: tuple[SignalPreprocessor, ...], shape: Any, signals: Signals, device: str
    ) -> BackboneInputs:
        """Rows under the same scaling."""
        inputs = cls(preprocessors, signals, device)
        inputs.shape = shape
        return inputs


def _of_weights(shape: BackboneShape) -> SignalPreprocessor:
    """The scaling that a backbone's weights were trained with."""
    mean, deviation = (WHITE * np.array(one, np.float32) for one in (shape.own_mean, shape.own_deviation))
    return SignalPreprocessor("channel", mean, deviation, np.array([0]))


@dataclass(frozen=True)
class BackbonePreprocessor:
    """A backbone that is not trained, and the statistics of its features in the training rows.

    weights: by timm's names, the same arrays for every split. mean, scale: (features,), as those of
    ``KernelPreprocessor``.
    """

    shape: BackboneShape
    weights: Mapping[str, NDArray[Any]]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def scaling(self) -> str:
        """The configuration's word for what is done to the points."""
        return "channel"

    @property
    def points(self) -> SignalPreprocessor:
        """The scaling of the points."""
        return _of_weights(self.shape)

    def features(self, signals: Signals, device: str) -> NDArray[np.float32]:
        """What the backbone makes of rows, (rows, features)."""
        weights = {name: torch.from_numpy(array) for name, array in self.weights.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # read-only arrays: nobody writes to them
            images = torch.from_numpy(signals.values)
        return np.asarray(features_of(self.shape, weights, images, device).numpy(), np.float32)

    def fitted(self, features: NDArray[np.float32], rows: NDArray[np.int64]) -> BackbonePreprocessor:
        """With the statistics of these rows' features."""
        mean, scale = features[rows].mean(axis=0), features[rows].std(axis=0)
        scale = np.where(scale > SMALLEST_SCALE, scale, 1.0) * np.sqrt(features.shape[1])
        return replace(self, mean=mean, scale=scale.astype(np.float32))

    def standardized(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (rows, features) as the network reads them."""
        return np.asarray((features - self.mean) / self.scale, np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All there is to save, as arrays by name; ``from_arrays`` takes them back."""
        shape = {
            "name": np.frombuffer(self.shape.name.encode(), np.uint8),
            "image": np.array([self.shape.channels, self.shape.side]),
            "colours": np.array([self.shape.mean, self.shape.deviation]),
        }
        weights = {f"weights.{name}": array for name, array in self.weights.items()}
        return {"mean": self.mean, "scale": self.scale, **shape, **weights}

    @classmethod
    def from_arrays(cls, scaling: str, arrays: Mapping[str, NDArray[Any]]) -> BackbonePreprocessor:
        channels, side = (int(number) for number in arrays["image"])
        mean, deviation = (tuple(map(float, one)) for one in arrays["colours"])
        shape = BackboneShape(arrays["name"].tobytes().decode(), channels, side, mean, deviation)
        weights = {
            name.removeprefix("weights."): a for name, a in arrays.items() if name.startswith("weights.")
        }
        return cls(shape, weights, arrays["mean"], arrays["scale"])


class FrozenInputs(KernelInputs):
    """The features that a backbone makes of a data set's images, made once; its weights are not trained, and
    what changes images at random does not apply."""

    @classmethod
    def prepare(
        cls,
        configuration: Mapping[str, Any],
        signals: Signals,
        splits: Sequence[Split],
        device: str,
        start: Start | None = None,
    ) -> FrozenInputs:
        """Standardize the features by the training rows of each split.

        UserError without trained weights, and for a treatment of rare classes that makes up rows of a table.
        """
        _checked(configuration, signals)
        if start is None or not start.backbone:
            raise UserError("backbone_training frozen needs trained weights: give --weights FILE")
        weights = {name: tensor.numpy() for name, tensor in start.backbone.items()}
        nothing = np.zeros(0, np.float32)
        shape = BackboneShape.of(configuration, signals.shape)
        backbone = BackbonePreprocessor(shape, weights, nothing, nothing)
        features = backbone.features(signals, device)
        fitted = [backbone.fitted(features, split.train) for split in splits]
        return cls(fitted, [one.standardized(features) for one in fitted], device)

    @classmethod
    def of_new_rows(
        cls, preprocessors: tuple[Any, ...], shape: KernelShape, signals: Signals, device: str
    ) -> FrozenInputs:
        """Rows under the same backbone and statistics that were fitted on others."""
        features = preprocessors[0].features(signals, device)
        return cls(preprocessors, [one.standardized(features) for one in preprocessors], device)


def _points(points: SignalPreprocessor, signals: Signals) -> NDArray[np.float32]:
    """Scaled series without gaps, of at least nine points: (rows, channels, points)."""
    everyone = torch.arange(len(signals)).unsqueeze(0)
    [scaled] = SignalInputs([points], signals).inputs(everyone, torch.zeros(1, dtype=torch.int64))
    return whole(scaled[0].numpy())


def _checked(configuration: Mapping[str, Any], signals: Signals) -> bool:
    """Whether a channel tells where series have points. UserError for what is of tables alone."""
    if configuration["class_balance"] in SYNTHETIC:
        raise UserError(
            f"class_balance {configuration['class_balance']} creates synthetic rows of a table; for "
            "images and sequences use oversample, whose rows are then augmented"
        )
    return has_gaps(signals)


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
