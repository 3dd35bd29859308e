"""ATen's kernels, simulated, against float64. Skipped where their code has not been extracted."""

import numpy as np
import pytest

from simulator import arithmetic, extract, group_norm, kernels
from simulator.errors import NotExtracted
from simulator.kernels import Device


def extracted(architecture: str) -> bool:
    try:
        return bool(extract.digest(architecture))
    except NotExtracted:
        return False


FOUND = [name for name in extract.ARCHITECTURES if extracted(name)]
pytestmark = pytest.mark.skipif(not FOUND, reason="no machine code in the cache: run extract.py")
random = np.random.default_rng(7)
EPS = 1e-5


def normal(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def standardized(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPS)


def close(found: np.ndarray, truth: np.ndarray) -> bool:
    return bool(np.max(np.abs(found - truth)) < 1e-6 * np.max(np.abs(truth)))


def layer_norm(architecture: str, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return kernels.row_norm(Device(architecture), "layer_norm", x, weight, bias, EPS)[0]


@pytest.mark.parametrize("n", [3, 4, 33, 260, 1024])
@pytest.mark.parametrize("architecture", FOUND)
def test_layer_and_rms_norm(architecture, n):
    x, weight, bias = normal(3, n) + 1, normal(n), normal(n)
    assert close(layer_norm(architecture, x, weight, bias), standardized(x, (1,)) * weight + bias)
    y = kernels.row_norm(Device(architecture), "rms_norm", x, weight, None, EPS)[0]
    wide = x.astype(np.float64)
    assert close(y, wide / np.sqrt((wide**2).mean(1, keepdims=True) + EPS) * weight)


@pytest.mark.parametrize(("m", "n"), [(3, 8), (5, 7), (70, 33), (128, 32), (300, 12)])
@pytest.mark.parametrize("architecture", FOUND)
def test_layer_norm_gradients(architecture, m, n):
    x, weight, dy = normal(m, n), normal(n), normal(m, n)
    device = Device(architecture)
    _, mean, rstd = kernels.row_norm(device, "layer_norm", x, weight, None, EPS)
    dx, dw, db = kernels.row_norm_gradients(device, "layer_norm", dy, x, mean, rstd, weight)
    y, a = standardized(x, (1,)), dy.astype(np.float64) * weight
    root = np.sqrt(x.astype(np.float64).var(1, keepdims=True) + EPS)
    assert close(dx, (a - a.mean(1, keepdims=True) - y * (a * y).mean(1, keepdims=True)) / root)
    assert close(dw, (dy * y).sum(0)) and close(db, dy.astype(np.float64).sum(0))


@pytest.mark.parametrize("shape", [(4, 3, 35), (2, 5, 700), (16, 2, 2)])
@pytest.mark.parametrize("architecture", FOUND)
def test_batch_norm_in_both_layouts(architecture, shape):
    n, c, l = shape
    x, weight, bias, running = normal(*shape) + 1, normal(c), normal(c), (normal(c), np.abs(normal(c)))
    truth = standardized(x, (0, 2)) * weight[:, None] + bias[:, None]
    device = Device(architecture)
    mean, var = kernels.batch_statistics(device, x)
    new_mean, new_var, rstd = kernels.batch_update(device, mean, var, running, 0.1, EPS, n * l)
    assert close(kernels.batch_transform(device, x, mean, rstd, weight, bias), truth)
    assert close(new_mean, 0.9 * running[0] + 0.1 * x.astype(np.float64).mean((0, 2)))
    assert close(new_var, 0.9 * running[1] + 0.1 * x.astype(np.float64).var((0, 2), ddof=1))
    rows = np.ascontiguousarray(x.transpose(0, 2, 1)).reshape(-1, c)
    mean, var = kernels.batch_statistics_last(device, rows)
    y = kernels.batch_transform_last(device, rows, mean, kernels.invert(device, var, EPS), weight, bias)
    assert close(y.reshape(n, l, c).transpose(0, 2, 1), truth)


@pytest.mark.parametrize("affine", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("l", [1, 2, 35])
@pytest.mark.parametrize("architecture", FOUND)
def test_group_norm(architecture, l, affine):
    x = normal(2, 6, l) + 1
    weight, bias = (normal(6) if there else None for there in affine)
    device = Device(architecture)
    y, mean, rstd = group_norm.forward(device, x, 2, weight, bias, EPS)
    truth = standardized(x.reshape(2, 2, -1), (2,)).reshape(x.shape)
    truth = truth * (1 if weight is None else weight[:, None]) + (0 if bias is None else bias[:, None])
    assert close(y, truth)

    dy = normal(*x.shape)
    dx, dw, db = group_norm.backward(device, dy, x, 2, mean, rstd, weight)
    groups = x.reshape(2, 2, -1).astype(np.float64)
    z = standardized(groups, (2,))
    a = (dy * (1 if weight is None else weight[:, None])).reshape(groups.shape).astype(np.float64)
    projected = a - a.mean(2, keepdims=True) - z * (a * z).mean(2, keepdims=True)
    assert close(dx.reshape(groups.shape), projected / np.sqrt(groups.var(2, keepdims=True) + EPS))
    assert close(dw, (dy * z.reshape(x.shape)).sum((0, 2))) and close(db, dy.astype(np.float64).sum((0, 2)))


@pytest.mark.skipif(len(FOUND) < 2, reason="one architecture alone")
def test_architectures_agree_to_the_bit():
    x, weight, bias = normal(4, 260), normal(260), normal(260)
    first, second = (layer_norm(name, x, weight, bias) for name in FOUND)
    assert np.array_equal(first.view(np.uint32), second.view(np.uint32))


def test_without_the_fused_product_bits_change(monkeypatch):
    """The positive control: a simulator that rounds twice is another machine, and it shows."""
    x, weight, bias = normal(4, 260) + 1, normal(260), normal(260)
    right = layer_norm(FOUND[0], x, weight, bias)
    monkeypatch.setattr(arithmetic, "fma", lambda a, b, c, rounding="RN": np.asarray(a * b + c, np.float32))
    wrong = layer_norm(FOUND[0], x, weight, bias)
    assert close(wrong, right) and not np.array_equal(wrong, right)
