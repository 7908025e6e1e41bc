"""Callbacks that hand the steps of a framework's own loop to a ``Watch``: for Lightning, and Keras on torch.

A framework is imported where its callback is made, and nowhere else. A plain PyTorch loop needs none:
``with advisor.watch(model, optimizer):`` around it.
"""

from __future__ import annotations

import math
from typing import Any

from advisor.checks.watching import Watch, watch
from advisor.errors import UserError


def lightning_callback(**options: Any) -> Any:
    """A callback for Lightning's ``Trainer`` that watches its first optimizer; ``watched`` holds the Watch.

    The network may be the LightningModule itself or parts that its ``training_step`` calls. A value that is
    logged as ``val_loss`` tells whether validation and training go apart.
    options: as ``watch`` takes them. UserError without Lightning.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            raise UserError("lightning_callback needs Lightning: pip install lightning") from None

    class WatchedTraining(Callback):  # type: ignore[misc]
        """Hands the loop's events to a Watch."""

        watched: Watch | None = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.watched = watch(pl_module, trainer.optimizers[0], **options).__enter__()

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            value = trainer.callback_metrics.get("val_loss")
            if self.watched is not None and value is not None:
                self.watched.validation(float(value))

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if self.watched is not None:
                self.watched.__exit__()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            self.on_train_end(trainer, pl_module)

    return WatchedTraining()


def keras_callback(**options: Any) -> Any:
    """A callback for ``fit`` of Keras on torch; ``watched`` holds the Watch.

    Keras calls its layers and takes its steps by itself: the loss, the updates of weights and the validation
    loss are judged, operations and gradients are not seen.
    options: as ``watch`` takes them. UserError without Keras, or where it runs on another backend.
    """
    try:
        import keras
    except ImportError:
        raise UserError("keras_callback needs Keras: pip install keras") from None
    if keras.backend.backend() != "torch":
        raise UserError(
            f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=torch before it is imported"
        )

    class WatchedFit(keras.callbacks.Callback):  # type: ignore[misc]
        """Hands the events of fit to a Watch."""

        watched: Watch | None = None

        def on_train_begin(self, logs: Any = None) -> None:
            self.watched = watch(self.model, None, **options).__enter__()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.watched is not None:
                self.watched.after_step(float((logs or {}).get("loss", math.nan)))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if self.watched is not None and "val_loss" in (logs or {}):
                self.watched.validation(float((logs or {})["val_loss"]))

        def on_train_end(self, logs: Any = None) -> None:
            if self.watched is not None:
                self.watched.__exit__()

    return WatchedFit()
