"""What is said of images with a mask each, None for other rows."""

from __future__ import annotations

from advisor.facts.specs.spec import FactSpec

MASK_FACTS = (
    FactSpec(
        name="mask.classes",
        type="int",
        unit="classes",
        meaning="classes of the points of masks",
        nullable=True,
        example=11,
    ),
    FactSpec(
        name="mask.smallest_share",
        type="float",
        unit="share",
        meaning="labelled points of the class that has fewest of them / all labelled points",
        nullable=True,
        example=0.01,
    ),
    FactSpec(
        name="mask.largest_share",
        type="float",
        unit="share",
        meaning="the same for the class that has most of them",
        nullable=True,
        example=0.9,
    ),
    FactSpec(
        name="mask.unlabelled_share",
        type="float",
        unit="share",
        meaning="points without a label / all points of the masks",
        nullable=True,
        example=0.0,
    ),
    FactSpec(
        name="mask.object_side",
        type="float",
        unit="pixels",
        meaning="median of the longer side of connected regions of all classes but the most frequent one",
        nullable=True,
        example=20.0,
    ),
    FactSpec(
        name="mask.single_share",
        type="float",
        unit="share",
        meaning="images whose mask shows one class only / all images",
        nullable=True,
        example=0.05,
    ),
    FactSpec(
        name="mask.stray_classes",
        type="int",
        unit="classes",
        meaning="classes with fewer than 1 in 10,000 of the labelled points: slips, or blurred edges",
        nullable=True,
        example=0,
    ),
    FactSpec(
        name="mask.stray_names",
        type="list",
        unit="names",
        meaning="all of these classes",
        nullable=True,
        example=[],
    ),
    FactSpec(
        name="mask.missing",
        type="int",
        unit="images",
        meaning="images left out, because they have no mask",
        nullable=True,
        example=0,
    ),
    FactSpec(
        name="mask.missing_names",
        type="list",
        unit="names",
        meaning="all of these images",
        nullable=True,
        example=[],
    ),
)
