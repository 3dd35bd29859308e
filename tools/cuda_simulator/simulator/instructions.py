"""What each instruction does, as functions that run for a group of lanes.

`compiled` turns a kernel into steps once. An opcode is looked up without the prefix U of the warp's own unit (UIADD3 is
IADD3). One that is not here compiles to a step that raises `UnknownInstruction` when it is reached, so that a kernel's
paths that nobody takes may hold anything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import control, floating, integer, moving
from .control import Control
from .errors import UnknownInstruction
from .operands import predicate
from .sass import Instruction, Kernel

__all__ = ["Control", "Step", "compiled"]

#: A way to compile an instruction: from it to a function of the machine and the group.
TABLE = {**moving.TABLE, **integer.TABLE, **floating.TABLE}

#: What says nothing about values here: hints for the caches and the scheduler, and fences (each lane sees all stores).
IGNORED = {"NOP", "YIELD", "MEMBAR", "ERRBAR", "CGAERRBAR", "CCTL", "DEPBAR", "ENDCOLLECTIVE", "ACQBULK"}


@dataclass(frozen=True)
class Step:
    """An instruction that every lane of a group does and then goes on to the next."""

    text: str
    effect: Callable[[Any, Any], None]
    guard: Callable[[Any, Any], Any] | None = None

    def run(self, machine: Any, where: Any, group: np.ndarray) -> None:
        if self.guard is not None:
            chosen = np.broadcast_to(self.guard(machine, where), group.shape)
            if not chosen.all():
                where = group[chosen]
                if where.size == 0:
                    return
        self.effect(machine, where)


@functools.lru_cache(maxsize=64)
def compiled(kernel: Kernel) -> list[Step | Control]:
    return [_compile(each) for each in kernel.instructions]


def _compile(instruction: Instruction) -> Step | Control:
    text = instruction.text
    try:
        guard = None
        if instruction.guard is not None:
            guard = predicate(("!" if instruction.negated else "") + instruction.guard)
        name = instruction.name
        if name in control.KINDS:
            return control.KINDS[name](text, guard, instruction)
        if name in IGNORED:
            return Step(text, lambda m, s: None)
        if name.startswith("U") and name[1:] in TABLE:
            name = name[1:]
        if name not in TABLE:
            raise UnknownInstruction("no such opcode")
        return Step(text, TABLE[name](instruction._replace(name=name)), guard)
    except (UnknownInstruction, ValueError, IndexError, KeyError) as error:
        reason = f"{text}: {error}"

        def unknown(m: Any, s: Any) -> None:
            raise UnknownInstruction(reason)

        return Step(text, unknown)
