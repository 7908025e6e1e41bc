"""Numbers that the meaning of a fact names, and that what measures it keeps to."""

from __future__ import annotations

HIGH_CARDINALITY = 50
"""A categorical column with more levels than this counts in ``cardinality.high_columns``."""
HEAVY_SKEW = 2.0
"""A numeric column with an absolute skewness above this counts in ``skew.heavy_columns``."""
CORRELATED = 0.95
"""Two numeric columns with an absolute correlation above this count in ``correlated.pairs_share``."""
MIN_SIDE = 20
"""With fewer rows on a side nothing can be told of a shift beyond new levels and values out of range."""
PERIOD = 0.95
"""A column whose distributions are so far apart (Kolmogorov-Smirnov, or total
variation) only names the part."""
FEWEST_TIMES, MOST_AT_LAST = 3, 0.4
"""A column puts the training rows in an order of time when it has so many values or more there, and the last
one on no more than this share of the rows: these validate, and the rest must be enough to train on."""
OUT_OF_RANGE = 0.01
"""A column with more than this share of its new cells beyond the training rows' range is named."""
