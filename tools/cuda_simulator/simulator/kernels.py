"""Launches ATen's kernels as its host code does: which kernel, how many threads, which parameters.

The conditions and sizes are those of PyTorch's source (aten/src/ATen/native/cuda: layer_norm_kernel.cu,
Normalization.cu and .cuh, group_norm_kernel.cu); host code is not simulated. All buffers are aligned here, and
`aligned=False` says that the caller's input was not, which keeps vectorized kernels from it. All is float32.

One thing differs: where ATen broadcasts operands through a TensorIterator with strides, they are spread out here first
and the vectorized kernel of the same function is launched, whose arithmetic for an element is the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from . import extract
from .machine import Memory, launch

Array = np.ndarray


class Device:
    """Kernels of one architecture, and a memory for one call."""

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        self.memory = Memory()

    def run(self, name: str, parameters: bytes, grid: tuple[int, int], block: tuple[int, int]) -> None:
        launch(extract.kernel(name, self.architecture), self.memory, parameters, grid, block)

    def put(self, array: Array | None) -> int:
        return 0 if array is None else self.memory.put(np.asarray(array, np.float32))

    def elementwise(self, name: str, inputs: Sequence[Array], head: bytes = b"") -> Array:
        """A function of one element of each input. `head` are its own values, between the number and the pointers."""
        shape, count = inputs[0].shape, inputs[0].size
        spread = [self.put(np.broadcast_to(each, shape)) for each in inputs]
        out = self.memory.empty(count)
        pointers = struct.pack(f"<{1 + len(spread)}Q", out, *spread)
        self.run(name, struct.pack("<i4x", count) + head + pointers, (-(-count // 1024), 1), (128, 1))
        return self.memory.get(out, *shape)


# --- layer norm and RMS norm: M rows of N values ----------------------------------------------------------------------


def row_norm(
    device: Device, norm: str, x: Array, weight: Array | None, bias: Array | None, eps: float, aligned: bool = True
) -> tuple[Array, Array, Array]:
    """`layer_norm` or `rms_norm` of each row: the output, the means and 1/sigma. `aligned` says where the input starts."""
    m, n = x.shape
    memory = device.memory
    pointers = [device.put(t) for t in (x, weight, bias)]
    mean, rstd, y = memory.empty(m), memory.empty(m), memory.empty(m, n)
    if aligned and n % 4 == 0 and n <= 1 << 24:
        parameters = struct.pack("<ifQQQQQQ", n, eps, *pointers, mean, rstd, y)
        device.run(norm, parameters, (m, 1), (32, 4))
    else:
        moments = struct.pack("<qqf4xQQQ", m, n, eps, pointers[0], mean, rstd)
        device.run(f"{norm}_moments", moments, (m, 1), (512, 1))
        parameters = struct.pack("<qqQQQQQQ", m, n, pointers[0], mean, rstd, pointers[1], pointers[2], y)
        device.run(f"{norm}_apply", parameters, (m, 1), (256, 1))
    return memory.get(y, m, n), memory.get(mean, m), memory.get(rstd, m)


def row_norm_gradients(
    device: Device, norm: str, dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None, aligned: bool = True
) -> tuple[Array, Array, Array]:
    """The gradients of the input, the weight and the bias."""
    m, n = x.shape
    memory = device.memory
    g, v, mu, r, w = (device.put(t) for t in (dy, x, mean, rstd, weight))
    dx, dw, db = memory.empty(m, n), memory.empty(n), memory.empty(n)
    form = "_vectorized" if aligned and n % 4 == 0 else ""
    device.run(f"{norm}_grad_input{form}", struct.pack("<QQQQQQi", g, v, mu, r, w, dx, n), (m, 1), (128, 1))
    height, rows = next(
        (h, k) for h, k, most in ((1, 8, 64), (8, 64, 128), (16, 128, 256), (32, 256, 1 << 16)) if m < most
    )
    whole = "_aligned" if m % rows == 0 and n % 32 == 0 else ""
    parameters = struct.pack("<qqQQQQQQ", m, n, g, v, mu, r, dw, db)
    device.run(f"{norm}_grad_weight_{rows}{whole}", parameters, (-(-n // 32), 1), (32, height))
    return memory.get(dx, m, n), memory.get(dw, n), memory.get(db, n)


# --- batch norm of a contiguous (N, C, L) -----------------------------------------------------------------------------


def _threads(count: int) -> int:
    return next((t for t in (32, 64, 128, 256) if count <= t), 512)


def _accessor3(pointer: int, n: int, c: int, l: int) -> bytes:
    return struct.pack("<Qiiiiii", pointer, n, c, l, c * l, l, 1)


def _accessor1(pointer: int, c: int) -> bytes:
    """A vector of the channels, which may be absent."""
    return struct.pack("<Qii", pointer, c if pointer else 0, 1)


def batch_statistics(device: Device, x: Array) -> tuple[Array, Array]:
    """Each channel's mean and biased variance."""
    n, c, l = x.shape
    memory = device.memory
    mean, var = memory.empty(c), memory.empty(c)
    unused = struct.pack("<ff", 1e-5, 0.0)
    parameters = _accessor3(device.put(x), n, c, l) + unused + _accessor1(mean, c) + _accessor1(var, c)
    width = _threads(l)
    device.run("batch_norm_statistics", parameters, (c, 1), (width, max(1, 512 // width)))
    return memory.get(mean, c), memory.get(var, c)


def batch_update(
    device: Device, mean: Array, var: Array, running: tuple[Array, Array], momentum: float, eps: float, count: int
) -> tuple[Array, Array, Array]:
    """The running statistics after the batch, and 1/sigma."""
    memory, c = device.memory, mean.size
    outs = [memory.empty(c) for _ in range(3)]
    inputs = [device.put(t) for t in (mean, var, *running)]
    bessel = float(np.float32(count / (count - 1)))
    parameters = struct.pack("<i4xfff12x7Q", c, bessel, momentum, eps, *outs, *inputs)
    device.run("batch_norm_update", parameters, (-(-c // 1024), 1), (128, 1))
    new_mean, new_var, rstd = (memory.get(out, c) for out in outs)
    return new_mean, new_var, rstd


def invert(device: Device, var: Array, eps: float) -> Array:
    """1/sqrt(var + eps)."""
    return device.elementwise("batch_norm_invert", [var], struct.pack("<f12x", eps))


def batch_transform(
    device: Device, x: Array, mean: Array, rstd: Array, weight: Array | None, bias: Array | None
) -> Array:
    n, c, l = x.shape
    y = device.memory.empty(n, c, l)
    vectors = b"".join(_accessor1(device.put(t), c) for t in (mean, rstd, weight, bias))
    parameters = _accessor3(device.put(x), n, c, l) + _accessor3(y, n, c, l) + vectors + struct.pack("<f", 1e-5)
    width = max(_threads(l // 4), min(_threads(l), 64))
    height = max(64 // width, 1)
    rows = max(1, min(256 * 1024 // c, -(-n // height)))
    device.run("batch_norm_transform", parameters, (c, min(rows, 65535)), (width, height))
    return device.memory.get(y, n, c, l)


def batch_gradients(
    device: Device, x: Array, dy: Array, weight: Array | None, running: tuple[Array, Array] | None,
    saved: tuple[Array, Array] | None, eps: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """The gradients of input, weight and bias: in training with the saved mean and 1/sigma, else with the running ones."""
    n, c, l = x.shape
    memory = device.memory
    dx, dw, db = memory.empty(n, c, l), memory.empty(c), memory.empty(c)
    tensors = [(device.put(x)), device.put(dy), dx]
    wide = b"".join(_accessor3(pointer, n, c, l) for pointer in tensors)
    inputs = (weight, *(running or (None, None)), *(saved or (None, None)))
    pointers = [dw, db, *(device.put(t) for t in inputs)]
    vectors = b"".join(_accessor1(pointer, c) for pointer in pointers)
    width = _threads(l)
    parameters = wide + vectors + struct.pack("<?3xf", saved is not None, eps)
    device.run("batch_norm_backward", parameters, (c, 1), (width, max(1, 512 // width)))
    return memory.get(dx, n, c, l), memory.get(dw, c), memory.get(db, c)


# --- batch norm of (rows, C): channels innermost ----------------------------------------------------------------------


def _flexible(rows: int, c: int, cooperative: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """The grid and the block of the channels-last kernels."""
    power = lambda k: 1 << (k.bit_length() - 1)
    width = min(power(c), 32)
    height = min(power(-(-rows // 16)), 512 // width)
    if width * height != 512:
        width = min(power(c), 512 // height)
    across, down = -(-c // width), min(-(-rows // (height * 16)), 128)
    if cooperative and down < 8:
        down = 1
    return (across, down), (width, height)


class BlocksCooperate(Exception):
    """The statistics of so many rows are merged by several blocks, through memory, which is not simulated."""


def batch_statistics_last(device: Device, x: Array) -> tuple[Array, Array]:
    rows, c = x.shape
    grid, block = _flexible(rows, c, cooperative=True)
    if grid[1] > 1:
        raise BlocksCooperate(f"{rows} rows")
    mean, var = device.memory.empty(c), device.memory.empty(c)
    parameters = struct.pack("<QQQQQiif", device.put(x), mean, var, 0, 0, rows, c, 1e-5)
    device.run("batch_norm_statistics_channels_last", parameters, grid, block)
    return device.memory.get(mean, c), device.memory.get(var, c)


def batch_transform_last(
    device: Device, x: Array, mean: Array, rstd: Array, weight: Array | None, bias: Array | None
) -> Array:
    rows, c = x.shape
    y = device.memory.empty(rows, c)
    vectors = [device.put(t) for t in (mean, rstd, weight, bias)]
    parameters = struct.pack("<QQQQQQQii?", device.put(x), 0, *vectors, y, rows, c, False)
    device.run("batch_norm_transform_channels_last", parameters, *_flexible(rows, c, cooperative=False))
    return device.memory.get(y, rows, c)


def batch_gradients_last(
    device: Device, x: Array, dy: Array, mean: Array, rstd: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """In training alone."""
    rows, c = x.shape
    memory = device.memory
    grid, block = _flexible(rows, c, cooperative=True)
    if grid[1] > 1:
        raise BlocksCooperate(f"{rows} rows")
    v, g, mu, r, w = (device.put(t) for t in (x, dy, mean, rstd, weight))
    sums = [memory.empty(c) for _ in range(2)]
    dw, db, dx = memory.empty(c), memory.empty(c), memory.empty(rows, c)
    parameters = struct.pack("<QQQQQQQQQQii", v, g, mu, r, *sums, dw, db, 0, 0, rows, c)
    device.run("batch_norm_reduce_channels_last", parameters, grid, block)
    parameters = struct.pack("<QQQQQQQQfii", g, v, mu, r, w, *sums, dx, 1 / rows, rows, c)
    device.run("batch_norm_grad_input_channels_last", parameters, *_flexible(rows, c, cooperative=False))
    return memory.get(dx, rows, c), memory.get(dw, c), memory.get(db, c)
