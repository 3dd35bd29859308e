#!/usr/bin/env python3
"""x-transformers as a subject: ScaleNorm, and the activations in the place of a norm, dynamic tanh and dynamic erf.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 einops einx loguru packaging
    venv/bin/pip install --no-deps x-transformers==2.31.10 torch-einops-utils
    normative check --subject 'venv/bin/python adapters/python/x_transformers_layers.py'

The weight of ScaleNorm is √D·g, and its eps is that of normalize, 1e-12, whatever is asked for. These layers compute half
types in half types, so F64 and F32 are claimed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import normative

normative.take_pipe()

try:
    import torch
    from x_transformers.x_transformers import Derf, DynamicTanh, ScaleNorm
except ImportError as error:
    print(f"x_transformers_layers.py: x-transformers or PyTorch cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

from torch import Tensor, nn

import normative_torch


def features(request: normative.Request) -> int:
    return int(request.tensors["input"].shape[-1])


class Scaled(nn.Module):
    """ScaleNorm by the length of its outputs, of which g is the part that is not √D."""

    def __init__(self, layer: ScaleNorm) -> None:
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, input: Tensor) -> Tensor:
        return torch.func.functional_call(self.layer, {"g": self.weight / self.layer.scale}, (input,))


OPERATIONS: dict[str, Callable[[normative.Request], nn.Module]] = {
    "scale_norm": lambda request: Scaled(ScaleNorm(features(request))),
    "dynamic_tanh": lambda request: DynamicTanh(features(request)),
    "dynamic_erf": lambda request: Derf(features(request)),
}

#: What a module calls the request's tensors.
NAMES: dict[str, dict[str, str]] = {
    "scale_norm": {"weight": "weight"},
    "dynamic_tanh": {"alpha": "pre_tanh_scale", "weight": "gamma", "bias": "beta"},
    "dynamic_erf": {"shift": "s", "weight": "gamma", "bias": "beta"},
}


def answer(request: normative.Request) -> Mapping[str, Any]:
    # A parameter of another shape than the module's own does not come to it.
    module = normative_torch.build(OPERATIONS[request.name], request)
    for name, own in NAMES[request.name].items():
        expected = tuple(getattr(module, own).shape) or (1,)
        if name in request.tensors and tuple(request.tensors[name].shape) != expected:
            raise normative.Refusal("shape", f"{name} has shape {tuple(request.tensors[name].shape)}, not {expected}")
    return normative_torch.call(module, request, NAMES[request.name])


def main() -> None:
    for name in OPERATIONS:
        normative.operation(name, dtypes=["F64", "F32"])(answer)
    normative_torch.serve("x-transformers", version("x-transformers"), "MIT")


if __name__ == "__main__":
    main()
