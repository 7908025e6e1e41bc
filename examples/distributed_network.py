"""One trial on several GPUs or machines: DistributedDataParallel through Ray
Train, pruned like any other trial.

    pip install 'ray[train]'
    advisor tune data.csv --target y --address HEAD:6379 --workers 1 --fixed validation=holdout \
      --working-dir examples --objective distributed_network:objective

``--workers`` trials run at once. Each holds a core for itself and asks Ray for PROCESSES processes more,
with a GPU each where the cluster has some; without --fixed validation=holdout the folds of a small table
would do so all at once. Ray Train takes some 20 s to start a trial's processes: for trials of minutes. On two
cores, to see it work: CORES_PER_PROCESS=0.5.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train import torch as train_torch
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue
from torch import nn

import advisor

PROCESSES = int(os.environ.get("PROCESSES", "2"))
READ = ("hidden_layers", "width", "learning_rate", "weight_decay", "epochs", "batch_size")
CORES = float(os.environ.get("CORES_PER_PROCESS", "1"))


def network(inputs: int, outputs: int, c: dict[str, Any]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(c["hidden_layers"]):
        layers += [nn.Linear(inputs, c["width"]), nn.ReLU()]
        inputs = c["width"]
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def train(config: dict[str, Any]) -> None:
    """What each process runs. The first one tells the loss of an epoch and hears whether to go on."""
    c, device = config["configuration"], train_torch.get_device()
    x, y, x_held, y_held = (torch.from_numpy(np.array(part)).to(device) for part in ray.get(config["rows"]))
    rank, world = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    torch.manual_seed(
        config["seed"]
    )  # the same in all: they begin with the same weights, and draw the same batches
    net = train_torch.prepare_model(network(x.shape[1], config["outputs"], c))
    optimizer = torch.optim.AdamW(net.parameters(), lr=c["learning_rate"], weight_decay=c["weight_decay"])
    for epoch in range(1, c["epochs"] + 1):
        net.train()
        for batch in torch.randperm(len(x)).split(max(world, c["batch_size"])):
            own = batch[rank::world].to(device)
            optimizer.zero_grad()
            # A sum over the batch's length: what the processes average is then
            # the gradient of the whole batch.
            loss = nn.functional.cross_entropy(net(x[own]), y[own], reduction="sum") * world / len(batch)
            loss.backward()
            optimizer.step()
        go_on = torch.ones(1, device=device)
        if rank == 0:
            plain = net.module if hasattr(net, "module") else net
            plain.eval()
            with torch.no_grad():
                held = nn.functional.cross_entropy(plain(x_held), y_held).item()
            config["said"].put(
                (epoch, held, {name: tensor.cpu() for name, tensor in plain.state_dict().items()})
            )
            go_on[0] = config["heard"].get()
        if world > 1:
            torch.distributed.broadcast(go_on, 0)
        if not go_on.item():
            return


def objective(trial: advisor.Trial) -> advisor.TrialResult:
    ray.cloudpickle.register_pickle_by_value(
        sys.modules[__name__]
    )  # Ray Train's processes need not find this file
    c = {name: trial.configuration[name] for name in READ}
    parts = [(trial.inputs(rows), trial.targets(rows)) for rows in (trial.train, trial.validation)]
    said, heard = Queue(actor_options={"num_cpus": 0}), Queue(actor_options={"num_cpus": 0})
    trainer = TorchTrainer(
        train,
        train_loop_config={
            "configuration": c,
            "seed": trial.seed,
            "outputs": len(trial.classes),
            "rows": ray.put([array for part in parts for array in part]),
            "said": said,
            "heard": heard,
        },
        scaling_config=ScalingConfig(
            num_workers=PROCESSES,
            use_gpu=ray.cluster_resources().get("GPU", 0) > 0,
            resources_per_worker={"CPU": CORES},
        ),
        run_config=RunConfig(storage_path=str(trial.folder)),
    )
    best, weights = float("inf"), {}
    with ThreadPoolExecutor(1) as pool:
        fitted = pool.submit(trainer.fit)
        fitted.add_done_callback(lambda _: said.put(None))
        try:
            while (news := said.get()) is not None:
                epoch, loss, state = news
                if loss < best:
                    best, weights = loss, state
                trial.report(epoch, loss)  # the trial may end here
                heard.put(1.0)
        finally:
            heard.put(0.0)  # the processes end after their epoch, and the pool waits for that
    fitted.result()  # raises what went wrong in them
    net = network(parts[0][0].shape[1], len(trial.classes), c)
    net.load_state_dict(weights)

    def predict(rows: pl.DataFrame) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(net(torch.from_numpy(trial.inputs(rows))).softmax(1).numpy())

    return advisor.TrialResult(best, scores=predict(trial.validation), predict=predict)
