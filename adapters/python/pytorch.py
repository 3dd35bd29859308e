#!/usr/bin/env python3
"""PyTorch as a subject: the modules of torch.nn, as a user calls them.

    normative check --subject 'python3 adapters/python/pytorch.py'

Each request builds the real module, gives it the request's parameters and buffers, calls it, and hands back its output
and its buffers. What the module raises becomes a typed refusal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

import normative

try:
    import torch
except ImportError as error:
    print(f"pytorch.py: PyTorch cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import normative_torch

DTYPES = ["F64", "F32", "F16", "BF16"]
OPTIONS = ["gradients", "channels_last", "strided"]


class BatchNormOfAnyRank(_BatchNorm):
    """The module's rules without the rank that its name promises."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")


BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d, None: BatchNormOfAnyRank}


def batch_norm(request: normative.Request) -> nn.Module:
    p, sent = request.parameters, request.tensors
    build = BATCH_NORMS[p["spatial_dims"]]
    module = build(channels(request), p["eps"], p["momentum"], affine=False, track_running_stats=False)
    module.track_running_stats = "running_mean" in sent or "running_var" in sent
    return module


def layer_norm(request: normative.Request) -> nn.Module:
    p = request.parameters
    return nn.LayerNorm(p["normalized_shape"], p["eps"], elementwise_affine=False)


def group_norm(request: normative.Request) -> nn.Module:
    p = request.parameters
    return nn.GroupNorm(p["num_groups"], channels(request), p["eps"], affine=False)


def rms_norm(request: normative.Request) -> nn.Module:
    p = request.parameters
    return nn.RMSNorm(p["normalized_shape"], p["eps"], elementwise_affine=False)


def channels(request: normative.Request) -> int:
    """The number of channels to build a module for; where the input has none, the module itself says so."""
    shape = request.tensors["input"].shape
    return shape[1] if len(shape) > 1 else 1


# How to build an operation's module: with the parameters and buffers absent, which is None until the request sends
# them. A further operation is a further function here.
MODULES: dict[str, Callable[[normative.Request], nn.Module]] = {
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "rms_norm": rms_norm,
}


def answer(request: normative.Request) -> Mapping[str, Any]:
    try:
        module = MODULES[request.name](request)
    except Exception as error:
        raise normative_torch.outcome(error, request) from error
    return normative_torch.call(module, request)


def details(device: str) -> dict[str, str]:
    """What decides the bits of an answer. Nothing here names the machine: recording again gives the same bytes."""
    found = {
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": "on" if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled else "off",
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["compute_capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
        found["cuda"] = str(torch.version.cuda)
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the normalization layers of torch.nn to normative.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads on the CPU (default: 1)")
    arguments = parser.parse_args()
    if arguments.threads < 1:
        parser.error("--threads must be at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("pytorch.py: --device cuda, but PyTorch finds no usable CUDA device", file=sys.stderr)
        sys.exit(3)
    torch.set_num_threads(arguments.threads)

    for name in MODULES:
        normative.operation(name, dtypes=DTYPES)(answer)
    normative.serve(
        name="pytorch",
        version=torch.__version__.split("+")[0],
        device=arguments.device,
        framework="torch",
        options=OPTIONS,
        arithmetic={"accumulate": "F32", "depth": "any"},
        details=details(arguments.device),
    )


if __name__ == "__main__":
    main()
