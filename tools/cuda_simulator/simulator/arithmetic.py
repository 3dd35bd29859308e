"""The floating-point arithmetic of the machine, on arrays: what numpy does not have, and the stand-ins.

Addition, multiplication and division in binary32 are numpy's, which are IEEE's. Here are the fused multiply-add, its
directed roundings, flushing of subnormal numbers, and the canonical NaN.

Two results are stand-ins. MUFU.RCP and MUFU.RSQ are tables in hardware, right to about one unit in the last place and
unpublished; here they are correctly rounded (the root through binary64). What depends on the reciprocal is repaired by
the Newton step that the code itself takes, so that divisions come out as on hardware; what depends on rsqrt, 1/sigma,
may differ from hardware in its last bits.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

#: What every arithmetic instruction answers for NaN.
CANONICAL_NAN = np.uint32(0x7FFFFFFF).view(np.float32)
SMALLEST_NORMAL = np.float32(2.0**-126)


def canonical(value: np.ndarray) -> np.ndarray:
    """The result with NVIDIA's NaN in place of numpy's."""
    nan = value != value
    return np.where(nan, CANONICAL_NAN, value) if np.any(nan) else value


def flushed(value: np.ndarray) -> np.ndarray:
    """Subnormal numbers as zeros of their sign."""
    return np.where(np.abs(value) < SMALLEST_NORMAL, np.copysign(np.float32(0), value), value)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray, rounding: str = "RN") -> np.ndarray:
    """a·b + c in binary32, rounded once.

    The product of two binary32 numbers is exact in binary64. The sum is rounded to odd there, and what is rounded to odd
    with more than two bits to spare rounds again as if it were exact.
    """
    product = np.multiply(a, b, dtype=np.float64)
    wide = np.asarray(c, dtype=np.float64)
    total = np.atleast_1d(product + wide)
    back = total - product
    rest = (product - (total - back)) + (wide - back)
    bits = total.view(np.int64)
    inexact = (rest != 0) & np.isfinite(total) & (bits & 1 == 0)
    odd = (bits + np.where(inexact, np.where((rest > 0) == (total > 0), 1, -1), 0)).view(np.float64)
    nearest = odd.astype(np.float32)
    if rounding == "RN":
        return nearest
    directed = {"RM": nearest > odd, "RP": nearest < odd, "RZ": np.abs(nearest) > np.abs(odd)}[rounding]
    toward = {"RM": -np.inf, "RP": np.inf, "RZ": 0.0}[rounding]
    return np.where(directed, np.nextafter(nearest, np.float32(toward)), nearest)


def fma64(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a·b + c in binary64, rounded once: with fractions, since few instructions need it."""
    a, b, c = np.broadcast_arrays(*(np.atleast_1d(v) for v in (a, b, c)))
    plain = a * b + c
    exact = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    sums = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in zip(a[exact], b[exact], c[exact])]
    plain[exact] = [float(s) if s else p for s, p in zip(sums, plain[exact])]  # the sign of an exact zero is IEEE's
    return plain


def reciprocal(value: np.ndarray) -> np.ndarray:
    return np.float32(1) / value


def reciprocal_root(value: np.ndarray) -> np.ndarray:
    return (1 / np.sqrt(np.asarray(value, dtype=np.float64))).astype(np.float32)


def to_float(integer: np.ndarray, up: bool = False) -> np.ndarray:
    """An integer as binary32, to nearest or upward."""
    nearest = integer.astype(np.float32)
    if not up:
        return nearest
    # Exact on both sides: an integer of 64 bits has no exact binary64, so the comparison is of integers.
    below = np.array([int(f) < int(i) for f, i in zip(np.atleast_1d(nearest), np.atleast_1d(integer))])
    return np.where(below, np.nextafter(nearest, np.float32(np.inf)), nearest)
