#!/usr/bin/env python3
"""MLX as a subject: the norms of mlx.nn on its CPU backend.

    python3 -m venv venv && venv/bin/pip install 'mlx[cpu]==0.32.4' numpy
    normative check --subject 'venv/bin/python adapters/python/mlx_layers.py'

Channels are last in MLX, and are moved there and back. Group norm is asked with pytorch_compatible=True, or without it with
--strided-groups, where channel c is of group c mod G. A layer has a weight if it has a bias, and group norm both or neither:
what was not sent of the two is 1 or 0, as in a new layer. MLX has no F64 on its GPUs, and half types come out as F32 where
parameters are F32: F32 is claimed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

import normative

normative.take_pipe()

try:
    import mlx.core as mx
    from mlx import nn
except ImportError as error:
    print(f"mlx_layers.py: MLX cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

DTYPES = ["F32"]


def call(layer: nn.Module, request: normative.Request, arranged: Callable[[mx.array], mx.array]) -> dict[str, Any]:
    """The answer of a layer that is given the request's tensors; `arranged` lays the input out as the layer takes it."""
    tensors = {name: mx.array(np.ascontiguousarray(value)) for name, value in request.tensors.items()}
    sent = {name: tensors[name] for name in ("input", "weight", "bias") if name in tensors}
    names = list(sent)

    def forward(*values: mx.array) -> list[mx.array]:
        now = dict(zip(names, values, strict=True))
        for name in names[1:]:
            if name not in layer or layer[name].size != now[name].size:
                raise normative.Refusal("shape", f"{name} has shape {now[name].shape}")
            layer[name] = now[name].reshape(layer[name].shape)
        x = now["input"]
        return [unarranged(layer(arranged(x)), x.shape, arranged)]

    if request.gradients:
        outputs, gradients = mx.vjp(forward, list(sent.values()), [tensors["grad_output.output"]])
    else:
        outputs, gradients = forward(*sent.values()), []
    answer = {"output": np.array(outputs[0])}
    return answer | {f"grad_{name}": np.array(value) for name, value in zip(names, gradients, strict=False)}


def unarranged(y: mx.array, shape: tuple[int, ...], arranged: Callable[[mx.array], mx.array]) -> mx.array:
    if arranged is channels_last:
        return y.transpose(0, y.ndim - 1, *range(1, y.ndim - 1))
    return y.reshape(shape)


def channels_last(x: mx.array) -> mx.array:
    return x.transpose(0, *range(2, x.ndim), 1)


def trailing(request: normative.Request) -> tuple[int, Callable[[mx.array], mx.array]]:
    """MLX's layer and RMS norm normalize one axis; several come to it as one."""
    shape = request.parameters["normalized_shape"]
    leading = list(request.tensors["input"].shape[: -len(shape)])
    if not shape or list(request.tensors["input"].shape[len(leading) :]) != list(shape):
        raise normative.Refusal("shape", f"the input's last axes are not {shape}")
    size = int(np.prod(shape))
    return size, lambda x: x.reshape([*leading, size])


@normative.operation("batch_norm", dtypes=DTYPES, dialects=["mlx"])
def batch_norm(request: normative.Request) -> dict[str, Any]:
    p, tensors = request.parameters, request.tensors
    tracked = "running_mean" in tensors
    layer = nn.BatchNorm(tensors["input"].shape[1], p["eps"], p["momentum"], has_affine(request), tracked)
    layer.train(request.mode == "train")
    for name in request.state:
        layer[name] = mx.array(np.ascontiguousarray(tensors[name]))
    try:
        answer = call(layer, request, channels_last)
    except ValueError as error:
        kind = "too_few_values" if "more than one value" in str(error) else "shape"
        raise normative.Refusal(kind, str(error)) from error
    return answer | {name: np.array(layer[name]) for name in request.state}


def has_affine(request: normative.Request) -> bool:
    return "weight" in request.tensors or "bias" in request.tensors


@normative.operation("layer_norm", dtypes=DTYPES)
def layer_norm(request: normative.Request) -> dict[str, Any]:
    size, arranged = trailing(request)
    layer = nn.LayerNorm(size, request.parameters["eps"], has_affine(request), "bias" in request.tensors)
    return call(layer, request, arranged)


@normative.operation("rms_norm", dtypes=DTYPES)
def rms_norm(request: normative.Request) -> dict[str, Any]:
    size, arranged = trailing(request)
    return call(nn.RMSNorm(size, request.parameters["eps"]), request, arranged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strided-groups", action="store_true", help="group norm without pytorch_compatible")
    compatible = not parser.parse_args().strided_groups

    @normative.operation("group_norm", dtypes=DTYPES)
    def group_norm(request: normative.Request) -> dict[str, Any]:
        p, channels = request.parameters, request.tensors["input"].shape[1]
        layer = nn.GroupNorm(p["num_groups"], channels, p["eps"], has_affine(request), compatible)
        return call(layer, request, channels_last)

    details = {"device": "cpu", "licence": "MIT", "source": "https://github.com/ml-explore/mlx"}
    normative.serve(name="mlx", version=version("mlx"), options=["gradients"], details=details)


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    main()
