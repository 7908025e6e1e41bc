"""What training begins with, beside chance: weights of a network of timm, or those of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.errors import UserError, shown
from advisor.networks.pretrained.names import PREFIX, SCRATCH, backbone_name, needs_weights
from advisor.runs.advice import AdviceOptions
from advisor.spaces.parameter import shown_value
from advisor.spaces.space import Space

if TYPE_CHECKING:
    from advisor.data.modalities import AnyData
    from advisor.dataset import Dataset
    from advisor.networks.pretrained.start import InputLabels, Start
    from advisor.runs.advice import Advice
    from advisor.runs.model import Model

TAKEN_TOPICS = ("architecture", "inputs")
"""Parameters of these topics decide which weights a network has, and what they mean."""
OF_MACHINES = ("precision", "memory_format", "compiled")
"""But these follow from the machine."""
FEW_ROWS = 64
"""So many rows show whether the weights fit."""


@dataclass(frozen=True)
class EarlierRun:
    """A finished run, whose weights another one begins with. path: as the user gave it."""

    path: str
    model: Model

    @property
    def reason(self) -> str:
        """Why a parameter has the value that it has."""
        return f"Taken from the earlier run {self.path}, whose weights training begins with."

    def architecture(self, space: Space, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """The values that the weights ask for. UserError where the user fixed another one."""
        configuration = self.model.stacks[0].configuration
        taken = {
            name: value
            for name, value in configuration.items()
            if name in space.parameters
            and space[name].topic in TAKEN_TOPICS
            and name not in OF_MACHINES
            and space[name].problem(value) is None
        }
        for name in sorted(taken.keys() & fixed.keys()):
            if taken[name] != fixed[name]:
                raise UserError(
                    f"--from {self.path}: its {name} is {shown_value(taken[name])}, and "
                    f"{shown_value(fixed[name])} was fixed, which its weights do not fit: leave one out"
                )
        return taken

    def start(self, data: AnyData) -> Start:
        """Its weights for other rows."""
        from advisor.networks.pretrained.start import Start

        stack, schema = self.model.stacks[0], self.model.schema
        same = stack.task.name == data.schema.task and schema.classes == data.schema.classes
        weights: Any = getattr(stack.preprocessors[0], "weights", {})
        return Start(
            f"the earlier run {self.path}",
            backbone={name: _tensor(array) for name, array in weights.items()},
            state=stack.state,
            labels=self._labels(),
            same_outputs=same,
        )

    def _labels(self) -> tuple[InputLabels, ...]:
        """What each member's inputs stand for, of tables."""
        from advisor.data.modalities import READ_MODALITIES
        from advisor.training.modalities import inputs_of

        stack, schema = self.model.stacks[0], self.model.schema
        nobody = READ_MODALITIES[schema.kind].no_rows(schema)
        if nobody is None:
            return ()
        inputs = inputs_of(schema.kind, stack.configuration)
        prepared = inputs.of_new_rows(stack.preprocessors, stack.shape, nobody, "cpu")
        found = [prepared.labels(nobody, split) for split in stack.member_split]
        return tuple(labels for labels in found if labels is not None)


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def earlier_run(options: AdviceOptions, data: AnyData) -> EarlierRun | None:
    """The earlier run that the user named; None without one. UserError where its weights cannot be used."""
    if options.from_run is None:
        return None
    from advisor.runs.folder import RunFolder
    from advisor.runs.model import load_model
    from advisor.runs.remote import local_copy

    path = shown(options.from_run, 200)
    if options.weights is not None:
        raise UserError("--from and --weights both say what training begins with: leave one of them out")
    folder = Path(local_copy(options.from_run))
    if not folder.exists():
        raise UserError(f"--from {path}: there is no such run folder")
    model = load_model(folder)
    if model.schema.kind != data.schema.kind:
        raise UserError(
            f"--from {path}: that run learned from {model.schema.kind}s, and these are {data.schema.kind}s"
        )
    run = RunFolder(folder)
    if run.facts.is_file() and run.identity().fingerprint == data.fingerprint:
        raise UserError(
            f"--from {path}: that run was trained on these very rows, so their validation would be worth "
            "nothing: give rows that it has not seen"
        )
    return EarlierRun(path, model)


def start_facts(options: AdviceOptions, space: Space, taken: Mapping[str, Any]) -> dict[str, Any]:
    """What rules may know of it. taken: values of an earlier run. UserError for a network that timm does not
    have, and for weights that do not fit it."""
    fixed = {**taken, **options.fixed}
    network = space.parameters.get("network")
    if network is not None and "network" in fixed:
        network.check(fixed["network"])
    name = backbone_name(fixed) if network is not None and network.prefix else None
    if name is None and options.weights is not None:
        raise UserError(
            f"--weights is for a network of timm: give --fixed network={PREFIX}NAME too, or leave it out"
        )
    facts: dict[str, Any] = {"has_earlier_run": options.from_run is not None}
    if name is None:
        return facts
    from advisor.networks.pretrained.timm_models import backbone_info, backbone_size

    info = backbone_info(name)
    size = backbone_size(name, int(fixed.get("backbone_side", info.side)))
    if options.weights is not None:
        if fixed.get("backbone_training") == SCRATCH:
            raise UserError("--weights are not used with backbone_training=scratch: leave one of them out")
        from advisor.networks.pretrained.weights import pretrained

        # that they do not fit is better said before anything is trained
        pretrained(name, options.weights)
    return facts | {
        "has_backbone": True,
        "backbone.parameters": size.parameters,
        "backbone.products": size.products,
        "backbone.side": info.side,
    }


def start_of(advice: Advice) -> Start | None:
    """The weights that the training of a recommendation begins with; None: they are drawn.

    UserError where weights are needed and there are none, and where those of an earlier run do not fit.
    """
    earlier = earlier_run(advice.reading, advice.data)
    if earlier is not None:
        start = earlier.start(advice.data)
        _check(start, advice.recommendation.configuration, advice.training_rows(), earlier)
        return start
    configuration: Mapping[str, Any] = advice.recommendation.configuration
    name = backbone_name(configuration)
    if name is None or not (needs_weights(configuration) or _searches_them(advice)):
        return None
    from advisor.networks.pretrained.weights import pretrained

    return pretrained(name, advice.reading.weights)


def _searches_them(advice: Advice) -> bool:
    """Whether some trial may begin with trained weights."""
    return "backbone_training" in advice.recommendation.space.searched


def _check(start: Start, configuration: Mapping[str, Any], train: Dataset, earlier: EarlierRun) -> None:
    """UserError unless the network for these rows is the earlier run's, but for its inputs and outputs."""
    import numpy as np
    import torch

    from advisor.splits import everything
    from advisor.training.loop import network_of
    from advisor.training.modalities import prepare

    few = train.part(np.arange(min(len(train), FEW_ROWS)))
    prepared = prepare(configuration, few, [everything(few)], start=start)
    bins = prepared.bins(configuration, 1)
    network = network_of(prepared.shape, configuration, train.outputs, 1, torch.Generator(), bins)
    labels = prepared.labels(few.features, 0)
    if labels is not None and not _shared(labels, start.labels[0]):
        raise UserError(f"--from {earlier.path}: that run shares no column with these data")
    if differs := network.unlike(start):
        raise UserError(f"--from {earlier.path}: its network does not fit these data: {differs}")


def _shared(one: InputLabels, other: InputLabels) -> bool:
    known = {*other.numeric, *other.indicators, *other.embedded}
    return any(label in known for label in (*one.numeric, *one.indicators, *one.embedded))
