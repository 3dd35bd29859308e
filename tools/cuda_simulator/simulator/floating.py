"""Floating-point instructions. Each rounds once; .FTZ flushes subnormal operands and results to zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import arithmetic
from .errors import UnknownInstruction
from .operands import (
    double, pair, predicate, real, set_double, set_pair, set_predicate, set_real, set_word, word,
)  # fmt: skip
from .sass import Instruction

Effect = Callable[[Any, Any], None]
KNOWN = {"FTZ", "RN", "NTZ", "TRUNC"}


def _rounded(function: Callable[..., Any]) -> Callable[[Instruction], Effect]:
    """An instruction of binary32 to nearest."""

    def compile(i: Instruction) -> Effect:
        if unknown := set(i.modifiers) - {"FTZ"}:
            raise UnknownInstruction(f"modifiers {unknown}")
        store, operands, flush = set_real(i.operands[0]), [real(t) for t in i.operands[1:]], "FTZ" in i.modifiers

        def effect(m: Any, s: Any) -> None:
            values = [operand(m, s) for operand in operands]
            if flush:
                values = [arithmetic.flushed(v) for v in values]
            value = arithmetic.canonical(function(*values))
            store(m, s, arithmetic.flushed(value) if flush else value)

        return effect

    return compile


def ffma(i: Instruction) -> Effect:
    rounding = next((r for r in i.modifiers if r in ("RM", "RP", "RZ")), "RN")
    if unknown := set(i.modifiers) - {rounding}:
        raise UnknownInstruction(f"modifiers {unknown}")
    store, (a, b, c) = set_real(i.operands[0]), (real(t) for t in i.operands[1:])
    return lambda m, s: store(m, s, arithmetic.canonical(arithmetic.fma(a(m, s), b(m, s), c(m, s), rounding)))


def mufu(i: Instruction) -> Effect:
    """Reciprocals and reciprocal roots: stand-ins, see `arithmetic`. The 64H forms know the high half alone."""
    kind, d, a = i.modifiers[0], i.operands[0], i.operands[1]
    if kind in ("RCP64H", "RSQ64H"):
        store, high = set_word(d), word(a)

        def half(m: Any, s: Any) -> None:
            value = np.atleast_1d(np.uint64(high(m, s)) << np.uint64(32)).view(np.float64)
            value = 1 / value if kind == "RCP64H" else 1 / np.sqrt(value)
            store(m, s, value.view(np.uint64) >> np.uint64(32))

        return half
    function = {"RCP": arithmetic.reciprocal, "RSQ": arithmetic.reciprocal_root}.get(kind)
    if function is None or len(i.modifiers) > 1:
        raise UnknownInstruction(f"MUFU.{kind}")
    result, operand = set_real(d), real(a)
    return lambda m, s: result(m, s, arithmetic.canonical(np.atleast_1d(function(operand(m, s)))))


def fchk(i: Instruction) -> Effect:
    """Whether a/b wants the slow division. Both are right where this says no; it may say yes more often than hardware."""
    store, a, b = set_predicate(i.operands[0]), real(i.operands[1]), real(i.operands[2])

    def effect(m: Any, s: Any) -> None:
        x, y = np.abs(a(m, s)), np.abs(b(m, s))
        small, large = np.float32(2.0**-60), np.float32(2.0**60)
        plain = ((x == 0) | ((x > small) & (x < large))) & (y > small) & (y < large)
        store(m, s, ~plain)

    return effect


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal, "EQ": np.equal,
    "NE": lambda a, b: (a < b) | (a > b),
}  # fmt: skip


def _compare(read: Callable[[str], Any]) -> Callable[[Instruction], Effect]:
    def compile(i: Instruction) -> Effect:
        """p = (a ? b) and/or q. A comparison with U is also true where one of them is NaN."""
        p, other, a, b, q = i.operands
        if other not in ("PT", "UPT"):
            raise UnknownInstruction("a second result")
        kind = i.modifiers[0]
        unordered = kind.endswith("U")
        compare, either, flush = COMPARISONS[kind.removesuffix("U")], "OR" in i.modifiers, "FTZ" in i.modifiers
        store, a, b, q = set_predicate(p), read(a), read(b), predicate(q)

        def effect(m: Any, s: Any) -> None:
            x, y = a(m, s), b(m, s)
            if flush:
                x, y = arithmetic.flushed(x), arithmetic.flushed(y)
            value = compare(x, y)
            if unordered:
                value = value | (x != x) | (y != y)
            store(m, s, value | q(m, s) if either else value & q(m, s))

        return effect

    return compile


def fmnmx(i: Instruction) -> Effect:
    """The smaller or larger one; of a number and NaN the number, with .NAN the NaN."""
    d, a, b, least = i.operands
    store, a, b, least, keep = set_real(d), real(a), real(b), predicate(least), "NAN" in i.modifiers

    def effect(m: Any, s: Any) -> None:
        x, y = a(m, s), b(m, s)
        lower, upper = (np.minimum, np.maximum) if keep else (np.fmin, np.fmax)
        store(m, s, arithmetic.canonical(np.where(least(m, s), lower(x, y), upper(x, y))))

    return effect


def _fsel(i: Instruction) -> Effect:
    store, a, b, p = set_real(i.operands[0]), real(i.operands[1]), real(i.operands[2]), predicate(i.operands[3])
    return lambda m, s: store(m, s, np.where(p(m, s), a(m, s), b(m, s)))


def i2f(i: Instruction) -> Effect:
    store, up = set_real(i.operands[0]), "RP" in i.modifiers
    wide = next((t for t in i.modifiers if t in ("S64", "U64")), None)
    read = pair(i.operands[1]) if wide else word(i.operands[1])
    kind = {"S64": np.int64, "U64": np.uint64}.get(wide or "", np.uint32 if "U32" in i.modifiers else np.int32)
    if unknown := set(i.modifiers) - {"RP", "S64", "U64", "U32", "S32", "F32"}:
        raise UnknownInstruction(f"modifiers {unknown}")
    return lambda m, s: store(m, s, arithmetic.to_float(np.atleast_1d(read(m, s)).view(kind), up))


def f2i(i: Instruction) -> Effect:
    """Truncated, and saturated at the ends of the type."""
    if "U64" in i.modifiers:
        store, top, kind = set_pair(i.operands[0]), 2.0**64, np.uint64
    elif "U32" in i.modifiers:
        store, top, kind = set_word(i.operands[0]), 2.0**32, np.uint32
    else:
        raise UnknownInstruction("a signed result")
    if "TRUNC" not in i.modifiers:
        raise UnknownInstruction("a rounding")
    operand = real(i.operands[1])

    def effect(m: Any, s: Any) -> None:
        value = np.trunc(np.atleast_1d(operand(m, s)).astype(np.float64))
        inside = (value >= 0) & (value < top)
        store(
            m, s, np.where(inside, np.where(inside, value, 0).astype(kind), np.where(value >= top, ~kind(0), kind(0)))
        )

    return effect


def _double(function: Callable[..., Any]) -> Callable[[Instruction], Effect]:
    def compile(i: Instruction) -> Effect:
        if i.modifiers:
            raise UnknownInstruction(f"modifiers {i.modifiers}")
        store, operands = set_double(i.operands[0]), [double(t) for t in i.operands[1:]]
        return lambda m, s: store(m, s, function(*(operand(m, s) for operand in operands)))

    return compile


TABLE: dict[str, Callable[[Instruction], Effect]] = {
    "FADD": _rounded(np.add), "FMUL": _rounded(np.multiply), "FFMA": ffma, "MUFU": mufu, "FCHK": fchk,
    "FSETP": _compare(real), "DSETP": _compare(double), "FMNMX": fmnmx, "FSEL": _fsel, "I2F": i2f, "I2FP": i2f,
    "F2I": f2i, "DADD": _double(np.add), "DMUL": _double(np.multiply), "DFMA": _double(arithmetic.fma64),
}  # fmt: skip
