"""The facts that images and sequences have and tables have not, and one that says
whether a table's columns have an order.

Rows of (name, type, unit, meaning, example, "nullable"), as ``facts.FACTS`` takes them; all are None for
tables, the last one for images and sequences.
"""

from __future__ import annotations

from typing import Any

_ROWS: tuple[tuple[Any, ...], ...] = (
    ("image.height", "int", "pixels", "height that all images are resized to", 28),
    ("image.width", "int", "pixels", "width that all images are resized to", 28),
    ("image.side", "int", "pixels", "the shorter of height and width", 28),
    ("image.sizes", "int", "sizes", "distinct sizes of the original images", 1),
    ("image.mean", "float", "0..1", "mean of the pixels, white being 1", 0.13),
    ("image.spread", "float", "0..1", "standard deviation of the pixels, white being 1", 0.31),
    (
        "image.brightness_shift",
        "float",
        "deviations",
        "mean brightness of the test images minus that of the training images, in standard "
        "deviations across training images",
        0.1,
    ),
    (
        "image.contrast_shift",
        "float",
        "deviations",
        "the same for contrast, the standard deviation of an image's pixels",
        -0.2,
    ),
    ("signal.channels", "int", "channels", "channels of an image (1 grey, 3 colour) or of a sequence", 1),
    ("signal.values", "int", "values", "numbers per row: channels times pixels or points", 784),
    ("signal.missing_files", "int", "files", "image files left out: damaged, oversized, or not there", 0),
    ("signal.missing_names", "list", "names", "all of these files", []),
    ("sequence.length", "int", "points", "length of the longest training sequence", 150),
    ("sequence.length_min", "int", "points", "length of the shortest training sequence", 150),
    ("sequence.length_median", "float", "points", "median length of the training sequences", 150.0),
    ("sequence.unequal", "bool", "", "training sequences differ in length", False),
    (
        "sequence.period",
        "int",
        "points",
        "dominant period: the first high peak of the mean autocorrelation, found in one half of the rows "
        "and there beyond "
        "chance (1 in 1,000) in the other; None where there is none",
        24,
    ),
    (
        "sequence.correlation_length",
        "int",
        "points",
        "points until the mean autocorrelation falls below 1/e; the length where it never does",
        6,
    ),
    (
        "sequence.scale_informative",
        "bool",
        "",
        "mean and spread of a whole series predict the target, so they must not be normalized away",
        False,
    ),
    (
        "sequence.position_gain",
        "float",
        "-1..1",
        "skill of a linear classifier on points at fixed positions minus that of one on patterns anywhere",
        -0.2,
    ),
    (
        "sequence.glitches",
        "int",
        "points",
        "single points far beyond all others of their channel; read as missing",
        0,
    ),
    (
        "sequence.channels_last",
        "bool",
        "",
        "arrays were read as (rows, points, channels) because they look so, not because --channels said so",
        False,
    ),
    (
        "sequence.uneven_steps",
        "float",
        "share",
        "steps in time between neighbouring points that differ from the median step by more than a tenth of "
        "it / all steps; 0 where no times are given",
        0.3,
    ),
    (
        "sequence.step_low",
        "float",
        "median steps",
        "5th percentile of the steps in time; None without times",
        0.5,
    ),
    ("sequence.step_high", "float", "median steps", "95th percentile of the steps in time", 3.0),
    ("sequence.step_longest", "float", "median steps", "longest step in time", 40.0),
    (
        "receptive.needed",
        "int",
        "pixels or points",
        "required receptive field: the extent of the object or of what differs between "
        "classes; two periods or eight correlation lengths; at most the whole input",
        20,
    ),
    (
        "flip.horizontal",
        "float",
        "ratio",
        "skill of a linear classifier on images mirrored left to right / on original ones; "
        "None without skill",
        0.3,
    ),
    ("flip.vertical", "float", "ratio", "the same on images turned upside down", 0.2),
    ("flip.rotated", "float", "ratio", "the same on square images rotated by a quarter", 0.1),
    ("flip.reversed", "float", "ratio", "the same on sequences reversed in time", 0.4),
    ("flip.sign", "float", "ratio", "the same on sequences times -1", 0.1),
    (
        "columns.order_correlation",
        "float",
        "-1..1",
        "mean absolute correlation of neighbouring numeric columns minus that in random "
        "order; None below 16 columns",
        0.05,
    ),
)
SIGNAL_FACTS = tuple((*row, "nullable") for row in _ROWS)
