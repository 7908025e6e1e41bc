"""What a network does on one batch, watched from outside: each operation, where it
stands, what it makes, what feeds it.

Operations are seen as PyTorch dispatches them (a function mode), so functions count as modules do: ``F.relu``
in a forward is an activation like ``nn.ReLU``. Hooks name the module that an operation stands in. Nothing
stays behind: hooks, training mode, buffers, gradients and random state are as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

OperationKind = Literal[
    "linear",
    "convolution",
    "norm",
    "activation",
    "pooling",
    "whole",
    "add",
    "dropout",
    "softmax",
    "embedding",
    "other",
]
"""What an operation is. whole: each number of its output may depend on every position
(attention, recurrence, global pooling). pooling: with windows. add: of two results; other: what
changes neither (views, products, ...)."""

LINEAR = {"linear", "baddbmm", "addmm", "bilinear"}
PRODUCTS = {"matmul", "bmm", "mm", "einsum", "__matmul__", "__rmatmul__"}
NORMS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"}
ACTIVATIONS = {
    *("relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "mish", "selu", "elu", "celu", "hardtanh"),
    *("relu6", "hardswish", "hardsigmoid", "softplus", "prelu", "rrelu", "threshold", "softsign"),
    "logsigmoid",
}
SOFTMAX = {"softmax", "log_softmax", "_softmax", "_log_softmax"}
DROPOUT = {
    *("dropout", "dropout1d", "dropout2d", "dropout3d"),
    *("alpha_dropout", "feature_alpha_dropout", "feature_dropout"),
}
ATTENTION = {"multi_head_attention_forward", "scaled_dot_product_attention"}
WHOLE = {"gru", "lstm", "rnn_tanh", "rnn_relu", *ATTENTION}
KINDS: tuple[tuple[OperationKind, set[str]], ...] = (
    *(("norm", NORMS), ("activation", ACTIVATIONS), ("softmax", SOFTMAX)),
    *(("dropout", DROPOUT), ("whole", WHOLE)),
)
ADDITIONS = {"add", "__add__", "__iadd__", "__radd__"}
LOSSES = {
    *("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"),
    *("l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "gaussian_nll_loss", "poisson_nll_loss"),
    *("multi_margin_loss", "multilabel_soft_margin_loss", "ctc_loss"),
}
TURNS = {"transpose", "permute", "movedim", "mT", "t"}
REDUCTIONS = {"mean", "sum", "amax", "max", "logsumexp", "amin"}
SATURATED = {"tanh": (-0.99, 0.99), "sigmoid": (0.01, 0.99)}
"""Outputs beyond these are where the function is flat: less than 2 % (tanh) or 4
% (sigmoid) of its steepest slope."""
DEAD = 1e-7
"""A unit is dead when no row gets more than this share of the layer's largest output
out of it: zero but for rounding."""

DEAD_SHARE, SATURATED_SHARE = 0.5, 0.5
"""Shares of a layer from which on they are a finding: at the start about half of the units of a sound network
are off on half of the rows, and a few on all (He et al. 2015); more than half on every row leave too few."""
FEWEST_POINTS = 16
"""Rows times positions that a unit must have seen before it is called dead."""
FEWEST_UNITS = 16
"""A layer of fewer (the narrow middle of squeeze-and-excitation) may begin with most of
them at zero and be none the worse."""
FLOW = 1e3
"""Times that the gradient may grow or shrink between the first and the last hidden layer; float32 with Adam
bears more, but then one learning rate cannot fit all layers."""


@dataclass(eq=False)
class TraceStep:
    """One operation.

    number: its place in the order of the pass.
    module: the innermost module that it stands in, by dotted name.
    sources: the numbers of the steps whose results it reads; -1 is the network's input.
    parameter: the name of its weight. kernel,
    stride, dilation: per axis, of convolutions and pooling windows.
    unit_axis: the axis of ``shape`` that counts units or channels, None where views have mixed it up.
    mean, deviation, root_mean_square: of all its numbers. row_deviation: of one number over the rows, on
    average.
    dead: the share of its units that are zero on every row;
    saturated: the share of its numbers on the flat parts; both for activations.
    gradient: the Euclidean norm of the loss's gradient by its result, None without a loss.
    """

    number: int
    kind: OperationKind
    function: str
    module: str
    sources: tuple[int, ...]
    shape: tuple[int, ...]
    parameter: str = ""
    bias: bool = False
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    unit_axis: int | None = None
    probability: float = 0.0
    negative_slope: float = 0.0
    mean: float = 0.0
    deviation: float = 0.0
    root_mean_square: float = 0.0
    row_deviation: float = 0.0
    dead: float | None = None
    saturated: float | None = None
    gradient: float | None = None


@dataclass(frozen=True, eq=False)
class LossCall:
    """The first of PyTorch's losses that was called. step: the one that made its input, -1 when none did.
    options: what else it was given by name."""

    name: str
    input: Tensor
    target: Tensor | None
    step: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Stranger:
    """A tensor that works as a weight and that the module does not know: no Parameter and no buffer of it.

    learns: whether it asks for a gradient, as a Parameter of a layer that is not registered does.
    weight: the tensor itself, so that a second pass can tell whether it is the same.
    """

    function: str
    module: str
    shape: tuple[int, ...]
    learns: bool
    weight: Tensor = field(repr=False)


@dataclass(frozen=True, eq=False)
class Trace:
    """One pass.
    gradients: the norm of the loss's gradient by each parameter, None for one that the loss does not reach.

    inputs: what each custom module was given, by its name.
    last: the step that made the output, -1 when none did.
    loss_steps: what the loss did, numbered on from ``steps``.
    squared: the shape of the square that the loss made of a column of the output and a row of the target (or
    the other way round); () where it made none.
    """

    steps: tuple[TraceStep, ...]
    output: Any
    last: int
    loss: float | None
    gradients: Mapping[str, float | None]
    inputs: Mapping[str, tuple[Any, ...]] = field(repr=False)
    loss_steps: tuple[TraceStep, ...] = ()
    loss_call: LossCall | None = None
    strangers: tuple[Stranger, ...] = ()
    squared: tuple[int, ...] = ()

    def of_kind(self, *kinds: OperationKind) -> list[TraceStep]:
        return [step for step in self.steps if step.kind in kinds]

    def weighted(self) -> list[TraceStep]:
        """The steps with weights that the output depends on, in order."""
        upstream = self.ancestors(self.last)
        return [s for s in self.of_kind("linear", "convolution") if s.number in upstream and s.parameter]

    def dead(self) -> list[tuple[TraceStep, float]]:
        """The activations of which too many units are zero on every row (note N5), with the share."""
        found = ((s, s.dead) for s in self.watched())
        return [(s, share) for s, share in found if share and share > DEAD_SHARE]

    def watched(self) -> list[TraceStep]:
        """The activations of enough units, and of enough numbers each, for dead units to mean something."""
        return [
            s
            for s in self.of_kind("activation")
            if s.dead is not None
            and (points := _points(s)) >= FEWEST_POINTS
            and math.prod(s.shape) // points >= FEWEST_UNITS
        ]

    def saturated(self) -> list[tuple[TraceStep, float]]:
        """The activations that mostly work where they are flat, with the share
        of their numbers that lie there."""
        found = ((s, s.saturated) for s in self.of_kind("activation"))
        return [(s, share) for s, share in found if share and share > SATURATED_SHARE]

    def flow(self) -> tuple[TraceStep, TraceStep, float] | None:
        """The first and the last hidden layer (an activation comes after it), and how many times as large the
        gradient is at the first; None where there are not two, or no gradient comes from the output layer."""
        before: set[int] = set()
        for step in self.of_kind("activation"):
            before |= self.ancestors(step.number)
        hidden = [s for s in self.weighted() if s.number in before and s.gradient is not None]
        if len(hidden) < 2 or not hidden[-1].gradient:
            return None
        return hidden[0], hidden[-1], (hidden[0].gradient or 0.0) / hidden[-1].gradient

    def ancestors(self, number: int) -> set[int]:
        """The numbers of all steps that a step's result depends on, its own
        among them, and -1 for the input."""
        found: set[int] = set()
        waiting = [number]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                if current >= 0:
                    waiting += self.steps[current].sources
        return found

    def followers(self, number: int) -> list[TraceStep]:
        """The steps that read a step's result themselves."""
        return [step for step in self.steps if number in step.sources]


def _points(step: TraceStep) -> int:
    """Numbers that each unit made."""
    return math.prod(step.shape) // step.shape[step.unit_axis] if step.unit_axis is not None else 0


def trace(
    module: nn.Module,
    *inputs: Any,
    loss: Callable[[Any], Tensor] | None = None,
    training: bool = False,
) -> Trace:
    """Watch one pass of ``module(*inputs)``, and with ``loss`` (of the output)
    the gradients of one backward pass.

    training: whether in training mode. Whatever the module raises is raised.
    """
    with left_as_it_was(module, training):
        recorder = Recorder(module, inputs)
        with recorder.hooks(), torch.set_grad_enabled(loss is not None):
            with recorder:
                output = module(*inputs)
                last, count = recorder.step_of(output), len(recorder.steps)
                value = None if loss is None else recorder.measured(loss, output)
            gradients = {} if value is None else _gradients(module, value)
    return recorder.traced(output, last, count, None if value is None else float(value.detach()), gradients)


def is_custom(module: nn.Module) -> bool:
    """Whether a module without submodules is written by hand rather than PyTorch's own."""
    return not type(module).__module__.startswith("torch.") and not any(module.children())


@contextmanager
def left_as_it_was(module: nn.Module, training: bool) -> Iterator[None]:
    """Every submodule's mode, the buffers, gradients and random state, given back afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    devices = sorted({p.device.index for p in module.parameters() if p.device.type == "cuda"})
    module.train(training)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for m, mode in modes:
            m.training = mode
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)


def _gradients(module: nn.Module, loss: Tensor) -> dict[str, float | None]:
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not named or not loss.requires_grad:
        return dict.fromkeys(named)
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: None if g is None else float(g.norm()) for name, g in zip(named, found, strict=True)}


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, tuple | list):
        return (list if type(value) is list else tuple)(map(_detached, value))
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in an argument, at any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)


class Recorder(TorchFunctionMode):
    """Sees every function of PyTorch that the pass calls, and tells by the
    identity of tensors what feeds what.

    made: the result of each step. before_loss: called once, with what the first loss is given.
    """

    POINTWISE = ACTIVATIONS | NORMS | DROPOUT

    def __init__(self, module: nn.Module, inputs: Sequence[Any]) -> None:
        super().__init__()
        self.steps: list[TraceStep] = []
        self.made: list[Tensor] = []
        self.inputs: dict[str, tuple[Any, ...]] = {}
        self._module = module
        self._stack = [""]
        self._source: dict[int, int] = {id(t): -1 for t in _tensors(inputs)}
        self._parameter = {id(p): name for name, p in module.named_parameters()}
        self._buffers = {id(b) for b in module.buffers()}
        self._measuring = False
        self.loss_call: LossCall | None = None
        self.squared: tuple[int, ...] = ()
        self.strangers: dict[int, Stranger] = {}
        self._size = {name: p.numel() for name, p in module.named_parameters()}
        self.before_loss: Callable[[Tensor], None] | None = None
        self._alive: list[Tensor] = []  # an id is only good while its tensor lives

    @contextmanager
    def hooks(self) -> Iterator[None]:
        handles = []
        for name, module in self._module.named_modules():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave(type(module).__name__), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            self._stack.append(name)
            if is_custom(module):
                with torch._C.DisableTorchFunction():  # the next operation may work in place: a copy
                    self.inputs.setdefault(
                        name, tuple(a.clone() if isinstance(a, Tensor) else a for a in _detached(arguments))
                    )

        return enter

    def _leave(self, kind: str) -> Callable[..., None]:
        def leave(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            # the root may have been entered before the hooks were there
            inside = self._stack.pop() if len(self._stack) > 1 else ""
            number = self.step_of(output)
            # a normalization written by hand is several operations: the last one stands for it
            made = self.steps[number] if number >= 0 else None
            if made and "norm" in kind.lower() and made.module == inside and made.kind in ("other", "add"):
                made.kind = "norm"

        return leave

    def measured(self, loss: Callable[[Any], Tensor], output: Any) -> Tensor:
        """The loss of an output; what it calls is recorded too."""
        self._measuring = True
        try:
            return loss(output)
        finally:
            self._measuring = False

    def watch_loss(self) -> None:
        """From here on the loss is computed, not the network."""
        self._measuring = True

    def traced(
        self, output: Any, last: int, count: int, loss: float | None, gradients: Mapping[str, float | None]
    ) -> Trace:
        """All that was recorded. last: the step that made the output; count: steps before the loss."""
        return Trace(
            steps=tuple(self.steps[:count]),
            output=_detached(output),
            last=last,
            loss=loss,
            gradients=gradients,
            inputs=self.inputs,
            loss_steps=tuple(self.steps[count:]),
            loss_call=self.loss_call,
            strangers=tuple(self.strangers.values()),
            squared=self.squared,
        )

    def step_of(self, output: Any) -> int:
        """The step that made a value (the first tensor of several); -1 when it is the input or unknown."""
        return next((self._source.get(id(t), -1) for t in _tensors(output)), -1)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = [id(t) for t in _tensors([args, kwargs])]
        shape = next((tuple(t.shape) for t in _tensors(args)), ())
        if self.before_loss is not None:
            self._meet_loss(getattr(func, "__name__", ""), args, kwargs)
        output = self.call(func, args, kwargs)
        name = getattr(func, "__name__", "")
        if self._measuring:
            self._note_loss(name, args, kwargs)
            self._note_square(args, output)
        made = [t for t in _tensors(output) if not isinstance(output, torch.Size)]
        if not made or name == "__get__":
            return output
        sources = tuple(dict.fromkeys(self._source[i] for i in before if i in self._source))
        self._alive += made
        if not sources:  # a parameter in another shape is still that parameter
            parameters = [self._parameter[i] for i in before if i in self._parameter]
            if parameters:
                self._parameter.update({id(t): parameters[0] for t in made})
            return output
        self._note_strangers(name, args, kwargs)
        self._record(name, args, kwargs, before, shape, sources, made)
        return output

    def _meet_loss(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Tell that a loss begins, where nobody else knows what the network's output is."""
        given, told = _argument(args, kwargs, 0, "input", None), self.before_loss
        if name in LOSSES and isinstance(given, Tensor) and told is not None and self.step_of(given) >= 0:
            self.before_loss = None
            told(given)

    def _note_loss(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = _argument(args, kwargs, 0, "input", None)
        if name in LOSSES and self.loss_call is None and isinstance(given, Tensor):
            target = _argument(args, kwargs, 1, "target", None)
            kept = target.detach() if isinstance(target, Tensor) else None
            self.loss_call = LossCall(name, given.detach(), kept, self.step_of(given), kwargs)

    def _note_square(self, args: tuple[Any, ...], output: Any) -> None:
        """A column and a row of as many numbers, one of them from the network, stretched to a square."""
        given = [a for a in args if isinstance(a, Tensor)]
        if self.squared or len(given) != 2 or not isinstance(output, Tensor):
            return
        size = given[0].numel()
        shapes = {tuple(a.shape) for a in given}
        outputs = sum(id(a) in self._source for a in given)  # pairs of two are made on purpose
        if size > 1 and outputs == 1 and shapes == {(size,), (size, 1)} and output.numel() == size * size:
            self.squared = (size, size)

    def _note_strangers(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Weights of linear steps and convolutions that belong to no part of the module."""
        if self._measuring or not (name in LINEAR | PRODUCTS or name.startswith("conv")):
            return
        for weight in list(_tensors([args[1:], kwargs]))[:1]:
            known = id(weight) in self._parameter or id(weight) in self._source or id(weight) in self._buffers
            if not known and weight.is_floating_point() and weight.is_leaf and weight.dim() > 1:
                self._alive.append(weight)
                self.strangers[id(weight)] = Stranger(
                    name, self._stack[-1], tuple(weight.shape), weight.requires_grad, weight
                )

    def call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Do what the pass asks for; a subclass may do something else in its place."""
        return func(*args, **kwargs)

    def _record(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        before: Sequence[int],
        shape: tuple[int, ...],
        sources: tuple[int, ...],
        made: Sequence[Tensor],
    ) -> None:
        weights = [self._parameter[i] for i in before if i in self._parameter]
        out = made[0]
        step = TraceStep(
            number=len(self.steps),
            kind=_kind(
                name.rstrip("_") if not name.endswith("__") else name, shape, out, len(sources), bool(weights)
            ),
            function=name,
            module=self._stack[-1],
            sources=sources,
            shape=tuple(out.shape),
            parameter=max(weights, key=self._size.__getitem__, default=""),
            bias=len(weights) > 1,
        )
        self._describe(step, args, kwargs, out, shape)
        self.steps.append(step)
        self.made.append(out)
        for tensor in made:
            self._source[id(tensor)] = step.number
        if out.requires_grad and step.kind in ("linear", "convolution", "whole"):
            out.register_hook(lambda gradient: _keep_norm(step, gradient))  # type: ignore[no-untyped-call]

    def _describe(
        self,
        step: TraceStep,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        out: Tensor,
        shape: tuple[int, ...],
    ) -> None:
        """Geometry, units and statistics of a step."""
        if step.kind == "convolution":
            weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
            axes = weight.dim() - 2 if isinstance(weight, Tensor) else 0
            step.kernel = tuple(weight.shape[2:]) if isinstance(weight, Tensor) else ()
            transposed = "transpose" in step.function
            step.stride = (
                (1,) * axes if transposed else _per_axis(_argument(args, kwargs, 3, "stride", 1), axes)
            )
            step.dilation = (
                (1,) * axes if transposed else _per_axis(_argument(args, kwargs, 5, "dilation", 1), axes)
            )
        elif step.kind == "pooling":
            axes = int(step.function.rstrip("_")[-2])
            step.kernel = _per_axis(_argument(args, kwargs, 1, "kernel_size", 1), axes)
            step.stride = _per_axis(_argument(args, kwargs, 2, "stride", None) or step.kernel, axes)
            step.dilation = (1,) * axes
        elif step.kind == "dropout":
            step.probability = float(_argument(args, kwargs, 1, "p", 0.5))
        step.negative_slope = (
            float(_argument(args, kwargs, 1, "negative_slope", 0.01)) if "leaky" in step.function else 0.0
        )
        step.unit_axis = self._unit_axis(step, shape)
        if not out.is_floating_point() or not out.numel():
            return
        with torch.no_grad(), torch._C.DisableTorchFunction():
            values = out.detach().float()
            step.mean, step.deviation = float(values.mean()), float(values.std(correction=0))
            step.root_mean_square = float(values.square().mean().sqrt())
            step.row_deviation = float(values.std(dim=0, correction=0).mean()) if values.dim() else 0.0
            if step.kind == "activation":
                limits = SATURATED.get(step.function.rstrip("_"))
                if limits:
                    step.saturated = float(((values < limits[0]) | (values > limits[1])).float().mean())
                if step.unit_axis is not None and values.dim() > 1:
                    largest = values.abs().movedim(step.unit_axis, 0).flatten(1).amax(dim=1)
                    step.dead = float((largest <= DEAD * largest.max()).float().mean())

    def _unit_axis(self, step: TraceStep, shape: tuple[int, ...]) -> int | None:
        if step.kind == "convolution" or step.function in ("batch_norm", "group_norm", "instance_norm"):
            return 1
        if step.kind in ("linear", "embedding"):
            return len(step.shape) - 1
        same_axes = len(step.shape) == len(shape) and step.function not in TURNS
        before = step.sources[0]
        if same_axes and before >= 0:
            return self.steps[before].unit_axis
        if step.function == "flatten" and len(step.shape) == 2:
            return 1
        return None


def _keep_norm(step: TraceStep, gradient: Tensor) -> None:
    step.gradient = float(gradient.norm())


def _kind(name: str, shape: tuple[int, ...], out: Tensor, sources: int, weighted: bool) -> OperationKind:
    """What the function ``name`` does to a first argument of ``shape``;
    weighted: whether a parameter goes in too."""
    if name in LINEAR or (name in PRODUCTS and weighted):
        return "linear"
    for kind, names in KINDS:
        if name in names:
            return kind
    if name.startswith("conv") and name[4:5] in ("1", "2", "3", "_", "o"):
        return "convolution"
    if "pool" in name:
        adaptive = name.startswith("adaptive")
        return (
            "whole" if adaptive and all(n == 1 for n in out.shape[2:]) else "other" if adaptive else "pooling"
        )
    if name in REDUCTIONS and len(shape) >= 3 and all(n == 1 for n in out.shape[2:]):
        return "whole"
    if name in PRODUCTS:
        return "whole"
    if name == "embedding":
        return "embedding"
    return "add" if name in ADDITIONS and sources == 2 else "other"


def _argument(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], position: int, name: str, default: Any
) -> Any:
    return kwargs.get(name, args[position] if len(args) > position else default)


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return tuple(int(v) for v in values) * axes if len(values) == 1 else tuple(int(v) for v in values)
