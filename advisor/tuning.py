"""``fit`` and ``tune`` from end to end: the one place where the knowledge and the training meet."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.trial import FixedTrial, FrozenTrial

from advisor import __version__, knowledge
from advisor.advice import Advice
from advisor.baselines import fit_baselines
from advisor.curves import Reading, advice_of, read_curve
from advisor.diagnosis import diagnose
from advisor.errors import UserError, did_you_mean
from advisor.executors import Executor, Factory, InProcessExecutor, Job
from advisor.facts import MIN_SIDE
from advisor.features import Dataset, Signals
from advisor.final import Estimate, Verdict, constant_losses, decide, estimate, final_section, unseen_loss
from advisor.finalists import Stopped, train_finalists
from advisor.losses import loss_name, row_losses, weighted
from advisor.models import Model, decided, fit_temperature, model_files, tempered
from advisor.objective import TrainingObjective, merged_held_out, payload, training_sizing
from advisor.own_objective import Final, OwnObjective, find
from advisor.plans import plan_of, problem, usable_memory
from advisor.recommendation import Recommendation, library_default
from advisor.report import write_report
from advisor.run_folder import RunFolder, read_json, write_folder, write_json
from advisor.runs import open_run, write_advice
from advisor.samples import mistakes
from advisor.search import Plan, Progress, SearchEvent, SearchResult, SearchSpace, end_of, packing_of, search
from advisor.shift import likeness_to_test
from advisor.sizing import Sizing
from advisor.splits import make_splits
from advisor.stages import StagedSpace
from advisor.status import SearchRequest, begin_request, remembered, stopping
from advisor.storage import Database, checked_url, failures
from advisor.table import Table
from advisor.throughput import one_thread
from advisor.training import Fitted

if TYPE_CHECKING:
    from advisor.advice import Source
    from advisor.ray_executor import RayWorkers
    from advisor.trial import Trial

logging.getLogger("optuna.storages._in_memory").setLevel(logging.WARNING)  # else a line for every study that is made

Listener = Callable[[SearchEvent, Progress], None]

FORMAT = 1
RECOMMENDED, DEFAULT, BLEND = "recommendation", "library default", "blend"
FINALISTS = 3
"""Best trials that meet the recommendation in the final; more would cost time and a stricter test for each."""
FINAL_REPEATS = (1, 2)
"""Fresh partitions in the final; the search used number 0. Two halve the luck of the draw, and their networks are one
ensemble."""
SEARCH_SHARE = 0.7
"""Share of the time limit that the search may use; the final needs the rest."""
RESULT_KEYS = ("kind", "configuration", "loss", "final", "estimate", "test")
"""What result.json holds at the least; ``search`` too when there was one."""
IMPORTANCE_TRIALS = 10
"""With fewer complete trials an importance is noise."""
STRATEGIES = ("joint", "staged")


@dataclass(frozen=True)
class RunResult:
    """A finished (or interrupted) run. ``document`` is what result.json holds; ``model`` is None when interrupted."""

    folder: Path
    document: Mapping[str, Any]
    model: Model | None
    interrupted: bool = False


@dataclass(frozen=True)
class Contender:
    """A configuration in the final, with its stacks and their held-out scores; a blend has the stacks of several.

    scores: before the temperature, as the model averages them; losses: after it, as the model predicts. cross_fitted: the
    scores at epochs that other rows chose; cross_fitted_losses: theirs, after a temperature of their own.
    """

    name: str
    configurations: tuple[Mapping[str, Any], ...]
    stacks: tuple[Fitted, ...]
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    temperature: float
    losses: NDArray[np.float64] = field(repr=False)
    cross_fitted: NDArray[np.float64] = field(repr=False)
    cross_fitted_losses: NDArray[np.float64] = field(repr=False)


def fit(data: Source, target: str | None = None, *, out: str | Path | None = None, **options: Any) -> RunResult:
    """Train the recommendation alone: a model without a search. ``advisor train`` is this.

    data: what ``recommend`` takes, or a run folder or its recommendation.yaml (then without target). out: the run
    folder; by default ``runs/NAME``. options: those of ``advisor.recommend``.
    """
    begun = time.monotonic()
    advice, run = open_run(data, target, out, options)
    with run.in_use():
        train = _training_rows(advice)
        write_advice(run, advice)
        configuration = advice.recommendation.configuration
        seed = advice.reading.seed
        with one_thread():
            job = Job(
                RECOMMENDED,
                payload(configuration, seed=seed, repeat=0, members=int(configuration["final_members"]), keep=True),
            )
            curve, fitted = _run_here(TrainingObjective({"data": train, "seed": seed}), job)
            contender = _contender(RECOMMENDED, [configuration], [fitted], train)
            document = _document(advice, "train", begun)
            document |= {"curve": curve, "reading": asdict(read_curve(curve))}
            document["final"] = final_section(Verdict(RECOMMENDED, "it was trained alone", {}), [_as_row(contender)], {})
            model = _complete(document, advice, contender, contender, train)
        _write_results(run, advice, model, document)
    return RunResult(run.path, document, model)


def tune(
    data: Source,
    target: str | None = None,
    *,
    trials: int = 40,
    time_limit: float | None = None,
    executor: str = "ray",
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float = 0,
    trial_time_limit: float | None = None,
    strategy: str = "joint",
    objective: str | Callable[[Trial], Any] | None = None,
    working_dir: str | Path | None = None,
    storage: str | None = None,
    out: str | Path | None = None,
    on_event: Listener | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_phase: Callable[[str], None] = lambda phase: None,
    on_note: Callable[[str], None] = lambda note: None,
    **options: Any,
) -> RunResult:
    """Search around the recommendation, judge the best few again, leave the winner's model.

    trials: how many in all, those of an earlier call on the same run folder included; trial 0 is the recommendation,
    trial 1 the library default. time_limit: seconds, for the search and the final together. executor: ``ray``, or
    ``in-process`` for debugging. address: a Ray cluster to join. workers: how many trials at once. gpus_per_worker: the
    share of a GPU that each worker asks Ray for; 0 trains on CPUs; workers on one GPU train at once what fits its memory
    together, so a small share is the right one. trial_time_limit: seconds after which a trial is ended, and its worker
    replaced when it hangs. strategy: ``joint`` searches everything at once, ``staged`` first what makes it learn, then what
    regularizes, then the layers. objective: your own training code in place of our networks, a function of an ``advisor.Trial``
    or its name, package.module:function; the model is then yours, and the result has none. working_dir: the folder to
    import it from, sent to a cluster's workers. storage: the URL of a database to keep the study in, in place of the
    journal file; a run folder remembers it, without its password. data, target, out and options are those of ``fit``.
    on_phase, on_note: told where we are, and what a person should know at once.
    Ctrl-C or `advisor stop` ends the search cleanly; the same call goes on with it.
    Raises UserError for whatever the user can mend.
    """
    begun = time.monotonic()
    if strategy not in STRATEGIES:
        raise UserError(f"unknown strategy '{strategy}'{did_you_mean(strategy, STRATEGIES)}: choose joint or staged")
    if trial_time_limit is not None and not trial_time_limit > 0:
        raise UserError(f"the time limit of a trial must be more than 0 seconds, not {trial_time_limit}")
    objective, working_dir = remembered(data, objective, working_dir)
    own = None if objective is None else find(objective, working_dir)
    if storage is not None:
        checked_url(storage)
    pool = _start_workers(executor, address, workers, gpus_per_worker, trials, time_limit, working_dir)
    runner: Executor | None = None
    try:
        advice, run = open_run(data, target, out, options)
        with run.in_use(), one_thread():
            finished = _finished(run, advice, trials, own)
            if finished:
                return finished
            train = _training_rows(advice)
            write_advice(run, advice)
            on_phase("search")
            runner = _executor(pool, own, own.shared(advice, train, run) if own else {"data": train, "seed": advice.reading.seed})
            request = begin_request(run, trials, own.name if own else None, working_dir, storage)
            stopped = stopping(run, should_stop)
            sizing = None if own else training_sizing(train)
            plan = _plan(advice, request, time_limit, trial_time_limit, sizing, own, train, strategy)
            if own:
                on_event = own.watch(run, advice.recommendation, plan.make_payload, on_event, on_note)
            found = _searched(plan, runner, run, request, storage, on_event, stopped)
            document = _document(advice, "tune", begun)
            document["search"] = _search_section(found, advice, trials)
            if found.interrupted:
                return RunResult(run.path, document, None, interrupted=True)
            on_phase("final")
            deadline = None if time_limit is None else begun + time_limit
            model = None
            try:
                if own:
                    _own_final(document, found, advice, train, runner, deadline, stopped, own, run)
                else:
                    model = _final(document, found, advice, train, runner, deadline, sizing, stopped)
            except Stopped:
                return RunResult(run.path, document, None, interrupted=True)
            document["seconds"] = time.monotonic() - begun
            _write_results(run, advice, model, document)
        return RunResult(run.path, document, model)
    finally:
        if runner is not None:
            runner.close()
        elif pool is not None:
            pool.close()


# ------------------------------------------------------------------------------------------------- a finished run


def _write_results(run: RunFolder, advice: Advice, model: Model | None, document: Mapping[str, Any]) -> None:
    """The model where it is ours, result.json, and the report on them."""
    if model is not None:
        write_folder(run.model, model_files(model))
    write_json(run.result, document)
    write_report(run, advice.recommendation.to_dict(), advice.facts.to_dict(), advice.ledger(), document)


def _finished(run: RunFolder, advice: Advice, trials: int, own: OwnObjective | None) -> RunResult | None:
    """The run when the very search was finished before."""
    if not (run.result.is_file() and (own or run.model.is_dir()) and run.has_search()):
        return None
    document = read_result(run)
    if document.get("objective", {}).get("name") != (own.name if own else None):
        return None
    same = document.get("configuration") == dict(advice.recommendation.configuration)
    if document.get("kind") != "tune" or not same or len(document["search"]["trials"]) < trials:
        return None
    if own:
        return RunResult(run.path, document, None)
    from advisor.models import load_model

    return RunResult(run.path, document, load_model(run.model))


def read_result(run: RunFolder) -> dict[str, Any]:
    """result.json of a finished run; UserError when it is not what we wrote."""
    document = read_json(run.result)
    wanted = (*RESULT_KEYS, *(("search",) if document.get("kind") == "tune" else ()))
    if missing := [key for key in wanted if key not in document]:
        raise UserError(f"{run.result} is damaged: '{missing[0]}' is missing; delete it, and run the same command again")
    return document


# ------------------------------------------------------------------------------------------------- executors


def _start_workers(
    executor: str,
    address: str | None,
    workers: int | None,
    gpus_per_worker: float,
    trials: int,
    time_limit: float | None,
    working_dir: str | Path | None,
) -> RayWorkers | None:
    if trials < 1:
        raise UserError(f"trials must be at least 1, not {trials}")
    if time_limit is not None and not time_limit > 0:
        raise UserError(f"the time limit must be more than 0 seconds, not {time_limit}")
    if gpus_per_worker < 0:
        raise UserError(f"gpus_per_worker must be 0 or more, not {gpus_per_worker}")
    if executor == "in-process":
        if address or workers:
            raise UserError("--executor in-process runs one trial at a time here: leave out --address and --workers")
        return None
    if executor != "ray":
        raise UserError(f"unknown executor '{executor}': choose ray or in-process")
    from advisor.ray_executor import RayWorkers

    imports = ["advisor.objective", "advisor.trial"]
    pool = RayWorkers(workers, address, gpus_per_worker=gpus_per_worker, imports=imports, working_dir=working_dir)
    pool.start()
    return pool


def _executor(pool: RayWorkers | None, own: OwnObjective | None, shared: Mapping[str, Any]) -> Executor:
    factory: Factory = own.factory if own else TrainingObjective
    if pool is None:
        return InProcessExecutor(factory, shared)
    from advisor.ray_executor import RayExecutor

    return RayExecutor(factory, shared, ray_workers=pool)


def _training_rows(advice: Advice) -> Dataset:
    """The training rows, after the plan has been held against them: better now than in every trial."""
    train, recommendation = advice.data.dataset("train"), advice.recommendation
    plan = recommendation.configuration
    loss = "mean_squared_error" if train.task == "regression" else "cross_entropy"
    if recommendation.provenance["loss"].yours and plan["loss"] != loss:
        raise UserError(f"loss {plan['loss']} does not fit a {train.task} target: leave it at {loss}")
    if plan["validation_weights"] == "like_test":
        likeness = likeness_to_test(advice.data) if isinstance(advice.data, Table) else None
        if likeness is None:
            raise UserError(f"validation_weights like_test needs a test table (--test) of at least {MIN_SIDE} rows")
        train = replace(train, weights=likeness)
    if reason := refusal(plan, train, advice.facts.values):
        raise UserError(f"the recommendation cannot be trained: {reason}")
    make_splits(
        train,
        scheme=plan["validation"],
        folds=int(plan["folds"]),
        fraction=float(plan["validation_fraction"]),
        seed=advice.reading.seed,
    )
    return train


def refusal(configuration: Mapping[str, Any], train: Dataset, facts: Mapping[str, Any]) -> str | None:
    """Why a configuration cannot be trained on such rows and such a machine; None when nothing speaks against it."""
    if not isinstance(train.features, Signals):
        return None
    channels, *size = train.features.values.shape[1:]
    plan = plan_of(configuration, channels, size)
    members = int(configuration["folds"]) if configuration["validation"] == "kfold" else int(configuration["final_members"])
    memory = usable_memory(facts, gpu=bool(facts["gpu.count"]))
    return problem(plan, max(1, len(train.classes)), int(configuration["batch_size"]), members=members, memory=memory)


def _run_here(objective: TrainingObjective, job: Job) -> tuple[list[float], Fitted]:
    curve: list[float] = []
    epochs = objective(job)
    while True:
        try:
            curve.append(next(epochs)[1])
        except StopIteration as end:
            return [loss for loss in curve if math.isfinite(loss)], end.value


# ------------------------------------------------------------------------------------------------- the search


def _plan(
    advice: Advice,
    request: SearchRequest,
    time_limit: float | None,
    trial_time_limit: float | None,
    sizing: Sizing | None,
    own: OwnObjective | None,
    train: Dataset,
    strategy: str,
) -> Plan:
    recommendation, seed = advice.recommendation, advice.reading.seed
    configuration = recommendation.configuration
    default = library_default(recommendation, knowledge.base_space(recommendation.kind))
    enqueue = {RECOMMENDED: configuration, DEFAULT: default}
    staged = StagedSpace(recommendation.space, request.trials, len(enqueue))
    space: SearchSpace = staged if strategy == "staged" else recommendation.space
    return Plan(
        space=space,
        enqueue=enqueue,
        trials=request.trials,
        max_epochs=int(configuration["epochs"]),
        space_text=repr(recommendation.space.to_dict()) + (f" for {own.name}" if own else "") + _in_stages(strategy),
        seed=seed,
        time_limit=None if time_limit is None else time_limit * SEARCH_SHARE,
        trial_time_limit=trial_time_limit,
        make_payload=lambda asked, place: payload(asked, seed=seed + place, repeat=0, members=1, keep=False),
        sizing=sizing,
        refuse=lambda asked: None if own else refusal(asked, train, advice.facts.values),
        value_of=own.value_of if own else None,
    )


def _in_stages(strategy: str) -> str:
    return " in stages" if strategy == "staged" else ""


def _searched(
    plan: Plan,
    runner: Executor,
    run: RunFolder,
    request: SearchRequest,
    storage: str | None,
    on_event: Listener | None,
    should_stop: Callable[[], bool],
) -> SearchResult:
    """The search, in the run's journal or in the database that the run was begun with."""
    if request.storage is None:
        return search(plan, runner, run.journal, on_event=on_event, should_stop=should_stop)
    url, name = storage or request.storage, str(request.study)
    with failures(url):
        return search(plan, runner, lambda: Database.open(url, name), on_event=on_event, should_stop=should_stop)


def configuration_of(trial: FrozenTrial, recommendation: Recommendation) -> dict[str, Any]:
    """The whole configuration that a trial ran with."""
    kept = trial.user_attrs.get("configuration")
    return dict(kept) if kept else recommendation.space.suggest(FixedTrial(trial.params))


def _read_trial(trial: FrozenTrial) -> Reading:
    """What its curve says; of a pruned trial, what it said up to there."""
    return read_curve([v for _, v in sorted(trial.intermediate_values.items())], pruned=end_of(trial) == "pruned")


def _search_section(found: SearchResult, advice: Advice, requested: int) -> dict[str, Any]:
    trials = [
        {
            "number": trial.number,
            "origin": trial.user_attrs.get("origin", "search"),
            "end": end_of(trial),
            "value": trial.value if trial.value is not None and math.isfinite(trial.value) else None,
            "configuration": configuration_of(trial, advice.recommendation),
            "curve": [[s, v] for s, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)],
            "reading": asdict(_read_trial(trial)),
        }
        for trial in found.trials
    ]
    return {
        "requested": requested,
        "trials": trials,
        "timed_out": found.timed_out,
        "seconds": found.seconds,
        "curve_advice": [asdict(change) for change in advice_of([_read_trial(trial) for trial in found.trials])],
        "packing": packing_of(found.trials),
        "importances": _importances(found),
    }


def _importances(found: SearchResult) -> dict[str, float]:
    ranked = found.ranking()
    if len(ranked) < IMPORTANCE_TRIALS:
        return {}
    study = optuna.create_study()  # of its own: the run's journal is closed by now
    study.add_trials(ranked)
    with warnings.catch_warnings():
        # one warning per parameter with few trials in its best region; the report says that these are estimates
        warnings.simplefilter("ignore", UserWarning)
        named = optuna.importance.get_param_importances(study)
    return {name: float(value) for name, value in named.items() if math.isfinite(value)}


# ------------------------------------------------------------------------------------------------- the final


def _final(
    document: dict[str, Any],
    found: SearchResult,
    advice: Advice,
    train: Dataset,
    runner: Executor,
    deadline: float | None,
    sizing: Sizing | None,
    stopped: Callable[[], bool],
) -> Model:
    """Train the recommendation and the best few again on fresh splits, decide, and complete the document."""
    entries, searched = _finalists(found, advice.recommendation)
    jobs = _final_jobs(entries, FINAL_REPEATS, advice.reading.seed)
    larger = _for_final(sizing, train)
    stacks: dict[str, list[Fitted]] = train_finalists(jobs, RECOMMENDED, runner, deadline, larger, stopped)
    contenders = [_contender(name, [entries[name]], own, train) for name, own in stacks.items()]
    if len(contenders) > 1:
        contenders.append(_blend(contenders, train))
    constant = constant_losses(train.task, train.target, [contenders[0].rows], len(train.classes))
    constant = weighted(constant, train.weights_of(contenders[0].rows))
    cross_fitted = {c.name: c.cross_fitted_losses for c in contenders}
    verdict = decide({c.name: c.losses for c in contenders}, RECOMMENDED, constant, blend=BLEND, cross_fitted=cross_fitted)
    document["final"] = final_section(verdict, [_as_row(contender) for contender in contenders], searched)
    winner = next(c for c in contenders if c.name == verdict.winner)
    return _complete(document, advice, winner, contenders[0], train)


def _final_jobs(
    entries: Mapping[str, Mapping[str, Any]], repeats: Sequence[int], seed: int
) -> dict[str, list[Job]]:
    return {
        name: [Job(f"final/{name}/{repeat}", _final_payload(c, seed, repeat)) for repeat in repeats]
        for name, c in entries.items()
    }


def _for_final(sizing: Sizing | None, train: Dataset) -> Sizing | None:
    """What the search has learned, for stacks with the final's number of networks."""
    larger = training_sizing(train, final=True)
    return None if sizing is None else replace(larger, limit=sizing.limit, ratio=sizing.ratio)


def _own_final(
    document: dict[str, Any],
    found: SearchResult,
    advice: Advice,
    train: Dataset,
    runner: Executor,
    deadline: float | None,
    stopped: Callable[[], bool],
    own: OwnObjective,
    run: RunFolder,
) -> None:
    """The same for a person's own objective: the models are theirs, so they are judged by what it returns."""
    entries, searched = _finalists(found, advice.recommendation)
    seed = advice.reading.seed
    own.finish(
        document,
        Final(
            entries,
            searched,
            FINAL_REPEATS,
            train=lambda repeats: train_finalists(
                _final_jobs(entries, repeats, seed), RECOMMENDED, runner, deadline, None, stopped
            ),
            payload=lambda name, repeat: _final_payload(entries[name], seed, repeat),
            test=lambda scores: _test_results(advice, train, scores, ()),
        ),
        advice,
        train,
        run,
    )


def _finalists(
    found: SearchResult, recommendation: Recommendation
) -> tuple[dict[str, Mapping[str, Any]], dict[str, float | None]]:
    """The recommendation and the best few: their configurations, and their losses in the search."""
    entries: dict[str, Mapping[str, Any]] = {RECOMMENDED: recommendation.configuration}
    searched: dict[str, float | None] = {}
    for trial in found.ranking():
        configuration = configuration_of(trial, recommendation)
        if trial.user_attrs.get("origin") == RECOMMENDED:
            searched[RECOMMENDED] = trial.value
        elif len(entries) <= FINALISTS and configuration not in entries.values():
            name = DEFAULT if trial.user_attrs.get("origin") == DEFAULT else f"trial {trial.number}"
            entries[name], searched[name] = configuration, trial.value
    return entries, searched


def _final_payload(configuration: Mapping[str, Any], seed: int, repeat: int) -> dict[str, Any]:
    members = int(configuration["final_members"])
    return payload(configuration, seed=seed + 1000 + repeat, repeat=repeat, members=members, keep=True)


def _contender(
    name: str, configurations: Sequence[Mapping[str, Any]], stacks: Sequence[Fitted], train: Dataset
) -> Contender:
    rows, scores = merged_held_out(stacks)
    _, cross_fitted = merged_held_out(stacks, cross_fitted=True)
    return _judged(name, tuple(configurations), tuple(stacks), rows, scores, cross_fitted, train)


def _blend(contenders: Sequence[Contender], train: Dataset) -> Contender:
    """All contenders, averaged: it costs no training, and seldom loses."""
    return _judged(
        BLEND,
        tuple(c.configurations[0] for c in contenders),
        tuple(stack for c in contenders for stack in c.stacks),
        contenders[0].rows,
        np.asarray(np.mean([c.scores for c in contenders], axis=0)),
        np.asarray(np.mean([c.cross_fitted for c in contenders], axis=0)),
        train,
    )


def _judged(
    name: str,
    configurations: tuple[Mapping[str, Any], ...],
    stacks: tuple[Fitted, ...],
    rows: NDArray[np.int64],
    scores: NDArray[np.float64],
    cross_fitted: NDArray[np.float64],
    train: Dataset,
) -> Contender:
    target = train.target[rows]
    warm = train.task != "regression" and configurations[0]["calibration"] == "temperature"
    temperatures = [fit_temperature(own, target) if warm else 1.0 for own in (scores, cross_fitted)]
    losses = [
        weighted(row_losses(train.task, target, tempered(own, temperature) if warm else own), train.weights_of(rows))
        for own, temperature in zip((scores, cross_fitted), temperatures, strict=True)
    ]
    return Contender(name, configurations, stacks, rows, scores, temperatures[0], losses[0], cross_fitted, losses[1])


# ------------------------------------------------------------------------------------------------- the document


def _document(advice: Advice, kind: str, begun: float) -> dict[str, Any]:
    data = advice.data
    return {
        "format": FORMAT,
        "advisor": __version__,
        "kind": kind,
        "data": {"name": data.name, "source": data.source, "target": data.schema.target, "rows": advice.facts.values["rows"]},
        "task": data.schema.task,
        "loss": loss_name(data.schema.task),
        "classes": list(data.schema.classes),
        "seed": advice.reading.seed,
        "configuration": dict(advice.recommendation.configuration),
        "versions": {"advisor": __version__, "torch": torch.__version__, "optuna": optuna.__version__},
        "seconds": time.monotonic() - begun,
    }


def _as_row(contender: Contender) -> dict[str, Any]:
    return {
        "name": contender.name,
        "held_out_loss": float(contender.losses.mean()),
        "held_out_rows": len(contender.losses),
        "temperature": contender.temperature,
        "networks": sum(len(stack.member_split) for stack in contender.stacks),
        "configurations": [dict(configuration) for configuration in contender.configurations],
    }


def _complete(
    document: dict[str, Any], advice: Advice, winner: Contender, recommended: Contender, train: Dataset
) -> Model:
    """The winner's model; its promised loss, and then, once, the test rows, are added to the document."""
    model = _model(advice, winner, train)
    rows = int(_known_targets(advice).sum())
    tail = unseen_loss(train.task, len(winner.losses), len(train.classes))
    expected: Estimate = estimate(winner.losses, max(1, rows), advice.reading.seed, tail)
    document["estimate"] = asdict(expected)
    document["test"] = {"rows": rows, "origin": advice.data.test_origin}
    if rows:
        features = advice.data.dataset("test").features
        scores = {"network": model.scores(features)}
        if winner is not recommended:
            scores[RECOMMENDED] = _model(advice, recommended, train).scores(features)
        document["test"] |= _test_results(advice, train, scores, model.shares)
    return model


def _known_targets(advice: Advice) -> NDArray[np.bool_]:
    """Which test rows have a target that can be scored."""
    test = advice.data.dataset("test")
    return np.asarray(test.target >= 0 if test.task != "regression" else np.isfinite(test.target))


def _test_results(
    advice: Advice, train: Dataset, entries: Mapping[str, NDArray[np.float64]], shares: Sequence[float]
) -> dict[str, Any]:
    """The test rows, scored: the entries (name -> scores of all test rows, the winner's as "network") and the baselines."""
    test, known, ours = advice.data.dataset("test"), _known_targets(advice), tuple(entries)
    baselines = {name: scores(test.features) for name, scores in fit_baselines(train, advice.reading.seed).items()}
    target, entries = test.target[known], {**entries, **baselines}
    losses = {name: row_losses(train.task, target, scores[known]) for name, scores in entries.items()}
    results = [
        {
            "name": name,
            **_scores(train.task, target, scores[known], losses[name], shares if name in ours else ()),
            "difference_to_network": _paired(losses[name], losses["network"]),
        }
        for name, scores in entries.items()
    ]
    own = entries["network"][known]
    chosen = None if train.task == "regression" else decided(own, shares)
    section = {"results": results, "predictions": diagnose(train.task, len(train.classes), target, own, chosen)}
    if isinstance(test.features, Signals):
        labelled = Dataset(Signals(test.features.values[known]), target, test.task, test.classes)
        section["mistakes"] = mistakes(labelled, own, chosen, losses["network"])
    return section


def _model(advice: Advice, contender: Contender, train: Dataset) -> Model:
    shares: tuple[float, ...] = ()
    if train.task != "regression" and contender.configurations[0]["decision"] == "balanced":
        counts = np.bincount(train.target, minlength=len(train.classes))
        shares = tuple(float(share) for share in np.maximum(counts, 1) / len(train))
    return Model(advice.data.schema, contender.stacks, contender.temperature, shares)


def _paired(losses: NDArray[np.float64], others: NDArray[np.float64]) -> dict[str, float]:
    """Mean paired difference and its standard error (0 for a single row, of which nothing is known)."""
    paired = losses - others
    error = paired.std(ddof=1) / np.sqrt(len(paired)) if len(paired) > 1 else 0.0
    return {"mean": float(paired.mean()), "standard_error": float(error)}


def _scores(
    task: str, target: NDArray[Any], scores: NDArray[np.float64], losses: NDArray[np.float64], shares: Sequence[float]
) -> dict[str, float]:
    """The mean loss beside what people know; shares: of the classes, where they take part in the decision."""
    result = {"loss": float(losses.mean())}
    if task == "regression":
        spread = float(np.mean(np.square(target - target.mean())))
        result["r2"] = 1 - result["loss"] / spread if spread > 0 else 0.0
    else:
        chosen = decided(scores, shares)
        result["accuracy"] = float(np.mean(chosen == target))
        result["balanced_accuracy"] = float(np.mean([np.mean(chosen[target == code] == code) for code in np.unique(target)]))
        if task == "binary" and 0 < target.sum() < len(target):
            from sklearn.metrics import average_precision_score

            rare = int(np.bincount(target, minlength=2).argmin())
            result["average_precision"] = float(average_precision_score(target == rare, scores[:, rare]))
    return result
