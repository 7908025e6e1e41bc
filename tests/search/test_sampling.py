"""The sampler by default: Optuna's own proposals while a study is small, the same in law and cheap beyond."""

import random

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.trial import TrialState, create_trial
from scipy.stats import ks_2samp

from advisor.search.sampling import tpe as sampling
from advisor.search.sampling.tpe import QuickDensity, kernels_kept, tpe
from advisor.search.storage.journal import new_study

SPACE = {
    "rate": FloatDistribution(1e-5, 1.0, log=True),
    "decay": FloatDistribution(0.0, 1.0),
    "depth": IntDistribution(1, 8),
    "width": IntDistribution(8, 512, log=True),
    "kind": CategoricalDistribution(["a", "b", "c"]),
}
PLAIN = {"multivariate": True, "group": True}


def loss(trial):
    """A space with a branch: ``width`` is asked for where ``kind`` is not "c"."""
    rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
    depth = trial.suggest_int("depth", 1, 8)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    width = 64 if kind == "c" else trial.suggest_int("width", 8, 512, log=True)
    return abs(np.log10(rate) + 2) + 0.1 * abs(depth - 3) + 0.01 * abs(width - 100) + "abc".index(kind)


def searched(make_sampler, trials):
    """A study with trials of every end; two of them are always out. Its parameters, in order."""
    study, out = new_study(), []
    for number in range(trials):
        study.sampler = make_sampler(number)
        trial = study.ask()
        out.append((trial, loss(trial)))
        if len(out) < 3:
            continue
        trial, value = out.pop(number % 2)
        if number % 7 == 3:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 7 == 5:
            trial.report(value, number % 3)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            if number % 7 == 6:
                trial.set_constraint("diverged", 1.0)
            study.tell(trial, value)
    return [trial.params for trial in study.get_trials(deepcopy=False)]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_small_study_is_searched_as_optuna_searches_it():
    own = searched(tpe, 45)
    assert own == searched(lambda seed: optuna.samplers.TPESampler(**PLAIN, seed=seed), 45)


def large_study(trials, seed=0):
    generator, study = random.Random(seed), new_study()
    for number in range(trials):
        drawn = {
            "rate": 10 ** generator.uniform(-5, 0),
            "decay": generator.random(),
            "depth": generator.randint(1, 8),
            "width": generator.randint(8, 512),
            "kind": generator.choice("abc"),
        }
        value = abs(np.log10(drawn["rate"]) + 2) + drawn["decay"] + 0.1 * drawn["depth"]
        kept = {"params": drawn, "distributions": SPACE}
        if number % 10 == 9:
            kept |= {"state": TrialState.PRUNED, "intermediate_values": {number % 4: value}}
        else:
            kept |= {"value": value}
        study.add_trial(create_trial(**kept))
    study.sampler = optuna.samplers.RandomSampler(seed=seed)
    for _ in range(3):  # these run
        study.ask(SPACE)
    return study


def proposals(study, make_sampler, count):
    found = []
    for number in range(count):
        study.sampler = make_sampler(number)
        trial = study.ask(SPACE)
        found.append(trial.params)
        study.tell(trial, state=TrialState.FAIL)  # so that nothing is learnt of it
    return found


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_beyond_it_the_proposals_are_the_same_in_law(monkeypatch):
    monkeypatch.setattr(sampling, "EXACT", 20)
    count = 100
    own = proposals(large_study(60), tpe, count)
    plain = proposals(
        large_study(60), lambda seed: optuna.samplers.TPESampler(**PLAIN, seed=seed + 1000), count
    )
    assert own != plain
    for name in SPACE:
        one, two = (
            [float(ord(p[name])) if name == "kind" else p[name] for p in some] for some in (own, plain)
        )
        assert ks_2samp(one, two).pvalue > 1e-3, name


def test_the_density_is_that_of_optuna_also_where_a_range_was_narrowed():
    generator, count = np.random.RandomState(0), 120
    observations = {
        "rate": 10 ** generator.uniform(-9, 0, count),
        "decay": generator.uniform(-2, 3, count),
        "depth": generator.randint(1, 9, count).astype(float),
        "width": generator.randint(1, 900, count).astype(float),
        "kind": generator.randint(0, 3, count).astype(float),
    }
    parameters = tpe(0)._parzen_estimator_parameters
    own, plain = (one(observations, SPACE, parameters) for one in (QuickDensity, _ParzenEstimator))
    samples = plain.sample(generator, 40)
    assert own.log_pdf(samples) == pytest.approx(plain.log_pdf(samples), rel=1e-9)
    drawn, expected = own.sample(generator, 2000), plain.sample(generator, 2000)
    for name, distribution in SPACE.items():
        assert ks_2samp(drawn[name], expected[name]).pvalue > 1e-3, name
        assert all(map(distribution._contains, drawn[name].tolist())), name


def test_thinning_keeps_the_latest_and_the_best_and_all_the_weight():
    count = 5_000
    ranked, ordered = np.random.RandomState(1).permutation(count), np.arange(count)
    weights = np.linspace(0.1, 1.0, count)
    places, kept = kernels_kept(ranked, ordered, weights)
    assert len(places) == sampling.KEPT and sorted(places) == list(places)
    assert kept.sum() == pytest.approx(weights.sum())
    own = dict(zip(places.tolist(), kept.tolist(), strict=True))
    older = [place for place in ranked if place < count - sampling.LATEST]
    for place in [*ordered[-sampling.LATEST :], *older[: sampling.BEST]]:
        assert own[place] == weights[place]


def test_a_study_that_is_opened_again_proposes_the_same():
    study = large_study(sampling.KEPT + 300)
    first = proposals(study, tpe, 4)
    study.tell(study.ask(SPACE), 0.1)
    own = proposals(study, tpe, 4)
    again = optuna.load_study(study_name=study.study_name, storage=study._storage)
    assert proposals(again, tpe, 4) == own != first
