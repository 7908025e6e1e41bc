"""What the rows of a data set are. Everything else of the product depends on it, and it on nothing."""

from typing import Literal

Kind = Literal["table", "image", "sequence"]
