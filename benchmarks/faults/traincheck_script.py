"""One program of the benchmark as a script, which TrainCheck rewrites and traces (``judge_traincheck.py`` starts it).

SUBJECT: its kind and its name. FAULTS: this folder; TrainCheck runs a copy in another.
"""

import os
import sys

sys.path.insert(0, os.environ["FAULTS"])

import pairs_network  # noqa: F401
import pairs_output  # noqa: F401
import pairs_setup  # noqa: F401
import torch
from healthy import HEALTHY
from program import CASES, usual_step

torch.set_num_threads(1)
STEPS = 10

kind, name = os.environ["SUBJECT"].split(":")
if kind == "healthy":
    program = HEALTHY[name]()
else:
    program = next(case for case in CASES if case.name == name).make(kind == "fixed")
held = {id(p): n for n, p in program.module.named_parameters()}
model = program.module
# TrainCheck's proxies stand in the parameters' place from here on: as for an optimizer that is made afterwards
named = dict(model.named_parameters())
optimizer, loss, step = program.optimizer, program.loss, program.step or usual_step
for group in optimizer.param_groups:
    group["params"] = [named[held[id(p)]] if id(p) in held else p for p in group["params"]]
x, y, size = program.data.x, program.data.y, program.batch_size
order = torch.Generator().manual_seed(0)
drawn = []
while len(drawn) < STEPS:
    drawn += [
        rows for rows in torch.randperm(len(x), generator=order).split(size) if len(rows) == min(size, len(x))
    ]
train_batches = drawn[:STEPS]
for rows in train_batches:
    step(model, optimizer, loss, x[rows], y[rows])
