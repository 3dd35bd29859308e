"""Reads a listing of machine code, as `cuobjdump -sass` prints it, into instructions.

    @!P0 FFMA R4, R2, -R3, c[0x0][0x160] ;      a guard, an opcode with modifiers, operands; the destination comes first

Every instruction takes 16 bytes, so the n-th stands at the address 16·n.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

INSTRUCTION = re.compile(r"(?:@(?P<negated>!?)(?P<guard>U?P\w+)\s+)?(?P<opcode>\S+)\s*(?P<operands>.*)")
COMMA = re.compile(r",(?![^\[]*\])")


class Instruction(NamedTuple):
    text: str
    guard: str | None
    negated: bool
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """A kernel's machine code."""

    name: str
    architecture: str
    instructions: tuple[Instruction, ...]

    @classmethod
    def parse(cls, name: str, architecture: str, listing: str) -> Kernel:
        lines = (re.sub(r"/\*.*?\*/", "", line).strip() for line in listing.splitlines())
        return cls(name, architecture, tuple(instruction(line) for line in lines if line))


def instruction(text: str) -> Instruction:
    text = text.rstrip("; ").replace(".reuse", "").strip()
    found = INSTRUCTION.fullmatch(text)
    if found is None:
        raise ValueError(f"no instruction: {text!r}")
    name, *modifiers = found["opcode"].split(".")
    operands = tuple(o.strip() for o in COMMA.split(found["operands"]) if o.strip())
    return Instruction(text, found["guard"], found["negated"] == "!", name, tuple(modifiers), operands)
