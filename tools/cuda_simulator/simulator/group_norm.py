"""Launches ATen's group norm of a contiguous (N, C, L), forward and backward: see `kernels`."""

from __future__ import annotations

import struct

import numpy as np

from .kernels import Array, Device


def forward(
    device: Device, x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float, aligned: bool = True
) -> tuple[Array, Array, Array]:
    """The output, and each group's mean and 1/sigma."""
    n, c, l = x.shape
    size = c // groups * l
    memory = device.memory
    mean, rstd = memory.empty(n * groups), memory.empty(n * groups)
    vector = 4 if aligned and size % 4 == 0 else 1
    parameters = struct.pack("<qf4xQQQQQ", size, eps, device.put(x), mean, rstd, mean, rstd)
    device.run(f"group_norm_moments_{vector}", parameters, (n * groups, 1), (32 if size < 512 else 512, 1))
    statistics = [memory.get(each, n * groups).reshape(n, groups, 1) for each in (mean, rstd)]
    return _transform(device, x, groups, weight, bias, statistics), *(t.reshape(-1) for t in statistics)


def _transform(
    device: Device, x: Array, groups: int, weight: Array | None, bias: Array | None, statistics: list[Array]
) -> Array:
    n, c, l = x.shape
    memory = device.memory
    mean, rstd = (device.put(t) for t in statistics)
    if l == 1:
        affine = [("_weight", weight), ("_bias", bias)]
        name = "group_norm_1d" + "".join(suffix for suffix, t in affine if t is not None)
        vectors = [t.reshape(1, groups, -1) for _, t in affine if t is not None]
        return device.elementwise(name, [x.reshape(n, groups, -1), *statistics, *vectors]).reshape(x.shape)
    if weight is None and bias is None:
        return device.elementwise("group_norm_plain", [x.reshape(n, groups, -1), *statistics]).reshape(x.shape)
    a, b = memory.empty(n * c), memory.empty(n * c)
    pointers = (mean, rstd, device.put(weight), device.put(bias), a, b)
    device.run("group_norm_fold", struct.pack("<qqqQQQQQQ", n, c, groups, *pointers), (-(-n * c // 256), 1), (256, 1))
    factors = [memory.get(each, n * c).reshape(n, c, 1) for each in (a, b)]
    return device.elementwise("group_norm_folded", [x, *factors])


def backward(
    device: Device,
    dy: Array,
    x: Array,
    groups: int,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    aligned: bool = True,
) -> tuple[Array, Array, Array]:
    """The gradients of input, weight and bias."""
    n, c, l = x.shape
    if n > 128:
        raise BatchTooLarge(f"{n} samples")
    memory = device.memory
    mu, r, w = (device.put(t) for t in (mean, rstd, weight))
    c2, c3, dw, db = (memory.empty(size) for size in (n * groups, n * groups, c, c))
    wide = 32 if c // groups < 512 else 512
    if l == 1:
        g, v = device.put(dy), device.put(x)
        parameters = struct.pack("<qqQQQQQQQ", c, groups, g, v, mu, r, w, c2, c3)
        device.run("group_norm_backward_1d_fold", parameters, (n, groups), (wide, 1))
        parameters = struct.pack("<qqqQQQQQQ", n, c, groups, g, v, mu, r, dw, db)
        device.run("group_norm_backward_1d_weight", parameters, (-(-c // 256), 1), (256, 1))
    else:
        ds, sums = memory.empty(n * c), memory.empty(n * c)
        vector = 4 if aligned and l % 4 == 0 else 1
        parameters = struct.pack("<qQQQQ", l, device.put(dy), device.put(x), ds, sums)
        device.run(f"group_norm_backward_sums_{vector}", parameters, (n * c, 1), (32 if l < 512 else 512, 1))
        parameters = struct.pack("<qqqQQQQQQQ", c, l, groups, mu, r, w, ds, sums, c2, c3)
        device.run("group_norm_backward_fold", parameters, (n, groups), (wide, 1))
        parameters = struct.pack("<qqqQQQQQQ", n, c, groups, mu, r, ds, sums, dw, db)
        device.run("group_norm_backward_weight", parameters, (-(-c // 256), 1), (256, 1))
    factors = [memory.get(each, n * groups).reshape(n, groups, 1, 1) for each in (c2, c3)]
    grouped = [t.reshape(n, groups, c // groups, l) for t in (dy, x)]
    roots = rstd.reshape(n, groups, 1, 1)
    if weight is not None:
        per_channel = weight.reshape(1, groups, c // groups, 1)
        if l == 1:
            dx = device.elementwise("group_norm_backward_1d_input", [*grouped, roots, per_channel, *factors])
            return dx.reshape(x.shape), memory.get(dw, c), memory.get(db, c)
        channels = (n, groups, c // groups, 1)
        spread = [np.broadcast_to(each, channels) for each in (roots, per_channel)]
        roots = device.elementwise("group_norm_backward_scale", spread)
    name = "group_norm_backward_1d_input_plain" if l == 1 else "group_norm_backward_input"
    dx = device.elementwise(name, [*grouped, roots, *factors])
    return dx.reshape(x.shape), memory.get(dw, c), memory.get(db, c)


class BatchTooLarge(Exception):
    """From 129 samples on the parameters' gradients are added up by another kernel, which is not simulated."""
