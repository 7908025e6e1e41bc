"""The sampler by default: Optuna's TPE, which reads each trial of a study once.

While a study is small (at most EXACT finished trials), it proposes to the bit what Optuna's own does. Beyond
that it draws the same number of candidates from the same density of the better trials; the density of the
others is computed in few array operations, and from KEPT trials on the older of them are thinned by rank. A
proposal then takes some milliseconds, at 10,000 trials as at 1,000.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import (
    _BatchedCategoricalDistributions,
    _unique_inverse_2d,
)
from optuna.samplers._tpe.sampler import default_gamma, default_weights
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from advisor.search.sampling.finished import FinishedTrials

EXACT = 200
"""Finished trials up to which a study's proposals are Optuna's own, to the bit."""
KEPT = 1_000
"""Kernels in the density of the worse trials: with more, the older are thinned."""
LATEST, BEST = 250, 500
"""Of the KEPT: the latest trials and the best of the others, which stay one by one. The density is compared
with the better trials' only where those lie; far from there one kernel may stand for many."""

_FINISHED: weakref.WeakKeyDictionary[optuna.Study, FinishedTrials] = weakref.WeakKeyDictionary()
"""What has been read of a study, while it is open: a sampler lives for one proposal."""


def tpe(seed: int) -> optuna.samplers.TPESampler:
    """The sampler by default: a joint model of all parameters, conditional ones within their branch."""
    with warnings.catch_warnings():
        # group=True keeps conditional parameters in the joint model; that it is
        # experimental is known and accepted.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return QuickTPE(multivariate=True, group=True, seed=seed)


class QuickTPE(optuna.samplers.TPESampler):
    """TPE whose cost does not grow with the study. For one loss that is minimized; else it is Optuna's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._running: list[FrozenTrial] = []

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As Optuna's; the groups follow from the first trial with each set of parameters."""
        if not _is_ours(study):
            return super().infer_relative_search_space(study, trial)
        finished = _finished(study)
        self._running = finished.refresh(study._storage.get_all_trials(study._study_id, deepcopy=False))
        group = _SearchSpaceGroup()
        for space in finished.spaces():
            group.add_distributions(dict(space))
        self._search_space_group = group
        return {
            name: distribution
            for space in group.search_spaces
            for name, distribution in sorted(space.items())
            if not distribution.single()
        }

    def _sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not _is_ours(study):
            return super()._sample_relative(study, trial, search_space)
        if not search_space or _finished(study).count < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        finished, names = _finished(study), list(search_space)
        if not _is_ours(study) or finished.count <= EXACT:
            return super()._sample(study, trial, search_space)
        ranked = finished.by_rank()
        n_below = default_gamma(finished.count)
        below = self._density(finished, finished.in_order(ranked[:n_below]), [], search_space)
        others = [one for one in self._running if one.number != trial.number]
        parameters = [given for one in others if (given := self._get_params(one, study)).keys() >= set(names)]
        above = self._density(finished, ranked[n_below:], parameters, search_space)
        samples = below.sample(self._rng.rng, self._n_ei_candidates)
        found = self._compare(samples, self._compute_acquisition_func(samples, below, above))
        return {name: search_space[name].to_external_repr(found[name]) for name in names}

    def _density(
        self,
        finished: FinishedTrials,
        ranked: NDArray[np.intp],
        running: Sequence[dict[str, Any]],
        space: dict[str, BaseDistribution],
    ) -> QuickDensity:
        """The density of trials, by their rank, and of those that run, which are the latest."""
        names = list(space)
        ranked = finished.with_all(ranked, names)
        ordered = finished.in_order(ranked)
        weights = np.asarray(default_weights(len(ordered) + len(running)), dtype=float)
        places, kept = kernels_kept(ranked, ordered, weights)
        observations = {
            name: np.concatenate(
                [values, [space[name].to_internal_repr(parameters[name]) for parameters in running]]
            )
            for name, values in finished.observations(places, names).items()
        }
        weights = np.concatenate([kept, weights[len(ordered) :]])
        return QuickDensity(observations, space, self._parzen_estimator_parameters, weights)


def _is_ours(study: optuna.Study) -> bool:
    return study.directions == [StudyDirection.MINIMIZE]


def _finished(study: optuna.Study) -> FinishedTrials:
    return _FINISHED.setdefault(study, FinishedTrials())


def kernels_kept(
    ranked: NDArray[np.intp], ordered: NDArray[np.intp], weights: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """At most KEPT places of trials, and their weights.

    ranked, ordered: the same places, best first and by their number. weights: of ``ordered``, and more.
    Of trials that are neither among the LATEST nor the BEST, one stands for its neighbours in rank, with the
    weights of all of them.
    """
    count = len(ordered)
    if count <= KEPT:
        return ordered, weights[:count]
    position = np.empty(ordered.max() + 1, dtype=np.intp)
    position[ordered] = np.arange(count)
    by_rank = position[ranked]
    older = by_rank[by_rank < count - LATEST]
    kept = np.zeros(count)
    for single in (slice(count - LATEST, count), older[:BEST]):
        kept[single] = weights[:count][single]
    rest = older[BEST:]
    starts = np.linspace(0, len(rest), KEPT - LATEST - BEST, endpoint=False).astype(np.intp)
    middles = (starts + np.append(starts[1:], len(rest))) // 2
    kept[rest[middles]] = np.add.reduceat(weights[rest], starts)
    left = np.flatnonzero(kept)
    return ordered[left], kept[left]


class QuickDensity(_ParzenEstimator):
    """Optuna's mixture of products of truncated normals, with the normal distribution function of SciPy."""

    def sample(self, rng: np.random.RandomState, size: int) -> dict[str, NDArray[Any]]:
        """This many samples: name -> values."""
        mixture = self._mixture_distribution
        kernels = rng.choice(len(mixture.weights), p=mixture.weights, size=size)
        columns = [
            _drawn_choices(rng, one.weights[kernels])
            if isinstance(one, _BatchedCategoricalDistributions)
            else _drawn_numbers(rng, one, kernels)
            for one in mixture.distributions
        ]
        return dict(zip(self._search_space, columns, strict=True))

    def log_pdf(self, samples_dict: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        """The logarithm of the density (of the mass, for whole numbers) of each sample."""
        mixture = self._mixture_distribution
        logs = np.tile(np.log(mixture.weights), (len(next(iter(samples_dict.values()))), 1))
        for name, one in zip(self._search_space, mixture.distributions, strict=True):
            values = samples_dict[name]
            if isinstance(one, _BatchedCategoricalDistributions):
                logs += np.log(one.weights[:, values.astype(np.int64)]).T
            else:
                logs += _log_of_numbers(values, one)
        largest = logs.max(axis=1)
        found: NDArray[np.float64] = np.log(np.exp(logs - largest[:, None]).sum(axis=1)) + largest
        return found


def _drawn_choices(rng: np.random.RandomState, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    reached = np.cumsum(weights, axis=1)[:, :-1] < rng.uniform(size=(len(weights), 1))
    return np.asarray(reached.sum(axis=1), dtype=float)


def _drawn_numbers(rng: np.random.RandomState, one: Any, kernels: NDArray[np.intp]) -> NDArray[np.float64]:
    from scipy.special import log_ndtr, ndtri_exp

    mu, sigma = one.mu[kernels], one.sigma[kernels]
    low, high, right = _in_the_left_tail((one.adapted_low - mu) / sigma, (one.adapted_high - mu) / sigma)
    below, up_to = log_ndtr(low), log_ndtr(high)
    share = rng.uniform(size=len(mu))
    drawn = ndtri_exp(up_to + np.log(share + (1.0 - share) * np.exp(below - up_to)))
    drawn = mu + sigma * np.where(right, -drawn, drawn)
    if one.is_log:
        drawn = np.exp(drawn)
    if one.step:
        drawn = one.low + np.round((drawn - one.low) / one.step) * one.step
    return np.asarray(np.clip(drawn, one.low, one.high))


def _log_of_numbers(values: NDArray[np.float64], one: Any) -> NDArray[np.float64]:
    """log density of each value under each kernel, (values, kernels)."""
    scale = np.log if one.is_log else np.asarray
    if not one.step:
        whole = _log_mass((one.adapted_low - one.mu) / one.sigma, (one.adapted_high - one.mu) / one.sigma)
        distance = (scale(values)[:, None] - one.mu) / one.sigma
        return np.asarray(-0.5 * distance**2 - (np.log(one.sigma * np.sqrt(2 * np.pi)) + whole))
    mu, sigma, kernel_of = _unique_inverse_2d(one.mu, one.sigma)
    whole = _log_mass((one.adapted_low - mu) / sigma, (one.adapted_high - mu) / sigma)
    different, value_of = np.unique(values, return_inverse=True)
    left, right = scale(different - one.step / 2), scale(different + one.step / 2)
    part = _log_mass((left[:, None] - mu) / sigma, (right[:, None] - mu) / sigma)
    return np.asarray((part - whole)[np.ix_(value_of, kernel_of)])


def _log_mass(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """log mass of the standard normal between two points."""
    from scipy.special import log_ndtr

    low, high, _ = _in_the_left_tail(low, high)
    below, up_to = log_ndtr(low), log_ndtr(high)
    return np.asarray(up_to + np.log1p(-np.exp(below - up_to)))


def _in_the_left_tail(
    low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """The intervals, those above 0 mirrored, and which these are: a kernel lies outside of a range that was
    narrowed since, and only far to the left do the logarithms keep their digits."""
    right = low > 0
    return np.where(right, -high, low), np.where(right, -low, high), right
