"""Operands: registers, constants and immediate numbers, read for a group of lanes.

Each reader takes the machine and the group (a slice or lane numbers) and gives an array, or a scalar that numpy
broadcasts. Registers of a warp (UR4) are kept by each lane, behind its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import UnknownInstruction

Reader = Callable[[Any, Any], Any]

ZEROS = ("RZ", "URZ", "SRZ")
CONSTANT = re.compile(r"c\[0x0\]\[(0x[0-9a-f]+)\]")
ALWAYS = ("PT", "UPT")
SIGN = np.uint32(0x80000000)
MASK = np.uint64(0xFFFFFFFF)


def register(text: str) -> int:
    """The row of a register."""
    found = re.fullmatch(r"(U?)R(\d+)", text)
    if found is None:
        raise UnknownInstruction(f"no register: {text!r}")
    return int(found[2]) + (256 if found[1] else 0)


def word(text: str) -> Reader:
    """32 bits as an integer. `-` is the two's complement and `~` the complement."""
    sign, plain = (text[0], text[1:]) if text[0] in "-~" else ("", text)
    if plain in ZEROS:
        value: Reader = lambda m, s: np.uint32(0)
    elif re.fullmatch(r"U?R\d+", plain):
        row = register(plain)
        value = lambda m, s: m.registers[row, s]
    elif found := CONSTANT.fullmatch(plain):
        at = int(found[1], 16)
        value = lambda m, s: np.uint32(int.from_bytes(m.bank[at : at + 4], "little"))
    elif re.fullmatch(r"(0x[0-9a-f]+|\d+)", plain):
        number = np.uint32(int(plain, 0) & 0xFFFFFFFF)
        value = lambda m, s: number
    elif plain in ("INF", "+INF"):
        value = lambda m, s: np.uint32(0x7F800000)
    else:
        raise UnknownInstruction(f"no operand: {text!r}")
    if sign == "-":
        return lambda m, s: (np.uint64(1 << 32) - np.uint64(value(m, s))).astype(np.uint32)
    if sign == "~":
        return lambda m, s: ~value(m, s)
    return value


def addend(text: str) -> Reader:
    """32 bits as 64, for a sum whose carry counts: −b is the complement and one more, so −0 carries."""
    if text.startswith("-") and not text.startswith("-0x"):
        plain = word(text[1:])
        return lambda m, s: np.uint64(1 << 32) - np.uint64(plain(m, s))
    value = word(text)
    return lambda m, s: np.uint64(value(m, s))


def pair(text: str) -> Reader:
    """64 bits: a register and the next, or eight bytes of the constant bank."""
    if text in ZEROS:
        return lambda m, s: np.uint64(0)
    if found := CONSTANT.fullmatch(text):
        at = int(found[1], 16)
        return lambda m, s: np.uint64(int.from_bytes(m.bank[at : at + 8], "little"))
    if re.fullmatch(r"U?R\d+", text):
        row = register(text)
        return lambda m, s: m.registers[row, s] | (np.uint64(m.registers[row + 1, s]) << np.uint64(32))
    if re.fullmatch(r"-?0x[0-9a-f]+", text):
        number = np.uint64(int(text, 16) & 0xFFFF_FFFF_FFFF_FFFF)
        return lambda m, s: number
    raise UnknownInstruction(f"no operand of 64 bits: {text!r}")


def real(text: str) -> Reader:
    """binary32, with `-` and `|…|`."""
    negative, plain = text.startswith("-"), text.removeprefix("-")
    absolute, plain = plain.startswith("|"), plain.strip("| ")
    if re.fullmatch(r"U?R\d+", plain):
        row = register(plain)
        value: Reader = lambda m, s: m.floats[row, s]
    elif CONSTANT.fullmatch(plain) or plain in ZEROS:
        bits = word(plain)
        value = lambda m, s: bits(m, s).view(np.float32)
    else:
        number = np.float32(_number(plain))
        value = lambda m, s: number
    return _signed(value, negative, absolute)


def double(text: str) -> Reader:
    """binary64, with `-` and `|…|`."""
    negative, plain = text.startswith("-"), text.removeprefix("-")
    absolute, plain = plain.startswith("|"), plain.strip("| ")
    if re.fullmatch(r"U?R\d+", plain) or CONSTANT.fullmatch(plain) or plain in ZEROS:
        bits = pair(plain)
        value: Reader = lambda m, s: np.asarray(bits(m, s)).view(np.float64)
    else:
        number = np.float64(_number(plain))
        value = lambda m, s: number
    return _signed(value, negative, absolute)


def _number(text: str) -> float:
    if "QNAN" in text:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise UnknownInstruction(f"no number: {text!r}") from None


def _signed(value: Reader, negative: bool, absolute: bool) -> Reader:
    if absolute and negative:
        return lambda m, s: -np.abs(value(m, s))
    if absolute:
        return lambda m, s: np.abs(value(m, s))
    if negative:
        return lambda m, s: -value(m, s)
    return value


def predicate(text: str) -> Reader:
    negative, plain = text.startswith("!"), text.removeprefix("!")
    if plain in ALWAYS:
        constant = np.bool_(not negative)
        return lambda m, s: constant
    row = _predicate(plain)
    if negative:
        return lambda m, s: ~m.predicates[row, s]
    return lambda m, s: m.predicates[row, s]


def _predicate(text: str) -> int:
    found = re.fullmatch(r"(U?)P([0-6])", text)
    if found is None:
        raise UnknownInstruction(f"no predicate: {text!r}")
    return int(found[2]) + (8 if found[1] else 0)


def is_predicate(text: str) -> bool:
    return re.fullmatch(r"!?U?P[0-6T]", text) is not None


def set_word(text: str) -> Callable[[Any, Any, Any], None]:
    if text in ZEROS:
        return lambda m, s, v: None
    row = register(text)

    def store(m: Any, s: Any, value: Any) -> None:
        m.registers[row, s] = value

    return store


def set_real(text: str) -> Callable[[Any, Any, Any], None]:
    if text in ZEROS:
        return lambda m, s, v: None
    row = register(text)

    def store(m: Any, s: Any, value: Any) -> None:
        m.floats[row, s] = value

    return store


def set_pair(text: str) -> Callable[[Any, Any, Any], None]:
    if text in ZEROS:
        return lambda m, s, v: None
    row = register(text)

    def store(m: Any, s: Any, value: Any) -> None:
        m.registers[row, s] = value & MASK
        m.registers[row + 1, s] = value >> np.uint64(32)

    return store


def set_double(text: str) -> Callable[[Any, Any, Any], None]:
    store = set_pair(text)
    return lambda m, s, v: store(m, s, np.atleast_1d(np.asarray(v, np.float64)).view(np.uint64))


def set_predicate(text: str) -> Callable[[Any, Any, Any], None]:
    if text in ALWAYS:
        return lambda m, s, v: None
    row = _predicate(text)

    def store(m: Any, s: Any, value: Any) -> None:
        m.predicates[row, s] = value

    return store


def address(text: str, wide: bool) -> Reader:
    """`[R2.64+0x10]`, `desc[UR4][R2.64]`, `[R3.X4+0x20]`: the sum of its terms, in 64 bits or 32."""
    inner = re.fullmatch(r"(?:desc\[\w+\])?\[(.*)\]", text)
    if inner is None:
        raise UnknownInstruction(f"no address: {text!r}")
    terms = [_term(t) for t in inner[1].replace("+-", "+~").split("+")]
    mask = np.uint64(0xFFFF_FFFF_FFFF_FFFF if wide else 0xFFFF_FFFF)

    def total(m: Any, s: Any) -> Any:
        value = terms[0](m, s)
        for term in terms[1:]:
            value = value + term(m, s)
        return np.atleast_1d(value) & mask

    return total


def _term(text: str) -> Reader:
    if text.startswith("~"):
        number = np.uint64(-int(text[1:], 16) & 0xFFFF_FFFF_FFFF_FFFF)
        return lambda m, s: number
    if text.startswith("0x"):
        constant = np.uint64(int(text, 16))
        return lambda m, s: constant
    name, _, form = text.partition(".")
    if form == "64":
        return pair(name)
    base = word(name)
    if not form:
        return lambda m, s: np.uint64(base(m, s))
    if form not in ("X4", "X8", "X16"):
        raise UnknownInstruction(f"no address: {text!r}")
    scale = np.uint64(int(form[1:]))
    return lambda m, s: np.uint64(base(m, s)) * scale
