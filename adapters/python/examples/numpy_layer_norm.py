#!/usr/bin/env python3
"""A layer norm written by hand, served to normative.

Judge it with: normative check --subject 'python3 adapters/python/examples/numpy_layer_norm.py'
"""

import numpy as np

import normative


@normative.operation("layer_norm", dtypes=["F64", "F32", "F16"])
def layer_norm(request):
    x, weight, bias = (request.tensors.get(name) for name in ("input", "weight", "bias"))
    shape, eps = tuple(request.parameters["normalized_shape"]), request.parameters["eps"]
    if not shape or x.shape[-len(shape) :] != shape:
        raise normative.Refusal("shape", f"an input of shape {x.shape} does not end in {shape}")
    for parameter in (weight, bias):
        if parameter is not None and parameter.shape != shape:
            raise normative.Refusal("shape", f"a parameter has shape {parameter.shape}, not {shape}")
        if parameter is not None and parameter.dtype not in (x.dtype, np.float32 if x.dtype == np.float16 else x.dtype):
            raise normative.Refusal("dtype", f"a {x.dtype} input with a {parameter.dtype} parameter")

    axes = tuple(range(-len(shape), 0))
    wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32)  # half types are computed in float32
    deviation = wide - wide.mean(axes, keepdims=True)
    variance = np.square(deviation).mean(axes, keepdims=True)
    y = deviation / np.sqrt(variance + wide.dtype.type(eps))
    y = y if weight is None else y * weight.astype(wide.dtype)
    y = y if bias is None else y + bias.astype(wide.dtype)
    return {"output": y.astype(x.dtype)}


if __name__ == "__main__":
    normative.serve(name="numpy layer norm", version="1")
