"""Whether a function's gradient agrees with the definition of the derivative
(note N7), in double precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError
from torch.func import functional_call

from advisor.checks.tracing import is_custom, left_as_it_was, trace
from advisor.networks.convolutional import StackedMapNorm
from advisor.networks.tables import ACTIVATIONS, Periodic, PiecewiseLinear, StackedNorm
from advisor.training.class_balance import ClassBalance
from advisor.training.targets import squeezed, stretched

STEP = 1e-6
"""Of the difference quotient."""
ABSOLUTE, RELATIVE = 1e-5, 1e-3
"""By how much gradient and quotient may differ: PyTorch's own tolerances."""
EXACT_NUMBERS = 32
"""Functions of more numbers are checked along one random direction instead of along each number."""
JITTER = 1e-3
"""A second try is made beside the point: a kink (of ReLU, of a maximum) may have lain within the step."""


def gradient_problem(function: Callable[..., Tensor], *inputs: Tensor) -> str | None:
    """Why the gradient of ``function`` by its float64 ``inputs`` is not its
    derivative, in one line; None when it is.

    Two points are tried: at a kink no difference quotient is right. Whatever the function raises is raised.
    """
    fast = sum(i.numel() for i in inputs) > EXACT_NUMBERS
    generator = torch.Generator().manual_seed(0)
    told: str | None = None
    for distance in (0.0, JITTER):
        points = [
            (
                i.detach() + distance * torch.randn(i.shape, generator=generator, dtype=i.dtype)
            ).requires_grad_()
            for i in inputs
        ]
        with torch.random.fork_rng(devices=[]):
            try:
                torch.autograd.gradcheck(
                    function,
                    points,
                    eps=STEP,
                    atol=ABSOLUTE,
                    rtol=RELATIVE,
                    fast_mode=fast,
                    check_undefined_grad=False,
                )
            except GradcheckError as error:
                told = next(line for line in str(error).splitlines() if line.strip())
            else:
                return None
    return told


def own_gradients(configuration: Mapping[str, Any] | None = None) -> dict[str, str | None]:
    """``gradient_problem`` of every function that this package defines: activations, losses,
    target transforms, norms, embeddings.
    configuration: with a treatment of classes whose loss is checked too."""
    return {
        name: gradient_problem(function, *points)
        for name, (function, points) in _own(configuration or {}).items()
    }


def _own(configuration: Mapping[str, Any]) -> dict[str, tuple[Callable[..., Tensor], Sequence[Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    # on both sides of zero and not at it: a quarter apart, so no kink lies within the step
    line = torch.linspace(-3.1, 3.0, 24, dtype=torch.float64)
    members = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    found: dict[str, tuple[Callable[..., Tensor], Sequence[Tensor]]] = {
        name: (function, [line]) for name, function in ACTIVATIONS.items()
    }
    knee = torch.tensor(0.7, dtype=torch.float64)
    found["squeezed target"] = (lambda y: squeezed(y, knee), [line])
    found["stretched target"] = (lambda y: stretched(y, knee), [line])

    target = torch.tensor([[0, 1, 2, 0, 1], [2, 2, 0, 1, 0]])
    counts = torch.tensor([[60, 30, 10], [50, 30, 20]])
    kinds = dict.fromkeys(
        ("focal", "reweight", "oversample", str(configuration.get("class_balance", "none")))
    )
    common = {"balance_strength": 0.5, "focal_gamma": 2.0, "balance_noise": 0.1, **configuration}
    for kind in kinds:
        balance = ClassBalance({**common, "class_balance": kind}, counts, "cpu")
        if balance.log_weight is not None:
            balance.log_weight = balance.log_weight.double()
        found[f"loss ({kind})"] = (_loss(balance, target), [members[:, :, :3]])

    maps = torch.randn(3, 8, 7, generator=generator, dtype=torch.float64)
    for kind in ("batch", "layer"):
        found[f"{kind} norm"] = (StackedNorm(2, 6, kind).double().train(), [members])
    for kind in ("batch", "group", "layer"):
        found[f"{kind} norm of maps"] = (StackedMapNorm(2, 4, kind).double().train(), [maps])
    edges = torch.linspace(-2.0, 2.0, 5, dtype=torch.float64)[None, :, None].repeat(2, 1, 6)
    found["piecewise linear embedding"] = (PiecewiseLinear(edges, 4, generator).double(), [members])
    found["periodic embedding"] = (Periodic(2, 6, 4, 0.1, generator).double(), [members])
    return found


def _loss(balance: ClassBalance, target: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda out: balance.losses(out, target, 0.05)


def module_gradients(module: nn.Module, *inputs: Any, rows: int = 2) -> dict[str, str | None]:
    """``gradient_problem`` of each module without submodules that is not PyTorch's own, by its dotted name.

    Checked in evaluation mode on the first ``rows`` of what it is given in a pass, by inputs and parameters,
    on a copy in float64. The network as a whole is checked (under the name "") when none of these fails and a
    custom ``autograd.Function`` takes part elsewhere. What cannot be computed in float64 says so in its line.
    """
    passed = trace(module, *(_first(i, rows) for i in inputs))
    with left_as_it_was(module, training=False):
        double = copy.deepcopy(module).double().eval()
    parts = dict(double.named_modules())
    found = {
        name: _module_problem(parts[name], [_first(i, rows) for i in given])
        for name, given in passed.inputs.items()
        if is_custom(parts[name])
    }
    if not any(found.values()) and "" not in found and _has_custom_function(double, inputs, rows):
        found[""] = _module_problem(double, [_first(i, rows) for i in inputs])
    return found


def _first(value: Any, rows: int) -> Any:
    return value[:rows] if isinstance(value, Tensor) and value.dim() else value


def _module_problem(module: nn.Module, given: Sequence[Any]) -> str | None:
    given = [g.double() if isinstance(g, Tensor) and g.is_floating_point() else g for g in given]
    places = [i for i, g in enumerate(given) if isinstance(g, Tensor) and g.is_floating_point()]
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    parameters = dict(module.named_parameters())
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}

    def function(*points: Tensor) -> Any:
        arguments = list(given)
        for place, point in zip(places, points, strict=False):
            arguments[place] = point.clone()  # the module may work in place, and a leaf must not change
        own = dict(zip(names, points[len(places) :], strict=True))
        out = functional_call(module, {**{n: b.clone() for n, b in kept.items()}, **own}, tuple(arguments))
        return out[0] if isinstance(out, tuple | list) else out

    points = [*(given[place] for place in places), *(parameters[name] for name in names)]
    if not points:
        return None
    try:
        return gradient_problem(function, *points)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        return f"cannot be computed in float64: {str(error).splitlines()[0]}"


def _has_custom_function(module: nn.Module, inputs: Sequence[Any], rows: int) -> bool:
    """Whether the gradient's graph has a step that is written in Python."""
    given = [_first(i, rows) for i in inputs]
    given = [g.double() if isinstance(g, Tensor) and g.is_floating_point() else g for g in given]
    try:
        out = module(*given)
    except (RuntimeError, TypeError, ValueError):
        return False
    waiting = [
        t.grad_fn for t in ([out] if isinstance(out, Tensor) else out) if isinstance(t, Tensor) and t.grad_fn
    ]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        waiting += [n for n, _ in node.next_functions if n is not None]
    return False
