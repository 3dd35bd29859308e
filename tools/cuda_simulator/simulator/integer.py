"""Integer instructions: sums with carries, products, shifts, comparisons, bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import UnknownInstruction
from .operands import addend, is_predicate, pair, predicate, set_pair, set_predicate, set_word, word
from .sass import Instruction

Effect = Callable[[Any, Any], None]
W32 = np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)


def signed(value: Any) -> Any:
    return np.asarray(value).view(np.int32)


def amount(text: str) -> int:
    return int(text, 0)


def iadd3(i: Instruction) -> Effect:
    """d = a + b + c, with one carry out; .X adds a carry in."""
    d, *rest = i.operands
    outs = [rest.pop(0) for _ in range(2) if is_predicate(rest[0])]
    terms, carries = [addend(t) for t in rest[:3]], [predicate(t) for t in rest[3:]]
    if len(outs) > 1 and outs[1] not in ("PT", "UPT"):
        raise UnknownInstruction("a second carry")
    store, out = set_word(d), set_predicate(outs[0]) if outs else None

    def effect(m: Any, s: Any) -> None:
        total = terms[0](m, s)
        for term in terms[1:]:
            total = total + term(m, s)
        for carry in carries:
            total = total + np.uint64(carry(m, s))
        store(m, s, total & LOW)
        if out:
            out(m, s, total >> W32 != 0)

    return effect


def viadd(i: Instruction) -> Effect:
    d, a, b = i.operands
    store, a, b = set_word(d), addend(a), addend(b)
    return lambda m, s: store(m, s, (a(m, s) + b(m, s)) & LOW)


def imad(i: Instruction) -> Effect:
    """d = a·b + c: 32 bits, 64 (.WIDE), the high half (.HI); .X adds a carry in."""
    d, *rest = i.operands
    out = set_predicate(rest.pop(0)) if is_predicate(rest[0]) else None
    unsigned = "U32" in i.modifiers
    if "WIDE" in i.modifiers or "HI" in i.modifiers:
        if len(rest) > 3:
            raise UnknownInstruction("a carry in")
        a, b, c, high = word(rest[0]), word(rest[1]), pair(rest[2]), "HI" in i.modifiers
        store = set_word(d) if high else set_pair(d)
        if high and not unsigned:
            raise UnknownInstruction("a signed high half")

        def wide(m: Any, s: Any) -> None:
            x, y = a(m, s), b(m, s)
            product = np.uint64(x) * np.uint64(y) if unsigned else _product(x, y)
            total = product + c(m, s)
            store(m, s, total >> W32 if high else total)
            if out:
                out(m, s, total < product)

        return wide
    if out:
        raise UnknownInstruction("a carry out of 32 bits")
    a, b, c = addend(rest[0]), addend(rest[1]), addend(rest[2])
    store, carries = set_word(d), [predicate(t) for t in rest[3:]]

    def effect(m: Any, s: Any) -> None:
        total = (a(m, s) & LOW) * (b(m, s) & LOW) + c(m, s)
        for carry in carries:
            total = total + np.uint64(carry(m, s))
        store(m, s, total & LOW)

    return effect


def _product(x: Any, y: Any) -> Any:
    return (signed(x).astype(np.int64) * signed(y).astype(np.int64)).view(np.uint64)


def lea(i: Instruction) -> Effect:
    """d = (a << n) + b, or with .HI the high half of (c:a << n), + b."""
    d, *rest = i.operands
    out = set_predicate(rest.pop(0)) if is_predicate(rest[0]) else None
    carry = predicate(rest.pop()) if is_predicate(rest[-1]) else None
    a, b, shift, store = word(rest[0]), addend(rest[1]), np.uint64(amount(rest[-1])), set_word(d)
    high, extend = "HI" in i.modifiers, "SX32" in i.modifiers
    c = word(rest[2]) if high and not extend else None

    def effect(m: Any, s: Any) -> None:
        x = np.uint64(a(m, s))
        if extend:
            x = signed(a(m, s)).astype(np.int64).view(np.uint64)
        elif c:
            x = x | np.uint64(c(m, s)) << W32
        x = x << shift
        total = ((x >> W32 if high else x) & LOW) + b(m, s)
        if carry:
            total = total + np.uint64(carry(m, s))
        store(m, s, total & LOW)
        if out:
            out(m, s, total >> W32 != 0)

    return effect


def shf(i: Instruction) -> Effect:
    """A shift of the pair c:a. Without .HI the low half is kept; 32-bit shifts right take their bits from c."""
    d, a, n, c = i.operands
    store, a, n, c = set_word(d), word(a), word(n), word(c)
    left, kind, high = i.modifiers[0] == "L", i.modifiers[1], "HI" in i.modifiers

    def effect(m: Any, s: Any) -> None:
        shift = np.uint64(n(m, s))
        both = np.uint64(a(m, s)) | np.uint64(c(m, s)) << W32
        if kind in ("U32", "S32"):
            if np.any(shift > np.uint64(32)):
                raise UnknownInstruction(f"{i.text}: a shift by more than the width")
            if high and left:
                raise UnknownInstruction(f"{i.text}: this form")
            if high:  # 32 bits of c alone
                value = signed(c(m, s)).astype(np.int64).view(np.uint64) if kind == "S32" else np.uint64(c(m, s))
                value = (value.view(np.int64) >> shift.astype(np.int64)).view(np.uint64)
            else:
                value = np.uint64(a(m, s)) << shift if left else both >> shift
        elif left:
            value = both << shift
            value = value >> W32 if high else value
        else:
            value = (both.view(np.int64) >> shift.astype(np.int64)).view(np.uint64) if kind == "S64" else both >> shift
            value = value >> W32 if high else value
        store(m, s, value & LOW)

    return effect


def lop3(i: Instruction) -> Effect:
    """Any function of three bits; its table is the number."""
    rest = list(i.operands)
    out = set_predicate(rest.pop(0)) if is_predicate(rest[0]) else None
    store, a, b, c = set_word(rest[0]), word(rest[1]), word(rest[2]), word(rest[3])
    table = amount(rest[4])

    def effect(m: Any, s: Any) -> None:
        x, y, z = a(m, s), b(m, s), c(m, s)
        value = np.uint32(0)
        for row in range(8):
            if table >> row & 1:
                value = value | ((x if row & 4 else ~x) & (y if row & 2 else ~y) & (z if row & 1 else ~z))
        store(m, s, value)
        if out:
            out(m, s, value != 0)

    return effect


def plop3(i: Instruction) -> Effect:
    """The same of three predicates, with a table for each of two results."""
    first, second = set_predicate(i.operands[0]), set_predicate(i.operands[1])
    a, b, c = (predicate(t) for t in i.operands[2:5])
    tables = [np.array([amount(t) >> row & 1 for row in range(8)], bool) for t in i.operands[5:7]]

    def effect(m: Any, s: Any) -> None:
        row = np.int64(a(m, s)) * 4 + np.int64(b(m, s)) * 2 + np.int64(c(m, s))
        first(m, s, tables[0][row])
        second(m, s, tables[1][row])

    return effect


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal, "EQ": np.equal, "NE": np.not_equal,
}  # fmt: skip


def isetp(i: Instruction) -> Effect:
    """p = (a ? b) and/or q. With .EX these are high halves, and the last predicate compared the low ones."""
    p, other, a, b, q, *low = i.operands
    if other not in ("PT", "UPT"):
        raise UnknownInstruction("a second result")
    compare, unsigned = COMPARISONS[i.modifiers[0]], "U32" in i.modifiers
    strict = {"GE": np.greater, "LE": np.less}.get(i.modifiers[0], compare)
    store, a, b, q = set_predicate(p), word(a), word(b), predicate(q)
    either, below = "OR" in i.modifiers, predicate(low[0]) if "EX" in i.modifiers else None

    def effect(m: Any, s: Any) -> None:
        x, y = a(m, s), b(m, s)
        if not unsigned:
            x, y = signed(x), signed(y)
        if below is None:
            value = compare(x, y)
        elif i.modifiers[0] == "NE":
            value = (x != y) | below(m, s)
        elif i.modifiers[0] == "EQ":
            value = (x == y) & below(m, s)
        else:
            value = strict(x, y) | ((x == y) & below(m, s))
        store(m, s, value | q(m, s) if either else value & q(m, s))

    return effect


def imnmx(i: Instruction) -> Effect:
    d, a, b, least = i.operands
    store, a, b, least = set_word(d), word(a), word(b), predicate(least)
    unsigned = "U32" in i.modifiers

    def effect(m: Any, s: Any) -> None:
        x, y = (a(m, s), b(m, s)) if unsigned else (signed(a(m, s)), signed(b(m, s)))
        value = np.where(least(m, s), np.minimum(x, y), np.maximum(x, y))
        store(m, s, value if unsigned else value.view(np.uint32))

    return effect


def iabs(i: Instruction) -> Effect:
    store, a = set_word(i.operands[0]), word(i.operands[1])
    return lambda m, s: store(m, s, np.abs(signed(a(m, s))).view(np.uint32))


def prmt(i: Instruction) -> Effect:
    """Four bytes, each chosen from c:a by a digit of the number b; a digit above 7 repeats the byte's sign."""
    d, a, b, c = i.operands
    store, a, c, choice = set_word(d), word(a), word(c), amount(b)

    def effect(m: Any, s: Any) -> None:
        both = np.uint64(a(m, s)) | np.uint64(c(m, s)) << W32
        value = np.uint64(0)
        for place in range(4):
            digit = choice >> 4 * place & 15
            byte = both >> np.uint64(8 * (digit & 7)) & np.uint64(255)
            if digit & 8:
                byte = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
            value = value | byte << np.uint64(8 * place)
        store(m, s, value)

    return effect


TABLE: dict[str, Callable[[Instruction], Effect]] = {
    "IADD3": iadd3, "VIADD": viadd, "IADD": viadd, "IMAD": imad, "LEA": lea, "SHF": shf, "LOP3": lop3, "PLOP3": plop3,
    "ISETP": isetp, "IMNMX": imnmx, "VIMNMX": imnmx, "IABS": iabs, "PRMT": prmt,
}  # fmt: skip
