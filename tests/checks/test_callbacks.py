"""The callbacks, in the frameworks' own loops: faults are named, sound trainings hear nothing."""

import contextlib
import importlib
import sys
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import advisor
from advisor.errors import UserError

X = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


def with_operators_of_torchvision():
    """PyPI's torchvision is built for CUDA. Beside a PyTorch for CPUs it lacks its operators, and Lightning,
    which imports it where it is installed, fails of that: the two that it names have to be declared."""
    with contextlib.suppress(ImportError):
        try:
            importlib.import_module("torchvision")
        except RuntimeError:
            for name in ("nms", "qnms"):
                torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float most) -> Tensor")


@pytest.fixture(scope="module")
def fitted():
    """What is found in a training by Lightning, which takes seconds to be imported."""
    with_operators_of_torchvision()
    lightning = pytest.importorskip(
        "lightning.pytorch", reason="Lightning is not installed: pip install -e '.[dev]'"
    )

    class Task(lightning.LightningModule):
        """Calls a part in its training step, or itself. fault: what is wrong with it."""

        def __init__(self, way, fault=""):
            super().__init__()
            end = [nn.Softmax(dim=1)] if fault == "softmax" else []
            self.net = nn.Sequential(
                nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3), *end
            )
            self.parts = nn.ModuleList([self.net[:2], self.net[2:]])
            self.way, self.fault = way, fault

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, number):
            x, y = batch
            if self.fault == "eval":
                self.eval()
            if self.way == "itself":
                out = self(x)
            else:
                out = self.net(x) if self.way == "a part" else self.parts[1](self.parts[0](x))
            if self.fault == "cut":
                out = out.detach() + self.net[3].bias
            return F.cross_entropy(out, y)

        def validation_step(self, batch, number):
            self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            rate = 1e-12 if self.fault == "slow" else 0.1
            other = nn.Linear(2, 2) if self.fault == "other" else self
            return torch.optim.SGD(other.parameters(), lr=rate)

    def fitted(way, fault="", epochs=2):
        torch.manual_seed(0)
        callback = advisor.lightning_callback(tell=lambda finding: None)
        trainer = lightning.Trainer(
            max_epochs=epochs, callbacks=[callback], accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0,
        )  # fmt: skip
        rows = TensorDataset(X, Y)
        trainer.fit(Task(way, fault), DataLoader(rows, 32, shuffle=True), DataLoader(rows, 32))
        return {finding.code for finding in callback.watched.findings}

    return fitted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["itself", "a part", "several parts"])
def test_lightning(way, fitted):
    with torch.random.fork_rng():
        backward = torch.Tensor.backward
        assert fitted(way) == set()
        assert "softmax-before-cross-entropy" in fitted(way, "softmax", epochs=1)
        assert torch.Tensor.backward is backward


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("fault", "code"),
    [("eval", "evaluation-mode"), ("cut", "gradient-cut"), ("slow", "updates-too-small"), ("other", "optimizer-holds-nothing")],
)  # fmt: skip
def test_lightning_faults_of_parts_that_the_step_calls(fault, code, fitted):
    with torch.random.fork_rng():
        assert code in fitted("a part", fault)


@pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed: pip install -e '.[dev]'")
@pytest.mark.parametrize(
    ("rate", "codes"), [(0.1, {None}), (1e-12, {"updates-too-small"}), (1e30, {"loss-not-finite", "updates-too-large"})]
)  # fmt: skip
def test_keras_on_torch(rate, codes, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")  # is read when Keras is imported
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(32, activation="relu"), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(rate), loss=loss)
    callback, backward = advisor.keras_callback(tell=lambda finding: None), torch.Tensor.backward
    model.fit(
        X.numpy(), Y.numpy(), batch_size=32, epochs=3, validation_split=1 / 3, verbose=0, callbacks=[callback]
    )
    assert torch.Tensor.backward is backward and callback.watched.steps == 6
    found = {finding.code for finding in callback.watched.findings}
    assert found & codes or (None in codes and not found)


@pytest.mark.parametrize(
    ("name", "missing"), [("lightning_callback", ("lightning.pytorch", "pytorch_lightning")), ("keras_callback", ("keras",))]
)  # fmt: skip
def test_without_the_framework_it_is_one_line(name, missing, monkeypatch):
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match="pip install"):
        getattr(advisor, name)()
