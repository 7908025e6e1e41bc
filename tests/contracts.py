"""What must hold for every run, and the toys that runs are made of."""

from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState


class ToySpace:
    """x in [-5, 5], and y only when kind is b."""

    def suggest(self, trial):
        configuration = {
            "kind": trial.suggest_categorical("kind", ["a", "b"]),
            "x": trial.suggest_float("x", -5, 5),
        }
        if configuration["kind"] == "b":
            configuration["y"] = trial.suggest_float("y", 0.1, 10, log=True)
        return configuration

    def encode(self, configuration):
        return dict(configuration)


ENQUEUE = {
    "recommendation": {"kind": "a", "x": 1.5},
    "default": {"kind": "b", "x": -4.0, "y": 5.0},
}


def toy_losses(configuration, epochs=6):
    return [
        (configuration["x"] - 1) ** 2 + configuration.get("y", 1.0) / e + 10 / e for e in range(1, epochs + 1)
    ]


def toy_payload(configuration, place):
    return {"configuration": configuration, "place": place, "losses": toy_losses(configuration)}


def open_plainly(journal):
    """The study as Optuna itself reads it, without any code of ours. Never writes."""
    storage = JournalStorage(JournalFileBackend(str(Path(journal).resolve())))
    return optuna.load_study(storage=storage, study_name="search")


def assert_run_is_sound(journal, budget):
    """What must hold for every search that has ended, whatever happened on the way."""
    trials = open_plainly(journal).get_trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert all(trial.state.is_finished() for trial in trials), "a trial is left open"
    counted = [trial for trial in trials if "void" not in trial.user_attrs]
    assert sorted(trial.user_attrs["place"] for trial in counted) == list(range(budget))
    for trial in counted:
        if trial.state == TrialState.COMPLETE:
            assert np.isfinite(trial.value)
            if not trial.user_attrs.get("diverged"):
                assert trial.value == min(trial.intermediate_values.values())
        elif trial.state == TrialState.PRUNED:
            assert trial.intermediate_values
            assert trial.user_attrs["origin"] == "search"
        else:
            assert trial.user_attrs["reason"]
        for name, distribution in trial.distributions.items():
            assert distribution._contains(distribution.to_internal_repr(trial.params[name]))
    leftovers = [file.name for file in Path(journal).parent.iterdir() if ".tmp~" in file.name]
    assert not leftovers
    return {trial.user_attrs["place"]: trial for trial in counted}
