#!/usr/bin/env python3
"""diffusers as a subject: the conditional norms of its models and their RMS norm.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0
    venv/bin/pip install --no-deps diffusers==0.42.1 && venv/bin/pip install huggingface_hub safetensors regex requests pillow
    normative check --subject 'venv/bin/python adapters/python/diffusers_layers.py'

AdaLayerNorm, or with --zero AdaLayerNormZero, and AdaGroupNorm make scale and shift of an embedding, by an activation and a
linear layer; what these would make is given to them. RMS norm is asked in the dialect t5, whose order of casts it has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

import normative

normative.take_pipe()

try:
    import diffusers
    import torch
    from diffusers.models.normalization import AdaGroupNorm, AdaLayerNorm, AdaLayerNormZero, RMSNorm
except ImportError as error:
    print(f"diffusers_layers.py: diffusers or PyTorch cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

from torch import Tensor, nn

import normative_torch


class Condition(nn.Module):
    """In the place of the linear layer: scale and shift as they were sent, or zeros, in the order that the layer cuts."""

    def __init__(self, parts: list[str], shape: tuple[int, int]) -> None:
        super().__init__()
        self.parts, self.shape = parts, shape
        self.scale: Tensor | None = None
        self.shift: Tensor | None = None

    def forward(self, like: Tensor) -> Tensor:
        zeros = torch.zeros(self.shape, dtype=like.dtype)
        sent = {"scale": self.scale, "shift": self.shift}
        return torch.cat([zeros if sent.get(part) is None else sent[part] for part in self.parts], dim=1)


class Conditioned(nn.Module):
    """A conditional norm that is called with the input alone."""

    def __init__(self, layer: nn.Module, argument: str, parts: list[str], width: int) -> None:
        super().__init__()
        self.layer, self.argument, self.parts, self.width = layer, argument, parts, width
        layer.silu = nn.Identity()
        layer.linear = Condition(parts, (0, width))

    def forward(self, input: Tensor) -> Tensor:
        self.layer.linear.shape = (input.shape[0], self.width)
        image = isinstance(self.layer, AdaGroupNorm) and input.dim() == 3
        output = self.layer(input.unsqueeze(-1) if image else input, **{self.argument: input})
        output = output[0] if isinstance(output, tuple) else output
        return output.squeeze(-1) if image else output


def ada_layer_norm(request: normative.Request, zero: bool) -> nn.Module:
    features, eps = request.tensors["input"].shape[-1], request.parameters["eps"]
    check_condition(request, (request.tensors["input"].shape[0], features))
    if zero:
        layer = AdaLayerNormZero(features)
        layer.norm.eps = eps
        parts = ["shift", "scale", "gate", "shift of the MLP", "scale of the MLP", "gate of the MLP"]
        return Conditioned(layer, "emb", parts, features)
    return Conditioned(AdaLayerNorm(features, norm_eps=eps, chunk_dim=1), "temb", ["shift", "scale"], features)


def ada_group_norm(request: normative.Request, zero: bool) -> nn.Module:
    p, shape = request.parameters, request.tensors["input"].shape
    check_condition(request, (shape[0], shape[1]))
    return Conditioned(AdaGroupNorm(1, shape[1], p["num_groups"], eps=p["eps"]), "emb", ["scale", "shift"], shape[1])


def check_condition(request: normative.Request, shape: tuple[int, int]) -> None:
    """What a linear layer makes has this shape; no other can come to the norm."""
    for name in ("scale", "shift"):
        if name in request.tensors and tuple(request.tensors[name].shape) != shape:
            raise normative.Refusal("shape", f"{name} has shape {tuple(request.tensors[name].shape)}, not {shape}")


def rms_norm(request: normative.Request, zero: bool) -> nn.Module:
    p = request.parameters
    return RMSNorm(p["normalized_shape"], p["eps"], "weight" in request.tensors)


OPERATIONS: dict[str, Callable[[normative.Request, bool], nn.Module]] = {
    "ada_layer_norm": ada_layer_norm,
    "ada_group_norm": ada_group_norm,
    "rms_norm": rms_norm,
}

NAMES = {"scale": "layer.linear.scale", "shift": "layer.linear.shift"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zero", action="store_true", help="AdaLayerNormZero for ada_layer_norm")
    zero = parser.parse_args().zero

    def answer(request: normative.Request) -> Mapping[str, Any]:
        module = normative_torch.build(lambda request: OPERATIONS[request.name](request, zero), request)
        return normative_torch.call(module, request, NAMES)

    for name in OPERATIONS:
        dialects = {"dialects": ["t5"]} if name == "rms_norm" else {}
        normative.operation(name, dtypes=["F64", "F32", "F16", "BF16"], **dialects)(answer)
    normative_torch.serve("diffusers", diffusers.__version__, "Apache-2.0")


if __name__ == "__main__":
    main()
