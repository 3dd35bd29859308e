#!/usr/bin/env python3
"""Flax, Haiku or Equinox as a subject: their normalization layers on JAX, as a user calls them.

    normative check --subject 'python3 adapters/python/flax_layers.py'
    normative check --subject 'python3 adapters/python/flax_layers.py --library haiku'

Batch norm is asked in the library's own dialect: flax, haiku, equinox_ema and equinox_batch; of Flax also layer norm, group
norm and RMS norm, and the three norms with a mask. Channels are axis 1. Flax takes variances in one pass (use_fast_variance,
its default); --two-pass turns that off.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import normative

normative.take_pipe()

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    print(f"flax_layers.py: JAX cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

jax.config.update("jax_enable_x64", True)

DTYPES = ["F64", "F32", "F16", "BF16"]
DIALECTS = {"flax": ["flax"], "haiku": ["haiku"], "equinox": ["equinox_ema", "equinox_batch"]}
PACKAGES = {"flax": "flax", "haiku": "dm-haiku", "equinox": "equinox"}

Answer = dict[str, Any]


def differentiated(request: normative.Request, forward: Callable[[Answer], tuple[Any, Answer]]) -> Answer:
    """The answer of `forward`, a function of the differentiable tensors that gives the output and the state."""
    names = request.differentiable
    sent = {name: request.tensors[name] for name in names}
    if not request.gradients:
        output, state = forward(sent)
        return {"output": output, **stored(request, state)}
    output, pull, state = jax.vjp(forward, sent, has_aux=True)
    (gradients,) = pull(request.tensors["grad_output.output"])
    return {"output": output, **stored(request, state), **{f"grad_{name}": gradients[name] for name in names}}


def stored(request: normative.Request, state: Answer) -> Answer:
    """The state that was sent, in the types that it was sent in: these libraries keep float32 beside half types."""
    return {name: jnp.asarray(state[name]).astype(value.dtype) for name, value in request.state.items()}


def statistics(request: normative.Request, name: str, default: float) -> Any:
    """A vector of the state, or what a new layer has."""
    x = request.tensors["input"]
    return request.tensors.get(name, jnp.full(x.shape[1], default, x.dtype))


def flax_batch_norm(request: normative.Request, two_pass: bool) -> Answer:
    from flax import linen

    p, x = request.parameters, request.tensors["input"]
    # Momentum is the weight of the old value in the dialect flax, of the new one in masked batch norm.
    momentum = 1 - p["momentum"] if request.name == "masked_batch_norm" else p["momentum"]
    layer = linen.BatchNorm(
        use_running_average=request.mode == "eval", axis=1, momentum=momentum, epsilon=p["eps"],
        dtype=x.dtype, use_scale="weight" in request.tensors, use_bias="bias" in request.tensors,
        use_fast_variance=not two_pass,
    )  # fmt: skip
    stats = {"mean": statistics(request, "running_mean", 0.0), "var": statistics(request, "running_var", 1.0)}

    def forward(sent: Answer) -> tuple[Any, Answer]:
        params = {own: sent[name] for own, name in (("scale", "weight"), ("bias", "bias")) if name in sent}
        y, moved = layer.apply(
            {"params": params, "batch_stats": stats}, sent["input"], mask=mask(request), mutable=["batch_stats"]
        )
        moved = moved["batch_stats"] if moved else stats
        return y, {"running_mean": moved["mean"], "running_var": moved["var"]}

    return differentiated(request, forward)


def haiku_batch_norm(request: normative.Request) -> Answer:
    import haiku

    p, tensors, train = request.parameters, request.tensors, request.mode == "train"
    channels = tensors["input"].shape[1]
    shape = [1, channels] + [1] * (tensors["input"].ndim - 2)
    # Its state has the shape of the channels' axis among all axes.
    counter = tensors.get("num_batches_tracked", jnp.zeros((), jnp.int64)).astype(jnp.int32)
    own = {"mean_ema": "mean", "var_ema": "var"}
    state = {
        f"batch_norm/~/{ema}": {
            "hidden": statistics(request, f"hidden_{name}", 0.0).reshape(shape),
            "average": statistics(request, f"running_{name}", 0.0).reshape(shape),
            "counter": counter,
        }
        for ema, name in own.items()
    }

    def forward(sent: Answer) -> tuple[Any, Answer]:
        def layer(x: Any) -> Any:
            norm = haiku.BatchNorm("weight" in sent, "bias" in sent, p["momentum"], p["eps"], data_format="NC...")
            return norm(x, is_training=train)

        params = {name: sent[own].reshape(shape) for name, own in (("scale", "weight"), ("offset", "bias")) if own in sent}
        transformed = haiku.without_apply_rng(haiku.transform_with_state(layer))
        y, moved = transformed.apply({"batch_norm": params}, state, sent["input"])
        answer = {"num_batches_tracked": moved["batch_norm/~/mean_ema"]["counter"]}
        for ema, name in own.items():
            kept = moved[f"batch_norm/~/{ema}"]
            answer[f"running_{name}"] = kept["average"].reshape(channels)
            answer[f"hidden_{name}"] = kept["hidden"].reshape(channels)
        return y, answer

    return differentiated(request, forward)


def equinox_batch_norm(request: normative.Request) -> Answer:
    import equinox

    p, tensors, train = request.parameters, request.tensors, request.mode == "train"
    mode = request.dialect.removeprefix("equinox_")
    x = tensors["input"]
    layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(
        x.shape[1], "batch", eps=p["eps"], momentum=p["momentum"], mode=mode, dtype=x.dtype
    )
    batches = tensors.get("num_batches_tracked", jnp.zeros((), jnp.int64))
    stats = statistics(request, "running_mean", 0.0), statistics(request, "running_var", 1.0)
    if mode == "ema":
        state = state.set(layer.ema_state_index, stats).set(layer.ema_first_time_index, batches == 0)
    else:
        # Its counter is a weakly typed zero, and it takes no other type.
        counter = state.get(layer.batch_counter) + int(batches)
        state = state.set(layer.batch_state_index, stats).set(layer.batch_counter, counter)

    def forward(sent: Answer) -> tuple[Any, Answer]:
        one, zero = jnp.ones(x.shape[1], x.dtype), jnp.zeros(x.shape[1], x.dtype)
        affine = sent.get("weight", one), sent.get("bias", zero)
        own = equinox.tree_at(lambda layer: (layer.weight, layer.bias), layer, affine)
        own = equinox.nn.inference_mode(own, not train)
        y, moved = jax.vmap(own, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(sent["input"], state)
        mean, var = moved.get(own.ema_state_index if mode == "ema" else own.batch_state_index)
        # The flag of the first time stands for a counter: each batch in training counts.
        count = batches + train if mode == "ema" else moved.get(own.batch_counter)
        return y, {"running_mean": mean, "running_var": var, "num_batches_tracked": count}

    return differentiated(request, forward)


def flax_norm(request: normative.Request, two_pass: bool) -> Answer:
    """Flax's norms without state: each a module, the axis of its channels, and the mask that it may take."""
    from flax import linen

    p, x = request.parameters, request.tensors["input"]
    own = {"epsilon": p["eps"], "dtype": x.dtype, "use_scale": "weight" in request.tensors}
    if "num_groups" in p:
        # Channels are last.
        layer = linen.GroupNorm(p["num_groups"], use_bias="bias" in request.tensors, use_fast_variance=not two_pass, **own)
        there, back = (0, *range(2, x.ndim), 1), (0, x.ndim - 1, *range(1, x.ndim - 1))
    else:
        shape = p["normalized_shape"]
        axes = tuple(range(-len(shape), 0))
        if list(x.shape[-len(axes) :]) != list(shape):
            raise normative.Refusal("shape", f"the input's last axes are not {shape}")
        own |= {"reduction_axes": axes, "feature_axes": axes}
        if request.name == "rms_norm":
            layer = linen.RMSNorm(**own)
        else:
            layer = linen.LayerNorm(use_bias="bias" in request.tensors, use_fast_variance=not two_pass, **own)
        there = back = tuple(range(x.ndim))
    kept = {} if (sent_mask := mask(request)) is None else {"mask": sent_mask.transpose(there)}

    def forward(sent: Answer) -> tuple[Any, Answer]:
        params = {own: sent[name] for own, name in (("scale", "weight"), ("bias", "bias")) if name in sent}
        return layer.apply({"params": params}, sent["input"].transpose(there), **kept).transpose(back), {}

    return differentiated(request, forward)


def mask(request: normative.Request) -> Any:
    return request.tensors["mask"].astype(bool) if "mask" in request.tensors else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=DIALECTS, default="flax")
    parser.add_argument("--two-pass", action="store_true", help="Flax: use_fast_variance=False")
    options = parser.parse_args()
    library = options.library
    warnings.filterwarnings("ignore", category=UserWarning)
    layers = {
        "flax": lambda request: flax_batch_norm(request, options.two_pass),
        "haiku": haiku_batch_norm,
        "equinox": equinox_batch_norm,
    }
    normative.operation("batch_norm", dtypes=DTYPES, dialects=DIALECTS[library])(layers[library])
    if library == "flax":
        for name in ("layer_norm", "group_norm", "rms_norm", "masked_layer_norm", "masked_group_norm"):
            normative.operation(name, dtypes=DTYPES)(lambda request: flax_norm(request, options.two_pass))
        normative.operation("masked_batch_norm", dtypes=DTYPES)(layers["flax"])
    licences = {"flax": "Apache-2.0", "haiku": "Apache-2.0", "equinox": "Apache-2.0"}
    details = {"jax": jax.__version__, "licence": licences[library]}
    if options.two_pass:
        details["use_fast_variance"] = "False"
    normative.serve(
        name=library, version=version(PACKAGES[library]), framework="jax", options=["gradients"], details=details
    )


if __name__ == "__main__":
    main()
