"""Instructions that move values: between registers, constants and memory, and between the lanes of a warp."""

from __future__ import annotations


from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import Deadlock, OutOfBounds, UnknownInstruction
from .operands import (
    CONSTANT, ZEROS, address, predicate, register, set_pair, set_predicate, set_word, word,
)  # fmt: skip
from .sass import Instruction

Effect = Callable[[Any, Any], None]

#: The upper halves of generic addresses that mean a block's shared and a thread's local memory.
SHARED_WINDOW, LOCAL_WINDOW = 0x10, 0x20

SPECIAL: dict[str, Callable[[Any, Any], Any]] = {
    "SR_TID.X": lambda m, s: m.thread[0][s],
    "SR_TID.Y": lambda m, s: m.thread[1][s],
    "SR_CTAID.X": lambda m, s: m.block[0][s],
    "SR_CTAID.Y": lambda m, s: m.block[1][s],
    "SR_LANEID": lambda m, s: m.lane[s],
    "SR_LTMASK": lambda m, s: (np.uint32(1) << m.lane[s]) - np.uint32(1),
    "SR_CgaCtaId": lambda m, s: np.uint32(0),  # the block's place in its cluster, which is the block alone
    "SR_SWINHI": lambda m, s: np.uint32(SHARED_WINDOW),
}


def mov(i: Instruction) -> Effect:
    store, a = set_word(i.operands[0]), word(i.operands[-1])
    return lambda m, s: store(m, s, a(m, s))


def special(i: Instruction) -> Effect:
    store, read = set_word(i.operands[0]), SPECIAL[i.operands[1]]
    return lambda m, s: store(m, s, read(m, s))


def cs2r(i: Instruction) -> Effect:
    if i.operands[1] != "SRZ":
        raise UnknownInstruction("a special register of 64 bits")
    store: Any = set_word(i.operands[0]) if "32" in i.modifiers else set_pair(i.operands[0])
    return lambda m, s: store(m, s, np.uint64(0))


def sel(i: Instruction) -> Effect:
    store, a, b, p = set_word(i.operands[0]), word(i.operands[1]), word(i.operands[2]), predicate(i.operands[3])
    return lambda m, s: store(m, s, np.where(p(m, s), a(m, s), b(m, s)))


def two_halves(i: Instruction) -> Effect:
    """HFMA2 d, -RZ, RZ, high, low: how the compiler writes a constant, as two binary16 numbers."""
    if [t.lstrip("-") for t in i.operands[1:3]] != ["RZ", "RZ"]:
        raise UnknownInstruction("arithmetic in binary16")
    low, high = (int(np.float16(float(t)).view(np.uint16)) for t in (i.operands[4], i.operands[3]))
    store, value = set_word(i.operands[0]), np.uint32(high << 16 | low)
    return lambda m, s: store(m, s, value)


def p2r(i: Instruction) -> Effect:
    """The predicates as the bits of a register, where the mask has a one."""
    store, base, mask = set_word(i.operands[0]), word(i.operands[2]), int(i.operands[3], 16)

    def effect(m: Any, s: Any) -> None:
        value = base(m, s) & np.uint32(~mask & 0xFFFFFFFF)
        for bit in range(7):
            if mask >> bit & 1:
                value = value | np.uint32(m.predicates[bit, s]) << np.uint32(bit)
        store(m, s, value)

    return effect


def ldc(i: Instruction) -> Effect:
    """From the constant bank, at an address that all lanes share."""
    found = CONSTANT.fullmatch(i.operands[1].replace("[RZ]", "[0x0]"))
    if found is None:
        raise UnknownInstruction("a constant at a computed address")
    at, kind = int(found[1], 16), next(iter(i.modifiers), "32")
    if kind == "64":
        both = set_pair(i.operands[0])
        return lambda m, s: both(m, s, np.uint64(int.from_bytes(m.bank[at : at + 8], "little")))
    size, is_signed = {"32": (4, False), "U8": (1, False), "S8": (1, True)}[kind]
    store = set_word(i.operands[0])

    def effect(m: Any, s: Any) -> None:
        value = int.from_bytes(m.bank[at : at + size], "little", signed=is_signed)
        store(m, s, np.uint32(value & 0xFFFFFFFF))

    return effect


# --- memory -----------------------------------------------------------------------------------------------------------


def _words(i: Instruction) -> int:
    if set(i.modifiers) & {"U8", "S8", "U16", "S16"}:
        raise UnknownInstruction("an access of less than a word")
    return 4 if "128" in i.modifiers else 2 if "64" in i.modifiers else 1


def _rows(text: str, words: int) -> list[int | None]:
    """The registers of an access; None is the register that is always zero."""
    return [None] * words if text in ZEROS else [register(text) + k for k in range(words)]


def _global(m: Any, s: Any, at: Any, words: int, text: str) -> tuple[Any, Any]:
    return m.memory.words, m.memory.index(np.asarray(at, np.uint64), 4 * words, text)


def _own(size: Callable[[], int], owner: str, store: str) -> Callable[..., tuple[Any, Any]]:
    """Memory that each block, or each thread, has for itself."""

    def place(m: Any, s: Any, at: Any, words: int, text: str) -> tuple[Any, Any]:
        limit = size()
        if np.any(at % np.uint64(4 * words)) or np.any(at // np.uint64(4) + np.uint64(words) > np.uint64(limit)):
            raise OutOfBounds(f"{text}: {store} memory at {int(np.max(at)):#x}")
        return getattr(m, store), (at >> np.uint64(2)).astype(np.int64) + getattr(m, owner)[s] * limit

    return place


def _shared_size() -> int:
    from .machine import SHARED

    return SHARED


def _local_size() -> int:
    from .machine import LOCAL

    return LOCAL


SPACES = {
    "G": _global,
    "S": _own(_shared_size, "block_of", "shared"),
    "L": _own(_local_size, "lanes", "local"),
}


def load(i: Instruction) -> Effect:
    words, space, wide = _words(i), SPACES[i.name[2]], i.name == "LDG"
    rows, at = _rows(i.operands[0], words), address(i.operands[1], wide)

    def effect(m: Any, s: Any) -> None:
        cells, index = space(m, s, at(m, s), words, i.text)
        for k, row in enumerate(rows):
            if row is not None:
                m.registers[row, s] = cells[index + k]

    return effect


def generic_load(i: Instruction) -> Effect:
    """LD: from an address that may lie in the block's or the thread's own memory, told apart by its upper half."""
    if "U8" not in i.modifiers:
        raise UnknownInstruction("a generic access of more than a byte")
    put, at = set_word(i.operands[0]), address(i.operands[1], wide=True)

    def effect(m: Any, s: Any) -> None:
        places, lanes = at(m, s), m.lanes[s]
        value = np.zeros(lanes.shape, np.uint32)
        for letter, window in (("S", SHARED_WINDOW), ("L", LOCAL_WINDOW)):
            chosen = places >> np.uint64(32) == np.uint64(window)
            inside = places[chosen] & np.uint64(0xFFFFFFFF)
            cells, index = SPACES[letter](m, lanes[chosen], inside & ~np.uint64(3), 1, i.text)
            value[chosen] = cells[index] >> (np.uint32(8) * (inside & np.uint64(3)).astype(np.uint32)) & np.uint32(255)
            places = np.where(chosen, 0, places)
        if np.any(places):
            raise OutOfBounds(f"{i.text}: a generic address {int(np.max(places)):#x} in no known memory")
        put(m, s, value)

    return effect


def store(i: Instruction) -> Effect:
    words, space, wide = _words(i), SPACES[i.name[2]], i.name == "STG"
    rows, at = _rows(i.operands[1], words), address(i.operands[0], wide)

    def effect(m: Any, s: Any) -> None:
        cells, index = space(m, s, at(m, s), words, i.text)
        if index.size == 1:  # one address for all lanes: as on hardware, one of them wins
            index = index[0]
        for k, row in enumerate(rows):
            value = np.uint32(0) if row is None else m.registers[row, s]
            cells[index + k] = np.asarray(value).flat[-1] if np.ndim(index) == 0 else value

    return effect


# --- between lanes ----------------------------------------------------------------------------------------------------


def shfl(i: Instruction) -> Effect:
    """d = the value of another lane of the warp: DOWN b lanes on, BFLY at lane xor b, IDX at lane b.

    A lane outside the segment gives the lane's own value, and the predicate false. The lanes that are read must be here
    with the others, or have ended: elsewhere hardware answers with anything.
    """
    mode = i.modifiers[0]
    if mode not in ("DOWN", "BFLY", "IDX"):
        raise UnknownInstruction(f"SHFL.{mode}")
    p, d, a, b, c = i.operands
    found, put, value, distance, clamp = set_predicate(p), set_word(d), word(a), word(b), word(c)

    def effect(m: Any, s: Any) -> None:
        lane = m.lane[s].astype(np.int64)
        group = m.lanes[s]
        steps, bounds = np.int64(distance(m, s)), np.int64(clamp(m, s))
        inside, end = bounds >> 8 & 31, bounds & 31
        base = lane & inside
        last = base | (end & ~inside)
        source = {"DOWN": lane + steps, "BFLY": lane ^ steps, "IDX": base | (steps & ~inside)}[mode]
        ok = source <= last
        target = group + np.where(ok, source - lane, 0)
        present = m.present(group)
        if not (present[target] | ~m.alive[target]).all():
            raise Deadlock(f"{i.text}: reads a lane that is elsewhere")
        row = np.zeros(m.count, np.uint32)
        row[group] = value(m, s)
        result = np.where(present[target], row[target], row[group])
        put(m, s, result)
        found(m, s, ok)

    return effect


TABLE: dict[str, Callable[[Instruction], Effect]] = {
    "MOV": mov, "S2R": special, "S2UR": special, "CS2R": cs2r, "SEL": sel, "HFMA2": two_halves, "P2R": p2r,
    "R2UR": mov, "LDC": ldc, "LDCU": ldc, "LDG": load, "LDS": load, "LDL": load, "LD": generic_load,
    "STG": store, "STS": store, "STL": store, "SHFL": shfl,
}  # fmt: skip
