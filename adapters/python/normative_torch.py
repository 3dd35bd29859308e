"""Judge a torch.nn.Module: from a request to a call of the module, and from what it raises to a typed refusal.

The handler of an adapter builds its module and hands it over::

    @normative.operation("rms_norm", dtypes=["F32"])
    def rms_norm(request):
        module = MyRMSNorm(request.parameters["normalized_shape"], request.parameters["eps"])
        return normative_torch.call(module, request)

    normative.serve(name="my RMS norm", version="1", framework="torch", options=["gradients"])
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import normative

#: The tensors that a module trains. They get gradients; state tensors do not.
PARAMETERS = ("weight", "bias")

#: What PyTorch says when it refuses, in the order in which the kinds apply.
REFUSALS = {
    "dtype": r"mixed dtype|expected scalar type|needs_dynamic_casting",
    "shape": r"[Ee]xpected (at least )?\d.*(D |dimensions)|must have at least \d+ dimensions"
    r"|should contain \d+ elements|normalized_shape=\[|of same shape as|vector of size equal to"
    r"|TensorAccessor expected|t\.dim\(\) == 1",
    "parameter": r"eps must be|argument '(eps|momentum|normalized_shape)'|NoneType|num_groups|num groups|modulo by zero"
    r"|at least 1-dimensional",
    "empty": r"to be greater than 0, got 0|of size \[0[],]",
    "too_few_values": r"more than 1 (value per channel|spatial element)",
}

#: No word about the case: a kernel that is missing, and a machine that failed.
MISSING = re.compile(r"not implemented for|Could not run 'aten::")
FAILURE = re.compile(r"CUDA error|CUDA out of memory|can't allocate memory|CUBLAS_STATUS|CUDNN_STATUS")


def call(module: nn.Module, request: normative.Request, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Gives the module the request's parameters and buffers, calls it, and returns the answer.

    ``names`` says what the module calls them where it has other names, ``{"weight": "scale.gamma"}``. A parameter that
    was not sent keeps the value that the module was built with: 1 for a weight, 0 for a bias, or None. A state tensor
    that the module does not have comes back as it was sent.
    """
    try:
        return _call(module, request, names or {})
    except (normative.Refusal, normative.Unsupported):
        raise
    except Exception as error:
        # A layer may change its buffers before it refuses, as PyTorch counts the batch.
        raise outcome(error, request, _state(module, request, names or {})) from error


def outcome(error: Exception, request: normative.Request, state: Mapping[str, Tensor] | None = None) -> Exception:
    """What an exception of PyTorch's means: a refusal with its kind, a kernel that is missing, or a failed machine."""
    if MISSING.search(str(error)):
        return normative.Unsupported(_text(error))
    if isinstance(error, torch.OutOfMemoryError) or FAILURE.search(str(error)):
        return MemoryError(f"the machine failed, not the layer: {_text(error)}")
    kind = next((kind for kind, pattern in REFUSALS.items() if re.search(pattern, str(error))), "other")
    return normative.Refusal(kind, _text(error), request.state if state is None else state)


def _call(module: nn.Module, request: normative.Request, names: Mapping[str, str]) -> dict[str, Any]:
    input, sent = request.tensors["input"], request.tensors
    module.to(device=input.device, dtype=input.dtype).train(request.mode == "train")
    for name, buffer in request.state.items():
        owner, attribute = _place(module, names.get(name, name))
        if hasattr(owner, attribute):
            setattr(owner, attribute, buffer)
    leaves = {"input": input.requires_grad_(request.gradients)}
    for name in PARAMETERS:
        if name in sent:
            owner, attribute = _place(module, names.get(name, name))
            if not hasattr(owner, attribute):
                raise normative.Unsupported(f"the module has no {names.get(name, name)}")
            leaves[name] = nn.Parameter(sent[name])
            setattr(owner, attribute, leaves[name])

    output = module(input)
    answer = {"output": output, **_state(module, request, names)}
    if request.gradients:
        # A tensor that the output does not depend on has the gradient 0.
        found = torch.autograd.grad(
            output, list(leaves.values()), sent["grad_output.output"], allow_unused=True, materialize_grads=True
        )
        answer.update({f"grad_{name}": gradient for name, gradient in zip(leaves, found)})
    return answer


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
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: " + re.sub(r' at "[^"]*":.*', "", first_line)
