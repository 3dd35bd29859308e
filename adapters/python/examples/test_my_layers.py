"""Layers judged from pytest: python3 -m pytest adapters/python/examples/test_my_layers.py"""

import numpy as np
import pytest

from normative.testing import NotConformant, assert_conformant


def my_layer_norm(input, normalized_shape, weight, bias, eps):  # the layer to be judged: import yours instead
    shape, parameters = tuple(normalized_shape), [p for p in (weight, bias) if p is not None]
    if not shape or input.shape[-len(shape) :] != shape or any(p.shape != shape for p in parameters):
        raise ValueError(f"an input of shape {input.shape} for a layer of shape {shape}")
    if any(p.dtype != input.dtype for p in parameters):
        raise TypeError(f"a {input.dtype} input with parameters of another type")
    axes = tuple(range(-len(shape), 0))
    deviation = input - input.mean(axes, keepdims=True)
    y = deviation / np.sqrt(np.square(deviation).mean(axes, keepdims=True) + input.dtype.type(eps))
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).astype(input.dtype)


def hasty_layer_norm(input, normalized_shape, weight, bias, eps):
    """A mistake that many make: NumPy's `std(ddof=1)` and PyTorch's `var` divide by n − 1."""
    values = np.prod(normalized_shape)
    y = my_layer_norm(input, normalized_shape, None, None, eps) * np.sqrt(max(values - 1, 1) / max(values, 1))
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).astype(input.dtype)


def test_my_layer_norm():
    assert_conformant(my_layer_norm, "layer_norm", dtypes=["F32", "F64"])


def test_the_mistake_is_named():
    with pytest.raises(NotConformant, match="it divides the variance by n − 1 instead of n"):
        assert_conformant(hasty_layer_norm, "layer_norm", level="quick")
