"""Data sets by name: scikit-learn's own, and those of openml.org."""

from __future__ import annotations

import socket
import warnings
from typing import Any

import polars as pl

from advisor.data.sources.frames import from_pandas
from advisor.data.sources.source import Source, checked_source
from advisor.errors import UserError, did_you_mean, shown

OPENML_SECONDS = 15.0
"""How long one answer of openml.org is waited for."""


def from_sklearn(name: str, origin: str) -> Source:
    """A data set that scikit-learn bundles; UserError for another name."""
    from sklearn import datasets

    loaders = ("iris", "wine", "breast_cancer", "diabetes", "digits")
    if name not in loaders:
        raise UserError(
            f"unknown data set '{shown(origin)}'{did_you_mean(name, loaders)}; scikit-learn bundles "
            f"{', '.join(loaders)} (a set that must be downloaded is read with openml:ID)"
        )
    bunch = getattr(datasets, f"load_{name}")()
    target = bunch.target if name in ("diabetes", "digits") else bunch.target_names[bunch.target].astype(str)
    columns = {str(column): bunch.data[:, position] for position, column in enumerate(bunch.feature_names)}
    frame = pl.DataFrame(columns).with_columns(pl.Series("target", target.tolist()))
    return checked_source(frame, frame.columns, name, origin, {})


def from_openml(name: str, origin: str) -> Source:
    """A data set of openml.org, by number or name; UserError where it cannot be fetched."""
    from sklearn.datasets import fetch_openml

    if not name.strip():
        raise UserError("openml: needs a number or a name, as in openml:31 or openml:credit-g")
    which: dict[str, Any] = {"data_id": int(name)} if name.isdecimal() else {"name": name}
    before = socket.getdefaulttimeout()
    # fetch_openml opens its URLs without a timeout: without this a dead network hangs for minutes.
    socket.setdefaulttimeout(OPENML_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bunch = fetch_openml(**which, as_frame=True, parser="auto", n_retries=1, delay=0.1)
    except OSError as error:
        raise UserError(
            f"{shown(origin)} could not be fetched from openml.org ({shown(error)}); is there a network? "
            "A downloaded CSV or Parquet file works without one"
        ) from error
    except Exception as error:  # fetch_openml raises anything from its own errors to KeyError on odd answers
        raise UserError(f"{shown(origin)} could not be read: {shown(error, 200)}") from error
    finally:
        socket.setdefaulttimeout(before)
    return from_pandas(bunch.frame, f"openml-{name}", origin)
