#!/usr/bin/env python3
"""Keras as a subject: its normalization layers on the JAX backend, as a user calls them.

    normative check --subject 'python3 adapters/python/keras_layers.py'

Batch norm is asked in the dialect keras. Channels are axis 1. A half type is a policy: float16 or bfloat16 where the
parameters are of that type, mixed_float16 or mixed_bfloat16 where they are float32.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import normative

normative.take_pipe()

try:
    import jax
    import keras
except ImportError as error:
    print(f"keras_layers.py: Keras or JAX cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

jax.config.update("jax_enable_x64", True)

DTYPES = ["F64", "F32", "F16", "BF16"]
POLICIES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def policy(request: normative.Request) -> str:
    """The policy of a layer that computes in the input's type and keeps its variables in the parameters'."""
    own = request.dtypes["input"]
    others = {dtype for name, dtype in request.dtypes.items() if name in ("weight", "bias", "running_mean")}
    mixed = own in ("F16", "BF16") and "F32" in others
    return ("mixed_" if mixed else "") + POLICIES[own]


def call(layer: Any, request: normative.Request, names: dict[str, str], **arguments: Any) -> dict[str, Any]:
    """The layer's answer; `names` maps the protocol's tensors to the layer's variables."""
    tensors = request.tensors
    x = tensors["input"]
    layer.build(x.shape)
    known = {variable.path: tensors[name] for name, own in names.items() if name in tensors
             for variable in [getattr(layer, own)]}  # fmt: skip

    def values(variables: Any) -> list[Any]:
        return [known.get(variable.path, variable.value) for variable in variables]

    def forward(x: Any, trainable: Any) -> tuple[Any, Any]:
        return layer.stateless_call(trainable, values(layer.non_trainable_variables), x, **arguments)

    if request.gradients:
        output, pull, state = jax.vjp(forward, x, values(layer.trainable_variables), has_aux=True)
    else:
        output, state = forward(x, values(layer.trainable_variables))
    answer = {"output": output}
    paths = {getattr(layer, own).path: name for name, own in names.items() if name in tensors}
    for variable, value in zip(layer.non_trainable_variables, state, strict=True):
        if variable.path in paths:
            answer[paths[variable.path]] = value
    if request.gradients:
        grad_input, grads = pull(tensors["grad_output.output"])
        answer["grad_input"] = grad_input
        for variable, value in zip(layer.trainable_variables, grads, strict=True):
            if variable.path in paths:
                answer["grad_" + paths[variable.path]] = value
    return answer


@normative.operation("batch_norm", dtypes=DTYPES, dialects=["keras"])
def batch_norm(request: normative.Request) -> dict[str, Any]:
    p, tensors = request.parameters, request.tensors
    layer = keras.layers.BatchNormalization(
        axis=1, momentum=p["momentum"], epsilon=p["eps"], center="bias" in tensors, scale="weight" in tensors,
        dtype=policy(request),
    )  # fmt: skip
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    return call(layer, request, names, training=request.mode == "train")


@normative.operation("layer_norm", dtypes=DTYPES)
def layer_norm(request: normative.Request) -> dict[str, Any]:
    p, tensors = request.parameters, request.tensors
    axes = list(range(-len(p["normalized_shape"]), 0))
    if list(tensors["input"].shape[-len(axes) :]) != list(p["normalized_shape"]):
        raise normative.Refusal("shape", f"the input's last axes are not {p['normalized_shape']}")
    layer = keras.layers.LayerNormalization(
        axis=axes, epsilon=p["eps"], center="bias" in tensors, scale="weight" in tensors, dtype=policy(request)
    )
    return call(layer, request, {"weight": "gamma", "bias": "beta"})


@normative.operation("group_norm", dtypes=DTYPES)
def group_norm(request: normative.Request) -> dict[str, Any]:
    p, tensors = request.parameters, request.tensors
    layer = keras.layers.GroupNormalization(
        groups=p["num_groups"], axis=1, epsilon=p["eps"], center="bias" in tensors, scale="weight" in tensors,
        dtype=policy(request),
    )  # fmt: skip
    return call(layer, request, {"weight": "gamma", "bias": "beta"})


if __name__ == "__main__":
    details = {"jax": jax.__version__, "licence": "Apache-2.0", "source": "https://github.com/keras-team/keras"}
    normative.serve(
        name="keras", version=keras.__version__, framework="jax", options=["gradients"], details=details
    )
