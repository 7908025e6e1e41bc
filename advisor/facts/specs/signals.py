"""What is said of images and sequences, None for tables; and last whether the columns of a table have an
order, None for images and sequences.
"""

from __future__ import annotations

from advisor.facts.specs.spec import FactSpec

SIGNAL_FACTS = (
    FactSpec(
        name="image.height",
        type="int",
        unit="pixels",
        meaning="height that all images are resized to",
        nullable=True,
        example=28,
    ),
    FactSpec(
        name="image.width",
        type="int",
        unit="pixels",
        meaning="width that all images are resized to",
        nullable=True,
        example=28,
    ),
    FactSpec(
        name="image.side",
        type="int",
        unit="pixels",
        meaning="the shorter of height and width",
        nullable=True,
        example=28,
    ),
    FactSpec(
        name="image.sizes",
        type="int",
        unit="sizes",
        meaning="distinct sizes of the original images",
        nullable=True,
        example=1,
    ),
    FactSpec(
        name="image.mean",
        type="float",
        unit="0..1",
        meaning="mean of the pixels, white being 1",
        nullable=True,
        example=0.13,
    ),
    FactSpec(
        name="image.spread",
        type="float",
        unit="0..1",
        meaning="standard deviation of the pixels, white being 1",
        nullable=True,
        example=0.31,
    ),
    FactSpec(
        name="image.brightness_shift",
        type="float",
        unit="deviations",
        meaning=(
            "mean brightness of the test images minus that of the training images, in standard "
            "deviations across training images"
        ),
        nullable=True,
        example=0.1,
    ),
    FactSpec(
        name="image.contrast_shift",
        type="float",
        unit="deviations",
        meaning="the same for contrast, the standard deviation of an image's pixels",
        nullable=True,
        example=-0.2,
    ),
    FactSpec(
        name="backbone.parameters",
        type="int",
        unit="weights",
        meaning="weights of that network without its output layer",
        nullable=True,
        example=11176512,
    ),
    FactSpec(
        name="backbone.products",
        type="int",
        unit="multiplications",
        meaning="multiplications that one image takes in that network",
        nullable=True,
        example=1813561344,
    ),
    FactSpec(
        name="backbone.side",
        type="int",
        unit="pixels",
        meaning="side of the images that its weights were trained with",
        nullable=True,
        example=224,
    ),
    FactSpec(
        name="signal.channels",
        type="int",
        unit="channels",
        meaning="channels of an image (1 grey, 3 colour) or of a sequence",
        nullable=True,
        example=1,
    ),
    FactSpec(
        name="signal.values",
        type="int",
        unit="values",
        meaning="numbers per row: channels times pixels or points",
        nullable=True,
        example=784,
    ),
    FactSpec(
        name="signal.missing_files",
        type="int",
        unit="files",
        meaning="image files left out: damaged, oversized, or not there",
        nullable=True,
        example=0,
    ),
    FactSpec(
        name="signal.missing_names",
        type="list",
        unit="names",
        meaning="all of these files",
        nullable=True,
        example=[],
    ),
    FactSpec(
        name="sequence.length",
        type="int",
        unit="points",
        meaning="length of the longest training sequence",
        nullable=True,
        example=150,
    ),
    FactSpec(
        name="sequence.length_min",
        type="int",
        unit="points",
        meaning="length of the shortest training sequence",
        nullable=True,
        example=150,
    ),
    FactSpec(
        name="sequence.length_median",
        type="float",
        unit="points",
        meaning="median length of the training sequences",
        nullable=True,
        example=150.0,
    ),
    FactSpec(
        name="sequence.unequal",
        type="bool",
        unit="",
        meaning="training sequences differ in length",
        nullable=True,
        example=False,
    ),
    FactSpec(
        name="sequence.period",
        type="int",
        unit="points",
        meaning=(
            "dominant period: the first high peak of the mean autocorrelation, found in one half "
            "of the rows and there beyond chance (1 in 1,000) in the other; None where there is "
            "none"
        ),
        nullable=True,
        example=24,
    ),
    FactSpec(
        name="sequence.correlation_length",
        type="int",
        unit="points",
        meaning="points until the mean autocorrelation falls below 1/e; the length where it never does",
        nullable=True,
        example=6,
    ),
    FactSpec(
        name="sequence.scale_informative",
        type="bool",
        unit="",
        meaning="mean and spread of a whole series predict the target, so they must not be normalized away",
        nullable=True,
        example=False,
    ),
    FactSpec(
        name="sequence.position_gain",
        type="float",
        unit="-1..1",
        meaning=(
            "skill of a linear classifier on points at fixed positions minus that of one on patterns anywhere"
        ),
        nullable=True,
        example=-0.2,
    ),
    FactSpec(
        name="sequence.glitches",
        type="int",
        unit="points",
        meaning="single points far beyond all others of their channel; read as missing",
        nullable=True,
        example=0,
    ),
    FactSpec(
        name="sequence.channels_last",
        type="bool",
        unit="",
        meaning=(
            "arrays were read as (rows, points, channels) because of their values, not because of --channels"
        ),
        nullable=True,
        example=False,
    ),
    FactSpec(
        name="sequence.uneven_steps",
        type="float",
        unit="share",
        meaning=(
            "time steps between neighbouring points that differ from the median step by more than a tenth "
            "of it / all steps; 0 where no times are given"
        ),
        nullable=True,
        example=0.3,
    ),
    FactSpec(
        name="sequence.step_low",
        type="float",
        unit="median steps",
        meaning="5th percentile of the time steps; None without times",
        nullable=True,
        example=0.5,
    ),
    FactSpec(
        name="sequence.step_high",
        type="float",
        unit="median steps",
        meaning="95th percentile of the time steps",
        nullable=True,
        example=3.0,
    ),
    FactSpec(
        name="sequence.step_longest",
        type="float",
        unit="median steps",
        meaning="longest time step",
        nullable=True,
        example=40.0,
    ),
    FactSpec(
        name="receptive.needed",
        type="int",
        unit="pixels or points",
        meaning=(
            "required receptive field: the extent of the object or of what differs between "
            "classes; two periods or eight correlation lengths; at most the whole input"
        ),
        nullable=True,
        example=20,
    ),
    FactSpec(
        name="flip.horizontal",
        type="float",
        unit="ratio",
        meaning=(
            "skill of a linear classifier on horizontally flipped images / on original ones; None without "
            "skill"
        ),
        nullable=True,
        example=0.3,
    ),
    FactSpec(
        name="flip.vertical",
        type="float",
        unit="ratio",
        meaning="the same on vertically flipped images",
        nullable=True,
        example=0.2,
    ),
    FactSpec(
        name="flip.rotated",
        type="float",
        unit="ratio",
        meaning="the same on square images rotated by a quarter",
        nullable=True,
        example=0.1,
    ),
    FactSpec(
        name="flip.reversed",
        type="float",
        unit="ratio",
        meaning="the same on sequences reversed in time",
        nullable=True,
        example=0.4,
    ),
    FactSpec(
        name="flip.sign",
        type="float",
        unit="ratio",
        meaning="the same on sequences multiplied by -1",
        nullable=True,
        example=0.1,
    ),
    FactSpec(
        name="columns.order_correlation",
        type="float",
        unit="-1..1",
        meaning=(
            "mean absolute correlation of neighbouring numeric columns minus that in random "
            "order; None below 16 columns"
        ),
        nullable=True,
        example=0.05,
    ),
)
