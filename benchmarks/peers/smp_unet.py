"""The contestant of ``membranes.py``: segmentation-models-pytorch's U-Net as its documentation trains it, but
without weights that were trained elsewhere. Runs in an environment of its own, without the advisor.

    python smp_unet.py ROWS.npz OUT.npz SEED EPOCHS

ROWS.npz: X_train, Y_train, X_test (rows, height, width). OUT.npz: the predicted masks of X_test, and seconds
of the processor. What its examples say (examples/binary_segmentation_intro_cpu.py of qubvel-org): U-Net with
a resnet34, pixels / 255, Dice loss of the logits, Adam at 2e-4 with cosine annealing to 1e-5 over all steps,
batches of 8. EPOCHS: 10 there; its example of several classes (camvid) says 50.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

# the registry's torchvision has its own operators for CUDA alone: beside a torch for CPUs they are not there,
# and its import asks for them although a U-Net needs none
absent = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        absent.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import segmentation_models_pytorch as smp  # noqa: E402

BATCH, RATE, LEAST_RATE = 8, 2e-4, 1e-5


def main(rows: str, out: str, seed: int, epochs: int) -> None:
    torch.manual_seed(seed)
    with np.load(rows) as archive:
        x, y, new = (
            torch.from_numpy(archive[name].astype(np.float32)) for name in ("X_train", "Y_train", "X_test")
        )
    x, new, y = x.unsqueeze(1) / 255, new.unsqueeze(1) / 255, y.unsqueeze(1)
    begun = time.process_time()
    model = smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=1)
    loss_of = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    steps = -(-len(x) // BATCH) * epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=LEAST_RATE)
    model.train()
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(x)), BATCH):
            optimizer.zero_grad()
            loss = loss_of(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"{time.process_time() - begun:.0f} s {loss.item():.3f}", flush=True)
    seconds = time.process_time() - begun
    model.eval()
    with torch.no_grad():
        masks = torch.cat([model(one) > 0 for one in torch.split(new, 1)])[:, 0]
    np.savez(out, masks=masks.numpy().astype(np.uint8), processor=seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
