"""Executors by name: options checked once, and one more executor is a factory and a row of the table."""

import sys
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from test_signal_runs import pictures

import advisor
from advisor.errors import UserError
from advisor.executors import clusters
from advisor.executors.clusters import ClusterOptions, InProcessCluster, start_cluster


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"executor": "rai"}, r"unknown executor 'rai' \(did you mean 'ray'\?\): choose ray or in-process"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"gpus_per_worker": -0.5}, r"gpus_per_worker must be 0 or more, not -0\.5"),
        ({"gpus_per_worker": float("nan")}, "gpus_per_worker must be 0 or more, not nan"),
    ],
)
def test_impossible_options_are_refused_where_they_are_made(options, says):
    with pytest.raises(UserError, match=says):
        ClusterOptions(**options)


@pytest.mark.parametrize("options", [{"workers": 2}, {"address": "auto"}])
def test_one_process_has_no_workers_and_joins_nobody(options):
    with pytest.raises(UserError, match="leave out --address and --workers"):
        start_cluster(ClusterOptions("in-process", **options), [])


def test_one_process_holds_no_more_than_itself():
    cluster = start_cluster(ClusterOptions("in-process"), [])
    assert not cluster.is_remote and not cluster.share_gpus(0.25)
    with pytest.raises(UserError, match="no room for 2"):
        cluster.span(2, {"GPU": 1})
    cluster.close()
    cluster.close()


def named(monkeypatch, cluster):
    """The class as the executor of the name "mine"."""
    module = ModuleType("my_cluster")
    module.Mine = cluster
    monkeypatch.setitem(sys.modules, "my_cluster", module)
    monkeypatch.setitem(clusters.EXECUTORS, "mine", "my_cluster:Mine")


def test_a_new_executor_is_a_factory_and_a_row_of_the_table(tmp_path, monkeypatch):
    """`tune` runs on it, closes it, and names it nowhere."""
    seen = []

    class Mine(InProcessCluster):
        def __init__(self, options, imports):
            super().__init__(options, imports)
            seen.append((options.executor, *imports))

        def executor(self, factory, shared):
            seen.append("executor")
            return super().executor(factory, shared)

    named(monkeypatch, Mine)
    rows = pl.DataFrame({"x": [i / 60 for i in range(60)], "y": ["a", "b"] * 30})
    result = advisor.tune(
        rows, "y", trials=2, executor="mine", out=tmp_path / "run", progress=False, fixed={"epochs": 2}
    )
    assert len(result.document["search"]["trials"]) == 2
    assert seen == [("mine", "advisor.training.loop"), "executor"]


def test_unasked_images_share_the_gpus_of_a_cluster_and_a_table_leaves_them_alone(tmp_path, monkeypatch):
    seen = []

    class Mine(InProcessCluster):
        def __init__(self, options, imports):
            super().__init__(ClusterOptions(options.executor), imports)

        def share_gpus(self, share):
            seen.append(share)
            return False

    named(monkeypatch, Mine)
    images, labels = pictures(48)
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    small = {"fixed": {"epochs": 1}, "trials": 1, "progress": False, "executor": "mine", "address": "there:1"}
    advisor.tune("sklearn:wine", "target", out=tmp_path / "table", **small)
    assert seen == []
    advisor.tune(tmp_path / "images.npz", out=tmp_path / "images", **small)
    assert seen == [0.25]
