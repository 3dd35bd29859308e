#!/usr/bin/env python3
"""timm as a subject: the norms of timm.layers, as a user calls them.

    normative check --subject 'python3 adapters/python/timm_layers.py'

It needs timm beside PyTorch. timm's layers are for images: an input of rank 3 is given to them as one of width 1. They
compute half types in half types here and there, so F64 and F32 are claimed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import normative

try:
    import timm
    import torch
    from timm.layers import (
        EvoNorm2dB0,
        EvoNorm2dB1,
        EvoNorm2dB2,
        EvoNorm2dS0,
        EvoNorm2dS1,
        EvoNorm2dS2,
        FilterResponseNormTlu2d,
        LayerNorm2d,
        ScaledStdConv2d,
        SimpleNorm,
        SplitBatchNorm2d,
        StdConv2d,
        std_conv,
    )
    from timm.layers.grn import GlobalResponseNorm
except ImportError as error:
    print(f"timm_layers.py: timm or PyTorch cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

from torch import Tensor, nn

import normative_torch


class Images(nn.Module):
    """A layer for images, given inputs of rank 3 as images of width 1."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Tensor:
        return self.layer(input.unsqueeze(-1)).squeeze(-1) if input.dim() == 3 else self.layer(input)


class StandardizedWeight(nn.Module):
    """The weight that a convolution makes of its own, without the convolution."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self) -> Tensor:
        with mock.patch.object(std_conv.F, "conv2d", lambda input, weight, *rest: weight):
            return self.convolution(None)


class Split(nn.Module):
    """Split batch norm whose vectors are the rows of tables: the main one's first."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.weight = self.bias = self.running_mean = self.running_var = None

    def forward(self, input: Tensor) -> Tensor:
        rows = {}
        for name in ("weight", "bias", "running_mean", "running_var"):
            table = getattr(self, name)
            for index, row in enumerate([] if table is None else table):
                rows[name if index == 0 else f"aux_bn.{index - 1}.{name}"] = row
        image = input.unsqueeze(-1) if input.dim() == 3 else input
        output = torch.func.functional_call(self.layer, rows, (image,))
        return output.squeeze(-1) if input.dim() == 3 else output


def channels(request: normative.Request) -> int:
    shape = request.tensors["input"].shape
    return shape[1] if len(shape) > 1 else 1


def layer_norm_2d(request: normative.Request) -> nn.Module:
    affine = "weight" in request.tensors or "bias" in request.tensors
    return LayerNorm2d(channels(request), request.parameters["eps"], affine)


def simple_norm(request: normative.Request) -> nn.Module:
    p = request.parameters
    return SimpleNorm(p["normalized_shape"], p["eps"], "weight" in request.tensors)


def filter_response_norm(request: normative.Request) -> nn.Module:
    activates = "tau" in request.tensors
    return Images(FilterResponseNormTlu2d(channels(request), activates, request.parameters["eps"]))


def global_response_norm(request: normative.Request) -> nn.Module:
    return Images(GlobalResponseNorm(channels(request), request.parameters["eps"], channels_last=False))


def weight_standardization(request: normative.Request) -> nn.Module:
    outputs, inputs, *kernel = request.tensors["input"].shape
    return StandardizedWeight(StdConv2d(inputs, outputs, size(kernel), padding=0, eps=request.parameters["eps"]))


def scaled_weight_standardization(request: normative.Request) -> nn.Module:
    p = request.parameters
    outputs, inputs, *kernel = request.tensors["input"].shape
    convolution = ScaledStdConv2d(inputs, outputs, size(kernel), padding=0, gamma=p["gamma"], eps=p["eps"])
    return StandardizedWeight(convolution)


def size(kernel: list[int]) -> tuple[int, int]:
    """The kernel's two sizes."""
    return (kernel[0] if kernel else 1, kernel[1] if len(kernel) > 1 else 1)


def split_batch_norm(request: normative.Request) -> nn.Module:
    p, sent = request.parameters, request.tensors
    tracked = "running_mean" in sent
    layer = SplitBatchNorm2d(
        channels(request), p["eps"], p["momentum"], "weight" in sent, tracked, num_splits=p["num_splits"]
    )
    return Split(layer.to(sent["input"].dtype))


def evolved(layer: type[nn.Module]) -> Callable[[normative.Request], nn.Module]:
    """The batch series takes a momentum, the sample series groups."""

    def build(request: normative.Request) -> nn.Module:
        p = request.parameters
        own = {"groups": p["num_groups"]} if "num_groups" in p else {"momentum": p["momentum"]}
        return Images(layer(channels(request), eps=p["eps"], **own))

    return build


OPERATIONS: dict[str, Callable[[normative.Request], nn.Module]] = {
    "layer_norm_2d": layer_norm_2d,
    "simple_norm": simple_norm,
    "filter_response_norm": filter_response_norm,
    "global_response_norm": global_response_norm,
    "weight_standardization": weight_standardization,
    "scaled_weight_standardization": scaled_weight_standardization,
    "split_batch_norm": split_batch_norm,
    "evo_norm_b0": evolved(EvoNorm2dB0),
    "evo_norm_b1": evolved(EvoNorm2dB1),
    "evo_norm_b2": evolved(EvoNorm2dB2),
    "evo_norm_s0": evolved(EvoNorm2dS0),
    "evo_norm_s1": evolved(EvoNorm2dS1),
    "evo_norm_s2": evolved(EvoNorm2dS2),
}

#: What a module calls the request's tensors.
IMAGES = {name: f"layer.{name}" for name in ("weight", "bias", "tau", "v", "running_var")}
NAMES: dict[str, dict[str, str]] = {
    "layer_norm_2d": {},
    "simple_norm": {},
    "split_batch_norm": {},
    "weight_standardization": {"input": "convolution.weight"},
    "scaled_weight_standardization": {"input": "convolution.weight", "gain": "convolution.gain"},
}


def answer(request: normative.Request) -> Mapping[str, Any]:
    module = normative_torch.build(OPERATIONS[request.name], request)
    return normative_torch.call(module, request, NAMES.get(request.name, IMAGES))


def main() -> None:
    for name in OPERATIONS:
        normative.operation(name, dtypes=["F64", "F32"])(answer)
    normative_torch.serve("timm", timm.__version__, "Apache-2.0")


if __name__ == "__main__":
    main()
