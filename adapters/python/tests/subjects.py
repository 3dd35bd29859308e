#!/usr/bin/env python3
"""Normalization layers in numpy, right and wrong on purpose, to try the suite on.

    python3 subjects.py NAME            serves one of the programs below
    python3 subjects.py BASE+MISTAKE    a mistake in another correct program than two_pass
    python3 subjects.py --list          names them all

A correct program follows PyTorch's modules in everything that is no rounding: refusals, counters, the meaning of
momentum. It computes in float32 (float64 for F64 input) and rounds once to the type that is stored.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import normative  # noqa: E402

Array = np.ndarray
Affine = tuple[Array | None, Array | None]
Statistics = Callable[[Array], tuple[Array | None, Array]]

CORRECT = {
    "two_pass": "mean, then squared deviations, pairwise sums",
    "sequential": "the same with sums from the first element to the last",
    "welford": "updated element by element, in chunks that are merged",
    "folded": "two passes, output as x·scale + shift",
    "f64": "two passes in float64, whatever the input",
}

MISTAKES = {
    "biased_running_var": "the running variance lacks Bessel's correction (batch norm)",
    "unbiased_output": "the output is divided by the unbiased deviation (not rms norm)",
    "eps_outside": "eps is added to the deviation",
    "eps_dropped": "no eps",
    "eps_squared": "eps² instead of eps",
    "eps_doubled": "eps is added twice",
    "one_pass": "variance as E[x²] − E[x]² (not rms norm)",
    "scale_off": "1/σ is too large by a factor of 1 + 1e-4",
    "f16_statistics": "mean and variance are rounded to f16",
    "momentum_flipped": "momentum weighs the old value (batch norm)",
    "running_std": "the running variance keeps the deviation (batch norm)",
    "eps_in_running_var": "the running variance includes eps (batch norm)",
    "update_in_eval": "eval moves the running statistics (batch norm)",
    "batch_statistics_in_eval": "eval normalizes with the batch (batch norm)",
    "counter_frozen": "num_batches_tracked never moves (batch norm)",
    "cumulative_off_by_one": "the cumulative average weighs 1/(n+1) (batch norm)",
    "strided_groups": "a group is every G-th channel (group norm)",
    "affine_per_group": "a group's first weight and bias serve all its channels (group norm)",
    "leak": "a group's statistics see the first element of the next group, not their own",
    "clipped": "normalized values are cut at ±3",
    "nan_replaced": "NaN in the output becomes 0",
    "batch_of_one_accepted": "one value per channel is normalized, not refused (batch norm, group norm)",
}

#: A longer run of Welford's updates is cut into lanes of this many steps, which are merged in the end.
WELFORD_STEPS = 4096


def refuse(kind: str, message: str, state: dict[str, Any] | None = None) -> None:
    raise normative.Refusal(kind, message, state)


class Program:
    """One way to compute the four operations, with at most one mistake."""

    def __init__(self, name: str) -> None:
        base, _, mistake = name.rpartition("+")
        if not base:
            base, mistake = (name, "") if name in CORRECT else ("two_pass", name)
        if base not in CORRECT or (mistake and mistake not in MISTAKES):
            raise KeyError(name)
        self.base, self.mistake = base, mistake

    def __call__(self, request: normative.Request) -> dict[str, Any]:
        with np.errstate(all="ignore"):
            return getattr(self, request.name)(request)

    # --- the operations -----------------------------------------------------------------------------------------------

    def batch_norm(self, request: normative.Request) -> dict[str, Any]:
        x, p, sent, state = request.tensors["input"], request.parameters, request.tensors, dict(request.state)
        ranks = {1: (2, 3), 2: (4,), 3: (5,)}.get(p["spatial_dims"], range(2, 65))
        if x.ndim not in ranks:
            refuse("shape", f"a {x.ndim}-d input", state)
        train, running = request.mode == "train", [sent.get("running_mean"), sent.get("running_var")]
        tracked = any(statistic is not None for statistic in running)

        # PyTorch counts the batch before it looks at it, so a refused batch counts.
        factor = p["momentum"] or 0.0
        if train and tracked and "num_batches_tracked" in state:
            counted = state["num_batches_tracked"] + 1
            if self.mistake != "counter_frozen":
                state["num_batches_tracked"] = counted
            if p["momentum"] is None:
                if counted == 0:
                    refuse("other", "the cumulative average over no batch", state)
                factor = 1.0 / float(counted + (self.mistake == "cumulative_off_by_one"))

        from_batch = train or not tracked
        channels, count = x.shape[1], x.size // max(x.shape[1], 1)
        if from_batch and math.prod(x.shape[2:], start=x.shape[0]) == 1 and self.mistake != "batch_of_one_accepted":
            refuse("too_few_values", f"one value per channel in an input of shape {list(x.shape)}", state)
        if p["eps"] < 0 or (from_batch and p["eps"] <= 0):
            refuse("parameter", f"eps is {p['eps']}", state)
        if x.size == 0:
            if any(sent[name].size == 0 for name in ("weight", "bias") if name in sent):
                refuse("empty", "an affine map of no channels", state)
            return {"output": x, **state}
        if tracked and any(statistic is None for statistic in running):
            refuse("other", "one of the running statistics without the other", state)
        names = ("weight", "bias", "running_mean", "running_var")
        self.check_types(request, names, state)
        for name in names:
            if name in sent and (sent[name].size != channels or (name.startswith("running") and sent[name].ndim != 1)):
                refuse("shape", f"{name} of shape {list(sent[name].shape)} for {channels} channels", state)

        # Partition: a group is a channel.
        kind = self.accumulator(request)
        groups = np.moveaxis(x, 1, 0).reshape(channels, count).astype(kind)
        affine = self.affine(request, lambda parameter: parameter.reshape(channels, 1))
        stored = None if from_batch else [sent[name].astype(kind).reshape(channels, 1) for name in names[2:]]
        if stored is None or self.mistake in ("update_in_eval", "batch_statistics_in_eval"):
            mean, var = self.moments(groups)
            if tracked and (train or self.mistake == "update_in_eval"):
                bessel = kind(count) / kind(max(count - 1, 1))
                observed = [mean, var if self.mistake == "biased_running_var" else var * bessel]
                state.update(self.update(request, running, observed, kind(factor), kind(p["eps"])))
        if stored is not None and self.mistake != "batch_statistics_in_eval":
            mean, var = stored
        y = self.rescale(groups, mean, var, p["eps"], affine)
        y = np.moveaxis(y.reshape(channels, x.shape[0], *x.shape[2:]), 0, 1)
        return {"output": self.store(y, request.dtypes["input"]), **state}

    def layer_norm(self, request: normative.Request) -> dict[str, Any]:
        self.check_rows(request, ("weight", "bias"))
        self.check_types(request, ("weight", "bias"))
        return self.rows(request, request.parameters["eps"], self.moments)

    def rms_norm(self, request: normative.Request) -> dict[str, Any]:
        self.check_rows(request, ("weight",))
        eps = request.parameters["eps"]
        if eps is None:
            eps = float(np.finfo(np.float64 if request.dtypes["input"] == "F64" else np.float32).eps)
        return self.rows(request, eps, self.mean_square)

    def group_norm(self, request: normative.Request) -> dict[str, Any]:
        x, sent, count = request.tensors["input"], request.tensors, request.parameters["num_groups"]
        if x.ndim < 2:
            refuse("shape", f"a {x.ndim}-d input")
        batch, channels, space = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        if count < 1 or channels % count:
            refuse("parameter", f"{channels} channels in {count} groups")
        if batch * (channels // count) * space == 1 and self.mistake != "batch_of_one_accepted":
            refuse("too_few_values", f"one value per group in an input of shape {list(x.shape)}")
        if channels == 0 or space == 0:
            refuse("empty", f"an input of shape {list(x.shape)}")
        for name in ("weight", "bias"):
            if name in sent and sent[name].shape != (channels,):
                refuse("shape", f"{name} of shape {list(sent[name].shape)} for {channels} channels")
        self.check_types(request, ("weight", "bias"))
        if x.size == 0:
            return {"output": x}

        # Partition: a group is an instance's run of neighbouring channels (the mistake: every G-th channel).
        strided = self.mistake == "strided_groups"

        def split(tensor: Array) -> Array:
            """(…, C, L) to (…, G, C/G, L)."""
            *lead, _, space = tensor.shape
            if strided:
                return np.swapaxes(tensor.reshape(*lead, channels // count, count, space), -3, -2)
            return tensor.reshape(*lead, count, channels // count, space)

        kind = self.accumulator(request)
        parts = split(x.reshape(batch, channels, space))
        groups: Array = parts.reshape(batch * count, -1).astype(kind)

        def spread(parameter: Array) -> Array:
            """A parameter's values in the shape of the groups."""
            parts_of = split(parameter.reshape(channels, 1))
            if self.mistake == "affine_per_group":
                parts_of = np.broadcast_to(parts_of[:, :1], parts_of.shape)
            return np.broadcast_to(parts_of, parts.shape).reshape(groups.shape)

        mean, var = self.moments(groups)
        y = self.rescale(groups, mean, var, request.parameters["eps"], self.affine(request, spread))
        y = y.reshape(parts.shape)
        y = np.swapaxes(y, -3, -2) if strided else y
        return {"output": self.store(y.reshape(x.shape), request.dtypes["input"])}

    def rows(self, request: normative.Request, eps: float, statistics: Statistics) -> dict[str, Any]:
        """Layer norm and rms norm: a group is what lies behind the leading dimensions."""
        x = request.tensors["input"]
        if x.size == 0:
            return {"output": x}
        length = math.prod(request.parameters["normalized_shape"])
        groups = x.reshape(-1, length).astype(self.accumulator(request))
        affine = self.affine(request, lambda parameter: parameter.reshape(1, length))
        mean, var = statistics(groups)
        y = self.rescale(groups, mean, var, eps, affine)
        return {"output": self.store(y.reshape(x.shape), request.dtypes["input"])}

    # --- arithmetic ---------------------------------------------------------------------------------------------------

    def accumulator(self, request: normative.Request) -> type:
        return np.float64 if self.base == "f64" or request.dtypes["input"] == "F64" else np.float32

    def sum(self, values: Array) -> Array:
        """Sums of rows: numpy's are pairwise, a running sum's last element is sequential."""
        if self.base in ("sequential", "welford"):
            return np.cumsum(values, axis=1, dtype=values.dtype)[:, -1:]
        return np.sum(values, axis=1, keepdims=True, dtype=values.dtype)

    def moments(self, groups: Array) -> tuple[Array, Array]:
        """Mean and biased variance of each row."""
        groups = self.seen(groups)
        count = groups.dtype.type(groups.shape[1])
        if self.mistake == "one_pass":
            mean = self.sum(groups) / count
            var = np.maximum(self.sum(groups * groups) / count - mean * mean, 0)
        elif self.base == "welford":
            mean, var = welford(groups)
        else:
            mean = self.sum(groups) / count
            var = self.sum(np.square(groups - mean)) / count
        return self.kept(mean), self.kept(var)

    def mean_square(self, groups: Array) -> tuple[None, Array]:
        """No mean to subtract, and the mean of squares in place of the variance."""
        groups = self.seen(groups)
        square = self.sum(groups * groups) / groups.dtype.type(groups.shape[1])
        return None, self.kept(square)

    def seen(self, groups: Array) -> Array:
        if self.mistake == "leak":
            groups = groups.copy()
            groups[:, 0] = np.roll(groups[:, 0], -1)
        return groups

    def kept(self, statistic: Array) -> Array:
        return statistic.astype(np.float16).astype(statistic.dtype) if self.mistake == "f16_statistics" else statistic

    def rescale(self, groups: Array, mean: Array | None, var: Array, eps: float, affine: Affine) -> Array:
        kind, (weight, bias) = groups.dtype.type, affine
        if self.mistake == "unbiased_output" and mean is not None:
            var = var * kind(groups.shape[1]) / kind(groups.shape[1] - 1)
        if self.mistake == "eps_outside":
            scale = 1 / (np.sqrt(var) + kind(eps))
        else:
            used = {"eps_dropped": 0.0, "eps_squared": eps * eps, "eps_doubled": 2 * eps}.get(self.mistake, eps)
            scale = 1 / np.sqrt(var + kind(used))
        if self.mistake == "scale_off":
            scale = scale * kind(1 + 1e-4)
        if self.base == "folded":
            scale = scale if weight is None else scale * weight
            if mean is not None:
                bias = -mean * scale if bias is None else bias - mean * scale
            y = groups * scale
            return self.finished(y if bias is None else y + bias)
        y = (groups if mean is None else groups - mean) * scale
        if self.mistake == "clipped":
            y = np.clip(y, -3, 3)
        y = y if weight is None else y * weight
        return self.finished(y if bias is None else y + bias)

    def finished(self, y: Array) -> Array:
        return np.where(np.isnan(y), y.dtype.type(0), y) if self.mistake == "nan_replaced" else y

    def update(self, request: normative.Request, old: list, observed: list, factor: Any, eps: Any) -> dict[str, Any]:
        """The running statistics after a batch, each in its own type."""
        if self.mistake == "eps_in_running_var":
            observed[1] = observed[1] + eps
        if self.mistake == "running_std":
            observed[1] = np.sqrt(observed[1])
        if self.mistake == "momentum_flipped":
            factor = 1 - factor
        after = {}
        for name, before, seen in zip(("running_mean", "running_var"), old, observed):
            mixed = (1 - factor) * before.astype(type(factor)) + factor * seen.reshape(before.shape)
            after[name] = self.store(mixed, request.dtypes[name])
        return after

    def affine(self, request: normative.Request, spread: Callable[[Array], Array]) -> Affine:
        kind, sent = self.accumulator(request), request.tensors
        weight = spread(sent["weight"].astype(kind)) if "weight" in sent else None
        bias = spread(sent["bias"].astype(kind)) if "bias" in sent else None
        return weight, bias

    def store(self, values: Array, dtype: str) -> Array:
        if dtype == "BF16":
            return normative.round_bf16(values)
        return values.astype({"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype])

    # --- refusals -----------------------------------------------------------------------------------------------------

    def check_rows(self, request: normative.Request, names: tuple[str, ...]) -> None:
        """Layer norm and rms norm: the normalized shape ends the input's and is the parameters'."""
        shape, tensors = tuple(request.parameters["normalized_shape"]), request.tensors
        if not shape:
            refuse("parameter", "an empty normalized_shape")
        if tensors["input"].shape[-len(shape) :] != shape:
            refuse("shape", f"normalized_shape {list(shape)} for an input of shape {list(tensors['input'].shape)}")
        for name in names:
            if name in tensors and tensors[name].shape != shape:
                refuse("shape", f"{name} of shape {list(tensors[name].shape)} for normalized_shape {list(shape)}")

    def check_types(self, request: normative.Request, names: tuple[str, ...], state: dict | None = None) -> None:
        """All of the input's type or, for the half types, all F32."""
        dtype, found = request.dtypes["input"], {request.dtypes[name] for name in names if name in request.dtypes}
        if not (found <= {dtype} or (dtype in ("F16", "BF16") and found == {"F32"})):
            refuse("dtype", f"{dtype} input with {', '.join(sorted(found))}", state)


def welford(groups: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each row by Welford's updates, many lanes at a time, merged as Chan et al. do."""
    rows, length = groups.shape
    kind = groups.dtype.type
    lanes = -(-length // WELFORD_STEPS)
    steps = length // lanes
    body = groups[:, : lanes * steps].reshape(rows, lanes, steps)
    mean, square = welford_run(body)
    counts = [steps] * lanes
    if rest := length - lanes * steps:
        last = welford_run(groups[:, None, -rest:])
        mean, square = np.hstack([mean, last[0]]), np.hstack([square, last[1]])
        counts.append(rest)
    total, result, squares = counts[0], mean[:, :1], square[:, :1]
    for lane, count in enumerate(counts[1:], start=1):
        delta = mean[:, lane : lane + 1] - result
        weight = kind(count) / kind(total + count)
        result = result + delta * weight
        squares = squares + square[:, lane : lane + 1] + delta * delta * (kind(total) * weight)
        total += count
    return result, squares / kind(length)


def welford_run(lanes: Array) -> tuple[Array, Array]:
    """Welford's updates along the last axis: mean and sum of squared deviations."""
    columns = np.ascontiguousarray(np.moveaxis(lanes, -1, 0))
    mean, square = np.zeros_like(columns[0]), np.zeros_like(columns[0])
    for index, value in enumerate(columns, start=1):
        delta = value - mean
        mean = mean + delta / columns.dtype.type(index)
        square = square + delta * (value - mean)
    return mean, square


DTYPES = ["F64", "F32", "F16", "BF16"]
OPERATIONS = ["batch_norm", "layer_norm", "group_norm", "rms_norm"]


def register(program: Program) -> None:
    for name in OPERATIONS:
        normative.operation(name, dtypes=DTYPES)(program)


def main() -> None:
    if sys.argv[1:] == ["--list"]:
        for name, meaning in {**CORRECT, **MISTAKES}.items():
            print(f"{name:26}{meaning}")
        return
    try:
        program = Program(*sys.argv[1:])
    except (KeyError, TypeError):
        sys.exit(f"usage: subjects.py NAME | BASE+MISTAKE | --list, not {' '.join(sys.argv[1:]) or 'nothing'!r}")
    register(program)
    normative.serve(
        name=f"numpy-{sys.argv[1]}",
        version="1",
        options=["channels_last", "strided"],
        arithmetic={"accumulate": "F64" if program.base == "f64" else "F32", "depth": "any"},
    )


if __name__ == "__main__":
    main()
