#!/usr/bin/env python3
"""TensorFlow as a subject: its fused batch norm on a CPU, in the dialect tensorflow.

    python3 -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0
    normative check --subject 'venv/bin/python adapters/python/tensorflow_layers.py'

The kernel is FusedBatchNormV3, which Keras calls for images where its backend is TensorFlow; Keras' momentum m is the
kernel's exponential_avg_factor 1 − m. Channels are last on a CPU, and are moved there and back.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import normative

normative.take_pipe()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

try:
    import tensorflow as tf
except ImportError as error:
    print(f"tensorflow_layers.py: TensorFlow cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)


@normative.operation("batch_norm", dtypes=["F32"], dialects=["tensorflow"])
def batch_norm(request: normative.Request) -> dict[str, Any]:
    p, tensors, train = request.parameters, request.tensors, request.mode == "train"
    x = tensors["input"]
    if x.ndim != 4:
        raise normative.Refusal("shape", f"FusedBatchNormV3 takes images, not rank {x.ndim}")
    channels = x.shape[1]
    sent = {name: tf.constant(tensors[name]) for name in ("input", "weight", "bias") if name in tensors}
    mean = tf.constant(tensors["running_mean"]) if "running_mean" in tensors else tf.zeros(channels)
    variance = tf.constant(tensors["running_var"]) if "running_var" in tensors else tf.ones(channels)

    def forward() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # Its moving averages come out of the kernel: (1 − f)·old + f·new, of the unbiased variance.
        y, new_mean, new_variance = tf.compat.v1.nn.fused_batch_norm(
            tf.transpose(sent["input"], (0, 2, 3, 1)), sent.get("weight", tf.ones(channels)),
            sent.get("bias", tf.zeros(channels)), mean, variance, epsilon=p["eps"], is_training=train,
            exponential_avg_factor=1.0 - p["momentum"],
        )  # fmt: skip
        return tf.transpose(y, (0, 3, 1, 2)), new_mean, new_variance

    with tf.GradientTape() as tape:
        for value in sent.values():
            tape.watch(value)
        y, new_mean, new_variance = forward()
    answer = {"output": y.numpy()}
    moved = {"running_mean": new_mean if train else mean, "running_var": new_variance if train else variance}
    answer |= {name: moved[name].numpy() for name in request.state}
    if request.gradients:
        names = request.differentiable
        gradients = tape.gradient(y, [sent[name] for name in names], tf.constant(tensors["grad_output.output"]))
        answer |= {f"grad_{name}": value.numpy() for name, value in zip(names, gradients, strict=True)}
    return answer


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    details = {"kernel": "FusedBatchNormV3", "licence": "Apache-2.0", "source": "https://github.com/tensorflow/tensorflow"}
    normative.serve(name="tensorflow", version=tf.__version__, options=["gradients"], details=details)
