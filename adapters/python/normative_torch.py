"""Judge a torch.nn.Module: from a request to a call of the module, and from what it raises to a typed refusal.

The handler of an adapter builds its module and hands it over::

    @normative.operation("rms_norm", dtypes=["F32"])
    def rms_norm(request):
        module = MyRMSNorm(request.parameters["normalized_shape"], request.parameters["eps"])
        return normative_torch.call(module, request)

    normative.serve(name="my RMS norm", version="1", framework="torch", options=["gradients", "double_backward"])
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import normative

#: What PyTorch says when it refuses, in the order in which the kinds apply.
REFUSALS = {
    "dtype": r"mixed dtype|expected scalar type|needs_dynamic_casting|same (data ?type|dtype|datatype|type)\b",
    "shape": r"[Ee]xpected (at least )?\d.*(D |dimensions)|must have at least \d+ dimensions"
    r"|should contain \d+ elements|normalized_shape=\[|of same shape as|vector of size equal to"
    r"|TensorAccessor expected|t\.dim\(\) == 1|Expected input to be \dD|at least \d+ dimensions|has no dimensions"
    r"|size mismatch|inconsistent tensor size|must match the size of tensor|to match num_features|of repeat dims",
    "parameter": r"eps must be|argument '\w+'|NoneType|num_groups|num groups|modulo by zero"
    r"|at least 1-dimensional|Dimension out of range|n_power_iterations|non-positive-norm|maxnorm"
    r"|kernel size should be",
    "empty": r"to be greater than 0, got 0|of size \[(\d+, )*0[],]|should be non-zero|is empty",
    "too_few_values": r"more than 1 (value per channel|spatial element)",
}

#: What a module on PyTorch can do without saying more.
OPTIONS = ("gradients", "double_backward", "channels_last", "strided")

#: No word about the case: a kernel or a derivative that is missing, and a machine that failed.
MISSING = re.compile(
    r"not implemented for|Could not run 'aten::|support automatic differentiation|support double backward"
    r"|derivative for '.*' is not implemented"
)
FAILURE = re.compile(r"CUDA error|CUDA out of memory|can't allocate memory|CUBLAS_STATUS|CUDNN_STATUS")

#: What a compiled module raises, within the account of it that the compiler gives.
TRACED = re.compile(r"got (\w+)\((['\"])(.*?)\2\)", re.DOTALL)
COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch")


def call(module: nn.Module, request: normative.Request, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Gives the module the request's parameters and buffers, calls it, and returns the answer.

    ``names`` says what the module calls them where it has other names, ``{"weight": "scale.gamma"}``. A parameter that
    was not sent keeps the value that the module was built with: 1 for a weight, 0 for a bias, or None. A state tensor
    that the module does not have comes back as it was sent. A module that holds its input, as a parametrized weight
    does, has a name for it too and is called without arguments. What it returns is the output, or outputs by name.
    """
    try:
        return _call(module, request, names or {})
    except (normative.Refusal, normative.Unsupported):
        raise
    except Exception as error:
        # A layer may change its buffers before it refuses, as PyTorch counts the batch.
        raise outcome(error, request, _state(module, request, names or {})) from error


def build(maker: Callable[[normative.Request], nn.Module], request: normative.Request) -> nn.Module:
    """The module that ``maker`` makes of a request; what that raises is a refusal too."""
    try:
        return maker(request)
    except (normative.Refusal, normative.Unsupported):
        raise
    except Exception as error:
        raise outcome(error, request) from error


def serve(name: str, version: str, licence: str, options: Sequence[str] = OPTIONS) -> None:
    """Serves the layers of a library that computes with PyTorch on a CPU."""
    torch.set_num_threads(1)
    normative.serve(
        name=name,
        version=version,
        framework="torch",
        options=list(options),
        arithmetic={"accumulate": "F32", "depth": "any"},
        details={"torch": torch.__version__.split("+")[0], "licence": licence},
    )


def outcome(error: Exception, request: normative.Request, state: Mapping[str, Tensor] | None = None) -> Exception:
    """What an exception of PyTorch's means: a refusal with its kind, a kernel that is missing, or a failed machine."""
    text = _text(error)
    if MISSING.search(text):
        return normative.Unsupported(text)
    if isinstance(error, torch.OutOfMemoryError) or FAILURE.search(text):
        return MemoryError(f"the machine failed, not the layer: {text}")
    if type(error).__module__.startswith(COMPILERS) and not TRACED.search(str(error)):
        return normative.Unsupported(f"the compiler failed, not the layer: {text}")
    kind = next((kind for kind, pattern in REFUSALS.items() if re.search(pattern, text)), "other")
    return normative.Refusal(kind, text, request.state if state is None else state)


def _call(module: nn.Module, request: normative.Request, names: Mapping[str, str]) -> dict[str, Any]:
    input, sent = request.tensors["input"], request.tensors
    module.to(device=input.device, dtype=input.dtype).train(request.mode == "train")
    leaves: dict[str, Tensor] = {}
    for name, tensor in sent.items():
        if name.startswith(("grad_output.", "grad_grad.")):
            continue
        if name == "input" and name not in names:
            leaves[name] = tensor.requires_grad_(request.gradients)
            continue
        owner, attribute = _place(module, names.get(name, name))
        if not hasattr(owner, attribute):
            if name in request.state:
                continue
            raise normative.Unsupported(f"the module has no {names.get(name, name)}")
        if name in request.differentiable:
            tensor = leaves[name] = nn.Parameter(tensor)
        setattr(owner, attribute, tensor)

    output = module() if "input" in names else module(input)
    outputs = dict(output) if isinstance(output, Mapping) else {"output": output}
    return {**outputs, **_state(module, request, names), **_gradients(request, leaves, outputs)}


def _gradients(
    request: normative.Request, leaves: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The gradients that the request asks for. A tensor that nothing depends on has the gradient 0."""
    if not request.gradients:
        return {}
    twice, tensors = request.double_backward, list(leaves.values())
    seeds = {name: request.tensors[f"grad_output.{name}"].requires_grad_(twice) for name in outputs}
    first = torch.autograd.grad(
        list(outputs.values()),
        tensors,
        list(seeds.values()),
        create_graph=twice,
        allow_unused=True,
        materialize_grads=True,
    )
    answer = {f"grad_{name}": gradient for name, gradient in zip(leaves, first)}
    if twice:
        directions = [request.tensors[f"grad_grad.{name}"] for name in leaves]
        second = _second(first, directions, [*tensors, *seeds.values()])
        answer.update({f"grad2_{name}": gradient for name, gradient in zip([*leaves, *seeds], second)})
    return answer


def _second(first: Sequence[Tensor], directions: Sequence[Tensor], targets: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradients, by the targets, of the sum of the products of each first gradient with its direction."""
    moving = [(gradient, direction) for gradient, direction in zip(first, directions) if gradient.requires_grad]
    if not moving:
        return [torch.zeros_like(target) for target in targets]
    gradients, along = zip(*moving)
    try:
        second: Sequence[Tensor] = torch.autograd.grad(
            gradients, targets, along, allow_unused=True, materialize_grads=True
        )
        return second
    except RuntimeError as error:
        if FAILURE.search(str(error)):
            raise
        # The layer has answered and been differentiated: this is no refusal of the case.
        raise normative.Unsupported(f"no double backward: {_text(error)}") from error


def _state(module: nn.Module, request: normative.Request, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The module's buffers, always all those that were sent."""
    found = {}
    for name, tensor in request.state.items():
        owner, attribute = _place(module, names.get(name, name))
        buffer = getattr(owner, attribute, None)
        found[name] = tensor if buffer is None else buffer
    return found


def _place(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    owner, _, attribute = path.rpartition(".")
    return module.get_submodule(owner), attribute


def _text(error: Exception) -> str:
    """What PyTorch said, without the trace of its own code and the path on the machine that built it."""
    name, text = type(error).__name__, str(error)
    if type(error).__module__.startswith(COMPILERS) and (traced := TRACED.search(text)):
        name, text = traced[1], traced[3]
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    heading = lines[0].startswith("Error(s) in loading state_dict") and len(lines) > 1
    return f"{name}: " + re.sub(r' at "[^"]*":.*', "", lines[1 if heading else 0])
