"""A plain PyTorch loop as an objective: pruned between epochs, resumed from its
checkpoint, confirmed on fresh splits.

advisor tune sklearn:breast_cancer --target target --trials 20 --working-dir
examples --objective torch_loop:objective
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import nn

import advisor

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


def network(inputs: int, outputs: int, trial: advisor.Trial) -> nn.Sequential:
    c = trial.configuration
    layers: list[nn.Module] = []
    for _ in range(c["hidden_layers"]):
        layers += [
            nn.Linear(inputs, c["width"]),
            ACTIVATIONS.get(c["activation"], nn.ReLU)(),
            nn.Dropout(c["dropout"]),
        ]
        inputs = c["width"]
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def objective(trial: advisor.Trial) -> advisor.TrialResult:
    c = trial.configuration
    torch.manual_seed(trial.seed)
    x, y = torch.from_numpy(trial.inputs(trial.train)), torch.from_numpy(trial.targets(trial.train))
    x_held, y_held = (
        torch.from_numpy(trial.inputs(trial.validation)),
        torch.from_numpy(trial.targets(trial.validation)),
    )
    net = network(x.shape[1], len(trial.classes), trial)
    optimizer = torch.optim.AdamW(net.parameters(), lr=c["learning_rate"], weight_decay=c["weight_decay"])
    state = trial.folder / "state.pt"
    first, best, weights = 1, float("inf"), net.state_dict()
    if state.exists():  # a worker died, or the search was interrupted: go on from the last epoch
        saved = torch.load(state, weights_only=True)
        first, best, weights = saved["epoch"] + 1, saved["best"], saved["weights"]
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
    for epoch in range(first, c["epochs"] + 1):
        net.train()
        for batch in torch.randperm(len(x)).split(c["batch_size"]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            loss = nn.functional.cross_entropy(net(x_held), y_held).item()
        if loss < best:
            best, weights = loss, {name: value.clone() for name, value in net.state_dict().items()}
        torch.save(
            {
                "epoch": epoch,
                "best": best,
                "weights": weights,
                "net": net.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            state,
        )
        trial.report(epoch, loss)  # the trial may end here
    net.load_state_dict(weights)

    def predict(rows: pl.DataFrame) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(trial.inputs(rows))).softmax(1).numpy()

    return advisor.TrialResult(best, scores=predict(trial.validation), predict=predict)
