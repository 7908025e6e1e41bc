"""A small convolutional network of one's own on images, trained batch by batch;
sequences go the same way with nn.Conv1d.

advisor tune sklearn:digits --kind image --target target --working-dir examples
--objective image_network:objective
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import advisor

BATCH = 256


def network(channels: int, outputs: int, trial: advisor.Trial) -> nn.Sequential:
    c = trial.configuration
    layers: list[nn.Module] = []
    for stage in range(c["stages"]):
        width = round(c["width"] * c["growth"] ** stage)
        convolution = nn.Conv2d(channels, width, c["kernel"], padding="same", bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(c["dropout"]), nn.Linear(channels, outputs)
    )


def objective(trial: advisor.Trial) -> advisor.TrialResult:
    c = trial.configuration
    torch.manual_seed(trial.seed)
    net = network(trial.inputs(trial.train[:1]).shape[1], len(trial.classes), trial).to(trial.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=c["learning_rate"], weight_decay=c["weight_decay"])

    def predict(rows: advisor.ArrayRows) -> np.ndarray:
        net.eval()
        parts = []
        with torch.no_grad():
            for start in range(0, len(rows), BATCH):
                x = torch.from_numpy(trial.inputs(rows[start : start + BATCH])).to(trial.device)
                parts.append(net(x).softmax(1).cpu())
        return torch.cat(parts).numpy()

    best, weights = float("inf"), net.state_dict()
    for epoch in range(1, c["epochs"] + 1):
        net.train()
        for batch in torch.randperm(len(trial.train)).split(c["batch_size"]):
            rows = trial.train[batch.numpy()]  # read now: the set may be larger than memory
            x, y = torch.from_numpy(trial.inputs(rows)), torch.from_numpy(trial.targets(rows))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x.to(trial.device)), y.to(trial.device)).backward()
            optimizer.step()
        scores, targets = predict(trial.validation), trial.targets(trial.validation)
        loss = float(-np.log(np.maximum(scores[np.arange(len(targets)), targets], 1e-12)).mean())
        if loss < best:
            best, weights = loss, {name: value.clone() for name, value in net.state_dict().items()}
        trial.report(epoch, loss)  # the trial may end here
    net.load_state_dict(weights)
    torch.save(weights, trial.folder / "weights.pt")  # the winner's stays in RUN/winner
    return advisor.TrialResult(best, scores=predict(trial.validation), predict=predict)
