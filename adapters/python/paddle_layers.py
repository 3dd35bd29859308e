#!/usr/bin/env python3
"""PaddlePaddle as a subject: the norms of paddle.nn on a CPU.

    python3 -m venv venv && venv/bin/pip install paddlepaddle==3.3.1 numpy
    normative check --subject 'venv/bin/python adapters/python/paddle_layers.py'

Batch norm is asked in the dialect paddle. What was not sent of weight and bias is left out, weight_attr=False.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import normative

normative.take_pipe()

try:
    import paddle
except ImportError as error:
    print(f"paddle_layers.py: PaddlePaddle cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

DTYPES = ["F64", "F32"]
#: What Paddle's layers call the request's tensors.
NAMES = {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}


def call(layer: paddle.nn.Layer, request: normative.Request) -> dict[str, Any]:
    """The answer of a layer that is given the request's tensors."""
    sent = {name: paddle.to_tensor(np.ascontiguousarray(value)) for name, value in request.tensors.items()}
    layer.train() if request.mode == "train" else layer.eval()
    leaves = {"input": sent["input"]}
    for name, own in NAMES.items():
        if name in sent:
            target = getattr(layer, own)
            # A layer norm over several axes holds its weight as one row.
            shape = request.parameters.get("normalized_shape", list(target.shape))
            if list(sent[name].shape) != shape:
                raise normative.Refusal("shape", f"{name} has shape {sent[name].shape}, not {shape}")
            target.set_value(sent[name].reshape(target.shape))
            leaves[name] = target
    leaves["input"].stop_gradient = not request.gradients
    output = layer(sent["input"])
    answer = {"output": output.numpy()}
    for name in request.state:
        answer[name] = getattr(layer, NAMES[name]).numpy()
    if request.gradients:
        targets = [leaves[name] for name in request.differentiable]
        gradients = paddle.grad([output], targets, [sent["grad_output.output"]], allow_unused=True)
        for name, target, value in zip(request.differentiable, targets, gradients, strict=True):
            gradient = np.zeros_like(target.numpy()) if value is None else value.numpy()
            answer[f"grad_{name}"] = gradient.reshape(request.tensors[name].shape)
    return answer


def attributes(request: normative.Request) -> dict[str, Any]:
    """A layer without weight or bias is built with False in its place."""
    return {f"{name}_attr": None if name in request.tensors else False for name in ("weight", "bias")}


def batch_norm(request: normative.Request) -> paddle.nn.Layer:
    p, shape = request.parameters, request.tensors["input"].shape
    by_rank = {2: paddle.nn.BatchNorm1D, 3: paddle.nn.BatchNorm1D, 4: paddle.nn.BatchNorm2D, 5: paddle.nn.BatchNorm3D}
    return by_rank[len(shape)](shape[1], momentum=p["momentum"], epsilon=p["eps"], **attributes(request))


def layer_norm(request: normative.Request) -> paddle.nn.Layer:
    p = request.parameters
    return paddle.nn.LayerNorm(p["normalized_shape"], p["eps"], **attributes(request))


def group_norm(request: normative.Request) -> paddle.nn.Layer:
    p = request.parameters
    return paddle.nn.GroupNorm(p["num_groups"], request.tensors["input"].shape[1], p["eps"], **attributes(request))


OPERATIONS: dict[str, Callable[[normative.Request], paddle.nn.Layer]] = {
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
}


def answer(request: normative.Request) -> dict[str, Any]:
    # Layers and their parameters are of Paddle's default type.
    paddle.set_default_dtype("float64" if request.dtypes["input"] == "F64" else "float32")
    try:
        return call(OPERATIONS[request.name](request), request)
    except ValueError as error:
        # Without the place in Paddle's source, and the trace of its own code.
        lines = [line for line in str(error).splitlines() if "InvalidArgument" in line] or [str(error)]
        raise normative.Refusal("parameter" if "epsilon" in lines[0] else "shape", lines[0].strip()) from error


if __name__ == "__main__":
    paddle.set_device("cpu")
    for operation in OPERATIONS:
        dialects = {"dialects": ["paddle"]} if operation == "batch_norm" else {}
        normative.operation(operation, dtypes=DTYPES, **dialects)(answer)
    details = {"licence": "Apache-2.0", "source": "https://github.com/PaddlePaddle/Paddle"}
    normative.serve(name="paddle", version=paddle.__version__, options=["gradients"], details=details)
