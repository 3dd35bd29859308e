#!/usr/bin/env python3
"""onnxruntime as a subject: ONNX's normalization operators on the CPU provider, each in a model of one node.

    normative check --subject 'python3 adapters/python/onnx_layers.py'

Batch norm is BatchNormalization-15, asked in the dialect onnx: its running statistics go in and come out of the node. The
others are LayerNormalization-17, GroupNormalization-21, RMSNormalization-23 and LRN-13.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import normative

normative.take_pipe()

try:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper
except ImportError as error:
    print(f"onnx_layers.py: onnx or onnxruntime cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

DTYPES = ["F64", "F32"]
TYPES = {np.dtype(np.float64): TensorProto.DOUBLE, np.dtype(np.float32): TensorProto.FLOAT}
#: Of each operator the set that has its newest definition.
OPSETS = {
    "BatchNormalization": 15, "LayerNormalization": 17, "GroupNormalization": 21, "RMSNormalization": 23, "LRN": 13,
}  # fmt: skip

onnxruntime.set_default_logger_severity(3)


def run(node: str, inputs: dict[str, np.ndarray], outputs: dict[str, tuple[int, ...]], **attributes: Any) -> list[Any]:
    """What a model of one node makes of `inputs`, given in the order of the operator; shapes of its outputs by name."""
    x = inputs["input"]
    described = [helper.make_tensor_value_info(name, TYPES[value.dtype], value.shape) for name, value in inputs.items()]
    results = [helper.make_tensor_value_info(name, TYPES[x.dtype], shape) for name, shape in outputs.items()]
    graph = helper.make_graph([helper.make_node(node, list(inputs), list(outputs), **attributes)], "one", described, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSETS[node])], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(outputs), inputs)


@normative.operation("batch_norm", dtypes=DTYPES, dialects=["onnx"])
def batch_norm(request: normative.Request) -> dict[str, Any]:
    p, tensors = request.parameters, request.tensors
    x, train = tensors["input"], request.mode == "train"
    channels = x.shape[1]

    def vector(name: str, default: float) -> np.ndarray:
        return tensors.get(name, np.full(channels, default, x.dtype))

    inputs = {
        "input": x, "weight": vector("weight", 1), "bias": vector("bias", 0),
        "running_mean": vector("running_mean", 0), "running_var": vector("running_var", 1),
    }  # fmt: skip
    outputs = {"output": x.shape}
    if train:
        outputs |= {"new_mean": (channels,), "new_var": (channels,)}
    results = run(
        "BatchNormalization", inputs, outputs, epsilon=p["eps"], momentum=p["momentum"], training_mode=int(train)
    )
    state = results[1:] if train else [inputs["running_mean"], inputs["running_var"]]
    moved = dict(zip(("running_mean", "running_var"), state, strict=True))
    return {"output": results[0], **{name: moved[name] for name in request.state}}


def normalized_shape(request: normative.Request) -> tuple[int, ...]:
    """The last axes of the input, which the operators know by their number alone."""
    shape = tuple(request.parameters["normalized_shape"])
    if not shape or request.tensors["input"].shape[-len(shape) :] != shape:
        raise normative.Refusal("shape", f"the input's last axes are not {list(shape)}")
    return shape


@normative.operation("layer_norm", dtypes=DTYPES)
def layer_norm(request: normative.Request) -> dict[str, Any]:
    p, tensors = request.parameters, request.tensors
    x, shape = tensors["input"], normalized_shape(request)
    inputs = {"input": x, "weight": tensors.get("weight", np.ones(shape, x.dtype))}
    if "bias" in tensors:
        inputs["bias"] = tensors["bias"]
    return {"output": run("LayerNormalization", inputs, {"output": x.shape}, epsilon=p["eps"], axis=-len(shape))[0]}


@normative.operation("group_norm", dtypes=DTYPES)
def group_norm(request: normative.Request) -> dict[str, Any]:
    p, tensors = request.parameters, request.tensors
    x = tensors["input"]
    channels = (x.shape[1] if x.ndim > 1 else 1,)
    inputs = {
        "input": x, "weight": tensors.get("weight", np.ones(channels, x.dtype)),
        "bias": tensors.get("bias", np.zeros(channels, x.dtype)),
    }  # fmt: skip
    result = run("GroupNormalization", inputs, {"output": x.shape}, epsilon=p["eps"], num_groups=p["num_groups"])
    return {"output": result[0]}


@normative.operation("rms_norm", dtypes=DTYPES)
def rms_norm(request: normative.Request) -> dict[str, Any]:
    p, tensors = request.parameters, request.tensors
    x, shape = tensors["input"], normalized_shape(request)
    inputs = {"input": x, "weight": tensors.get("weight", np.ones(shape, x.dtype))}
    eps = np.finfo(x.dtype).eps if p["eps"] is None else p["eps"]
    return {"output": run("RMSNormalization", inputs, {"output": x.shape}, epsilon=float(eps), axis=-len(shape))[0]}


if __name__ == "__main__":
    details = {
        "onnx": onnx.__version__, "opsets": ", ".join(map(str, OPSETS.values())), "provider": "CPUExecutionProvider",
        "licence": "MIT", "source": "https://github.com/microsoft/onnxruntime",
    }  # fmt: skip
    normative.serve(name="onnxruntime", version=onnxruntime.__version__, details=details)
