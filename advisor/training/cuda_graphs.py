"""Steps of training that are recorded on a GPU and replayed (CUDA graphs).

A small network's step there is some hundred kernels of microseconds each, and launching them one by one from
Python takes several milliseconds. A recording is launched as a whole. It reads and writes the same memory
each time: what is handed in is copied there, and gradients lie at the same places in every step.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WARM = 2
"""Calls that run as ever before one is recorded: in them libraries set themselves up, and
what cannot be done at all fails."""


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The one on which all is recorded: for each stream that ever multiplied, cuBLAS
    keeps 64 MB until the process ends."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def _recording(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> Iterator[None]:
    before = torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            yield
    except RuntimeError as error:
        torch.cuda.set_stream(
            before
        )  # a recording that fails leaves its own, and generators that take it to go on
        _repaired_generator(torch.cuda.default_generators[before.device_index])
        first = error.__context__
        if isinstance(first, torch.OutOfMemoryError):
            raise first from None
        raise


def _repaired_generator(generator: torch.Generator) -> None:
    """Let it draw again where a recording that failed has left it in the middle of one."""
    generator.graphsafe_set_state(generator.clone_state())


class RecordedPass:
    """A network's pass in training, called with its inputs; the way back fills the parameters' ``grad``.

    It is recorded for each shape of the inputs, but for WARM calls at the beginning (of
    each shape only where it is compiled
    anew: what such calls take lies beside the memory of the recordings before); what cannot be recorded runs
    as ever. The gradients of one call are gone with the next: they cannot be added up over several.
    OutOfMemoryError where recording needs more memory than there is.
    """

    def __init__(
        self,
        forward: Callable[..., Tensor],
        network: nn.Module,
        noise: torch.Generator,
        *,
        compiled: bool = False,
    ) -> None:
        """noise: the generator that ``forward`` draws from.
        compiled: its first call with a shape compiles."""
        self.forward, self.noise = forward, noise
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.gradients = [torch.empty_like(p) for p in self.parameters]
        self.pool, self.stream = torch.cuda.graph_pool_handle(), _stream(noise.device)
        self.recordable = True
        self._compiled, self._calls, self._passes = compiled, Counter[Any](), dict[Any, _Pass]()
        self._tie = torch.zeros(
            (), device=noise.device, requires_grad=True
        )  # nothing else that goes in has a gradient

    def __call__(self, *inputs: Tensor) -> Tensor:
        kind = tuple(part.shape for part in inputs)
        warmed = kind if self._compiled else None
        if self.recordable and kind not in self._passes and self._calls[warmed] >= WARM:
            self._record(kind, inputs)
        if kind not in self._passes:
            self._calls[warmed] += 1
            return self._aside(inputs)
        out: Tensor = _Replay.apply(self, self._passes[kind], self._tie, *inputs)  # type: ignore[no-untyped-call]
        return out

    def _aside(self, inputs: Sequence[Tensor]) -> Tensor:
        """As ever, but on the stream of the recordings: what autograd keeps of
        the parameters stays with a stream."""
        main = torch.cuda.current_stream()
        self.stream.wait_stream(main)
        with torch.cuda.stream(self.stream):
            out = self.forward(*inputs)
        main.wait_stream(self.stream)
        return out

    def _record(self, kind: Any, inputs: Sequence[Tensor]) -> None:
        # a recording takes memory of its own: what the calls before it took would lie idle
        torch.cuda.empty_cache()
        try:
            self._passes[kind] = _Pass(self, inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # an operation that waits for the GPU
            self.recordable = False
            _repaired_generator(self.noise)

    def take_gradients(self, used: Sequence[int]) -> None:
        """Let the parameters' ``grad`` be what was replayed last."""
        for index in used:
            self.parameters[index].grad = self.gradients[index]

    def replayed(self) -> bool:
        """Whether the gradients there are come from a recording."""
        return all(
            p.grad is None or p.grad is own for p, own in zip(self.parameters, self.gradients, strict=True)
        )


class _Pass:
    """The recording for inputs of one shape."""

    def __init__(self, owner: RecordedPass, inputs: Sequence[Tensor]) -> None:
        self.inputs = [part.clone() for part in inputs]
        self.ahead, self.back = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        self.ahead.register_generator_state(owner.noise)
        with _recording(self.ahead, owner.pool, owner.stream):
            out = owner.forward(*self.inputs)
        self.out, self.of_out = out.detach(), torch.empty_like(out)
        with _recording(self.back, owner.pool, owner.stream):
            found = torch.autograd.grad(out, owner.parameters, self.of_out, allow_unused=True)
            self.used = [index for index, gradient in enumerate(found) if gradient is not None]
            torch._foreach_copy_([owner.gradients[i] for i in self.used], [g for g in found if g is not None])


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, owner: RecordedPass, recorded: _Pass, tie: Tensor, *inputs: Tensor) -> Tensor:
        ctx.owner, ctx.recorded = owner, recorded
        for place, part in zip(recorded.inputs, inputs, strict=True):
            place.copy_(part)
        recorded.ahead.replay()
        return recorded.out.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor) -> tuple[None, ...]:
        recorded: _Pass = ctx.recorded
        recorded.of_out.copy_(of_out)
        recorded.back.replay()
        ctx.owner.take_gradients(recorded.used)
        return (None,) * (3 + len(recorded.inputs))


class RecordedStep:
    """An optimizer's step, replayed after WARM calls with the gradients of a recorded pass."""

    def __init__(self, recorded: RecordedPass) -> None:
        self._pass, self._calls = recorded, 0
        self._rate = torch.zeros((), device=recorded.noise.device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, step: Callable[[float | Tensor], None], rate: float) -> None:
        """step: the same in each call; it takes the rate as a number, or as a tensor on the
        device. (It is not kept: it holds the optimizer, which holds this, and memory of the device
        must not wait for a garbage collection.)"""
        if self._calls < WARM or not self._pass.replayed():
            self._calls += 1
            step(rate)
            return
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with _recording(self._graph, self._pass.pool, self._pass.stream):
                step(self._rate)
        self._rate.fill_(rate)
        self._graph.replay()
