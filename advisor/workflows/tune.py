"""``train`` and ``tune`` from end to end: the one place where the knowledge and the training meet.

The rest is imported inside the functions: what reads data while Ray starts, what trains after
the search where that will do. Until the first trial runs, two seconds of importing torch here
would keep the workers from a processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from advisor.errors import UserError
from advisor.executors.base import Executor
from advisor.executors.clusters import Cluster, ClusterOptions, start_cluster
from advisor.machine import as_ctrl_c, without_cuda
from advisor.objectives.final_jobs import FinalStopped
from advisor.objectives.network_objective import NetworkObjective
from advisor.objectives.objective import AdvisedRows, FinalRequest, Objective, RunData
from advisor.report.progress import PlainView, view
from advisor.runs.remote import mirrored
from advisor.runs.result import InterruptedReport, RunReport
from advisor.runs.starting import start_of
from advisor.trackers.base import TrackedResult, TrackedRun
from advisor.trackers.tracking import Tracking, trackers_of
from advisor.workflows.modalities import check_trees
from advisor.workflows.options import AdviceKeywords, SearchOptions, takes_advice_keywords
from advisor.workflows.python.run_result import RunResult
from advisor.workflows.status import begin_request, keep_request, remembered, searched_run, stopping

if TYPE_CHECKING:
    from advisor.objectives.trial import Trial
    from advisor.runs.advice import Advice
    from advisor.runs.folder import RunFolder
    from advisor.runs.model import Model
    from advisor.search.events import Listener
    from advisor.workflows.recommend import Source, Target
    from advisor.workflows.search import Deadlines

GPU_SHARE = 0.25
"""Of a GPU for a worker, where nothing else is asked for: one that trains leaves it idle between trainings
and while it validates, and which of them train at once is decided by memory. Four on one do 1.3 to 1.9 times
the trials an hour, eight hardly more (``benchmarks/gpu_packing.py``)."""


@takes_advice_keywords
@as_ctrl_c()
def train(
    data: Source,
    target: Target = None,
    *,
    time_limit: float | None = None,
    with_trees: bool = False,
    out: str | Path | None = None,
    progress: bool = True,
    track: str | Sequence[str] | None = None,
    **options: Unpack[AdviceKeywords],
) -> RunResult:
    """Train the recommendation alone: a model without a search. ``advisor train`` is this.

    data: what ``recommend`` takes, or a run folder or its recommendation.yaml (then without target).
    time_limit: seconds for the training, which then keeps its best epoch so far.
    with_trees: also fit boosted trees on the same splits; where their blend with the networks is better on
        held-out rows, the blend is the model. Tables only.
    out: the run folder, or a URL of object storage (``s3://BUCKET/RUN``); by default ``runs/NAME``.
    progress: whether a bar (in a terminal or a notebook) or a line is written to stderr.
    track: trackers that are told of the run, as ``tune`` has them.
        options: those of ``advisor.recommend``.
    """
    begun = time.monotonic()
    SearchOptions(time_limit=time_limit)
    from advisor.workflows import results, search
    from advisor.workflows.open_run import open_run, write_advice

    trackers = trackers_of(track)
    with view(quiet=not progress) as live, Tracking(trackers, live.note) as tracking:
        advice, run = open_run(data, target, out, options)
        if with_trees:
            check_trees(advice.recommendation.kind)
        with run.in_use(), mirrored(run, live.note), _one_thread():
            train = search.training_rows(advice)
            write_advice(run, advice)
            tracking.begin(TrackedRun.of(run, advice))
            given = AdvisedRows(advice, train, start=start_of(advice))
            report, model = _train_alone(given, live, time_limit, begun, with_trees)
            results.write_results(run, advice, model, report)
            tracking.alone(report)
            tracking.finish(TrackedResult.of(run, report, model))
    return RunResult(run.path, report, model)


def train_in_memory(
    data: Source,
    target: Target,
    time_limit: float | None,
    progress: bool,
    options: Mapping[str, Any],
    *,
    with_trees: bool = False,
) -> tuple[Advice, Model, RunReport]:
    """As ``train``, without a run folder: the advice, the model, and what result.json would hold."""
    begun = time.monotonic()
    SearchOptions(time_limit=time_limit)
    from advisor.workflows.recommend import get_advice, reading_of, with_target
    from advisor.workflows.search import training_rows

    data, target = with_target(data, target)
    with view(quiet=not progress) as live, _one_thread():
        advice = get_advice(data, target, reading_of(options, data))
        given = AdvisedRows(advice, training_rows(advice), start=start_of(advice))
        report, model = _train_alone(given, live, time_limit, begun, with_trees)
    return advice, model, report


def _train_alone(
    given: AdvisedRows, live: PlainView, time_limit: float | None, begun: float, with_trees: bool
) -> tuple[RunReport, Model]:
    from advisor.workflows import final as run_end

    live.phase("train")
    live.loss = given.train.task.loss_name
    return run_end.recommendation_trained(given, begun, live.epoch, time_limit, with_trees=with_trees)


@takes_advice_keywords
@as_ctrl_c()
def tune(
    data: Source,
    target: Target = None,
    *,
    trials: int = 40,
    time_limit: float | None = None,
    executor: str = "ray",
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    trial_time_limit: float | None = None,
    strategy: str = "joint",
    adapt: bool = True,
    objective: str | Callable[[Trial], Any] | None = None,
    working_dir: str | Path | None = None,
    storage: str | None = None,
    with_trees: bool = False,
    out: str | Path | None = None,
    progress: bool = True,
    track: str | Sequence[str] | None = None,
    on_event: Listener | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_phase: Callable[[str], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    begun: float | None = None,
    **options: Unpack[AdviceKeywords],
) -> RunResult:
    """Search around the recommendation, judge the best few again, leave the winner's model.

    trials: how many in all, those of an earlier call on the same run folder included; trial 0
        is the recommendation, trial 1 the library default. With 0, of a run that was
        searched, none is begun: that is ``finish``.
    time_limit: seconds, for the search and the final together.
    executor: ``ray``, or ``in-process`` for debugging.
    address: a Ray cluster to join, HOST:PORT, ray://HOST:PORT or auto.
    workers: how many trials at once.
    gpus_per_worker: the share of a GPU that each worker asks Ray for; 0 trains on CPUs, and None, where Ray
        has GPUs, our networks for images and series on a quarter of one; workers on one GPU train at once
        what fits its memory together, so a small share is the right one.
    trial_time_limit: seconds after which a trial is ended, and its worker replaced when it hangs.
    strategy: ``joint`` searches everything at once, ``staged`` first what makes it learn,
        then what regularizes, then the layers.
    adapt: whether the curves of finished trials may move the ranges of those that follow.
    objective: your own training code in place of our networks, a function of an ``advisor.Trial`` or its
        name, package.module:function; the model is then yours, and the result has none.
    working_dir: the folder to import it from, sent to a cluster's workers.
    storage: the URL of a database to keep the study in, in place of the journal file; a run folder remembers
        it, without its password. with_trees, data, target, out and options are those of ``train``.
    progress: whether a bar (in a terminal or a notebook) or a line per trial is
        written to stderr.
    track: trackers that are told of the run and its trials, ``mlflow:URI``, ``tensorboard:FOLDER`` or
        ``wandb:offline``; one that fails costs a warning and nothing else.
    begun: since when time_limit counts and the run is timed, on time.monotonic's clock; None
        for now. The command line gives the start of its process. on_event, on_phase,
    on_note: told what happens, where we are, and what a user should know at once. Ctrl-C or `advisor stop`
        ends the search cleanly; the same call goes on with it, ``finish`` makes a model of what is there.
        Raises UserError for whatever the user can fix.
    """
    begun = time.monotonic() if begun is None else begun
    searching = SearchOptions(
        trials,
        time_limit,
        trial_time_limit,
        strategy,
        adapt,
        finishing=not trials and searched_run(data) is not None,
    )
    trackers, (objective, working_dir) = trackers_of(track), remembered(data, objective, working_dir)
    tuned = _objective(objective, working_dir)
    if storage is not None:
        from advisor.search.storage.database import check_database

        check_database(storage)  # before the run folder remembers it
    with ExitStack() as stack:
        live = stack.enter_context(view(quiet=not progress))
        on_note, on_phase = _all(live.note, on_note), _all(live.phase, on_phase)
        tracking = stack.enter_context(Tracking(trackers, on_note))
        where = ClusterOptions(executor, address, workers, gpus_per_worker, working_dir)
        cluster = start_cluster(where, tuned.imports)  # imported by each worker while the data are read
        working = stack.enter_context(ExitStack())
        closed = working.enter_context(_closing(cluster))
        from advisor.workflows import search
        from advisor.workflows.open_run import open_run, write_advice

        advice, run = open_run(data, target, out, options)
        for held in (run.in_use(), mirrored(run, on_note), _threads(cluster)):
            stack.enter_context(held)
        fits = _tree_fits(tuned, advice) if with_trees else 0
        if trials and (finished := _finished(run, advice, trials, tuned, with_trees)):
            return finished
        may_span = tuned.spans_gpus and _on_gpus(cluster, where, advice)
        train = search.training_rows(advice, spanning=may_span)
        write_advice(run, advice)
        on_phase("search")
        start, stopped = start_of(advice) if tuned.name is None else None, stopping(run, should_stop)
        runner, given = _runner(cluster, tuned, RunData(advice, train, run, may_span, start=start))
        closed.append(runner)
        request = begin_request(run, trials, tuned.name, working_dir, storage, strategy)
        ends = search.deadlines(begun, time_limit, train, bool(len(advice.data.dataset("test"))), fits)
        plan = search.plan_search(given, request, tuned, ends.final, searching)
        live.loss = tuned.loss_name(train.task)
        tell = _all(live.event, tracking.begin(TrackedRun.of(run, advice)), on_event)
        listen = tuned.watch(given, tell, on_note)
        found = search.run_search(plan, runner, run, request, storage, listen, stopped)
        from advisor.workflows import final as run_end
        from advisor.workflows import results

        interrupted = InterruptedReport(
            setup=results.run_setup(advice, "tune"),
            search=search.search_report(found, advice, request, searching),
            seconds=time.monotonic() - begun,
            time_limit=time_limit,
        )
        if found.interrupted:
            return RunResult(run.path, interrupted, None)
        on_phase("final")
        ask = run_end.final_request(
            *(found, plan, given, runner, ends),
            stopped=stopped,
            on_done=live.final,
            with_trees=with_trees,
        )
        try:
            report, model = _final_of(given, tuned, ask, interrupted, ends)
        except (FinalStopped, KeyboardInterrupt):
            return RunResult(run.path, interrupted, None)
        working.close()  # the workers' end is a part of the run's seconds
        report = results.write_in_time(run, advice, model, report, begun)
        tracking.finish(TrackedResult.of(run, report, model))
        if trials == 0:
            keep_request(
                run, replace(request, trials=len(found.trials))
            )  # that is all that was wanted in the end
        return RunResult(run.path, report, model)


def _all(*functions: Callable[..., None] | None) -> Callable[..., None]:
    """A function that calls them all."""

    def call(*arguments: Any) -> None:
        for function in functions:
            if function is not None:
                function(*arguments)

    return call


@contextmanager
def _closing(cluster: Cluster) -> Iterator[list[Executor]]:
    """Closes the executor that is put into the list, and with it the cluster; else the cluster alone."""
    runners: list[Executor] = []
    try:
        yield runners
    finally:
        for one in runners:
            one.close()
        if not runners:
            cluster.close()


def finish(
    run: str | Path,
    *,
    time_limit: float | None = None,
    executor: str = "ray",
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    objective: str | Callable[[Trial], Any] | None = None,
    working_dir: str | Path | None = None,
    storage: str | None = None,
    with_trees: bool = False,
    progress: bool = True,
    track: str | Sequence[str] | None = None,
    on_event: Listener | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_phase: Callable[[str], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    begun: float | None = None,
) -> RunResult:
    """The final, a model and a report from the trials that a stopped search has
    finished. ``advisor finish`` is this.

    run: the run folder, its recommendation.yaml or its URL.
    time_limit: seconds, for the final.
    objective: only of a search with a function of a program; one with a name is remembered. The others are
        those of ``tune``. The same search can be gone on with later, by ``tune`` with more trials. UserError
        when the run was not searched, or no trial has finished.
    """
    if searched_run(run) is None:
        raise UserError(f"{run} holds no search to finish: start one (`advisor tune`)")
    return tune(
        run,
        trials=0,
        time_limit=time_limit,
        executor=executor,
        address=address,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        objective=objective,
        working_dir=working_dir,
        storage=storage,
        with_trees=with_trees,
        progress=progress,
        track=track,
        on_event=on_event,
        should_stop=should_stop,
        on_phase=on_phase,
        on_note=on_note,
        begun=begun,
    )


def _final_of(
    given: RunData, objective: Objective, request: FinalRequest, searched: InterruptedReport, ends: Deadlines
) -> tuple[RunReport, Model | None]:
    """The report of the run and its model, None where the models are the user's."""
    from advisor.checks import throughput
    from advisor.workflows import final as run_end

    with throughput.one_thread():
        outcome = objective.final(given, request)
        return run_end.search_ended(given, outcome, searched, ends.baselines), outcome.model


def _tree_fits(objective: Objective, advice: Advice) -> int:
    """How many fits of trees the final has. UserError where trees cannot be blended with the models."""
    from advisor.workflows import search

    if objective.name is not None:
        raise UserError(
            "trees are blended with our networks only, not with an objective of your own: "
            "leave out --with-trees"
        )
    check_trees(advice.recommendation.kind)
    return search.fits_of_trees(advice)


def _finished(
    run: RunFolder, advice: Advice, trials: int, objective: Objective, with_trees: bool
) -> RunResult | None:
    """The run when the very search was finished before."""
    if not (run.result.is_file() and objective.is_finished(run) and run.has_search()):
        return None
    from advisor.runs.result import read_result

    report = read_result(run)
    if (report.objective.name if report.objective else None) != objective.name:
        return None
    if with_trees and not report.final.trees:
        return None  # the search is, the final must be held again
    same = report.setup.configuration == dict(advice.recommendation.configuration)
    if report.setup.kind != "tune" or not same or len(report.trials) < trials:
        return None
    return RunResult(run.path, report, objective.model_of(run))


def _on_gpus(cluster: Cluster, where: ClusterOptions, advice: Advice) -> bool:
    """Whether the workers hold GPUs: as asked; unasked those for images and series,
    which rules make wider beside a GPU."""
    if where.gpus_per_worker is not None:
        return cluster.is_remote and where.gpus_per_worker > 0
    from advisor.workflows.modalities import MODALITY_OF

    on_gpus = MODALITY_OF[advice.recommendation.kind].on_gpus
    if not on_gpus or (where.address is None and without_cuda()):
        return False
    return cluster.share_gpus(GPU_SHARE)


def _objective(objective: str | Callable[[Trial], Any] | None, working_dir: str | Path | None) -> Objective:
    """Our networks, or the user's own training code."""
    if objective is None:
        return NetworkObjective()
    from advisor.objectives.custom import find

    return find(objective, working_dir)


def _threads(cluster: Cluster) -> AbstractContextManager[None]:
    """One, where trials run in this process."""
    return nullcontext() if cluster.is_remote else _one_thread()


def _one_thread() -> AbstractContextManager[None]:
    """For trials in this process."""
    from advisor.checks.throughput import one_thread

    return one_thread()


def _runner(cluster: Cluster, objective: Objective, given: RunData) -> tuple[Executor, RunData]:
    """What runs the jobs. given: ``spanning`` says whether trials may span GPUs, and in what is returned
    whether they do, as the recommendation does."""
    if objective.name is not None and given.judge is not None:
        raise UserError("an objective of your own returns what decides: leave out --metric and --cost")
    processes = objective.processes(given)
    recommendation = given.advice.recommendation
    if processes > 1 and not given.spanning and recommendation.provenance["gpus_per_trial"].yours:
        raise UserError(
            f"gpus_per_trial {processes} needs workers with GPUs: give --gpus-per-worker 1 as well"
        )
    spanning = processes > 1 and given.spanning
    if spanning:
        from advisor.objectives.multi_gpu import PER_PROCESS

        cluster.span(processes, PER_PROCESS)
    given = replace(given, spanning=spanning)
    factory, shared = objective.worker(given, processes if spanning else 1)
    with objective.sent() if cluster.is_remote else nullcontext():
        return cluster.executor(factory, shared), given
