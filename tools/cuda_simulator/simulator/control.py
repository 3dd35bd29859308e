"""Instructions after which lanes may go different ways, or wait for each other.

`go` says where the lanes of a group are next, as pairs of an instruction's number and lanes. Lanes in no pair have ended,
or wait; `again` looks at those that wait once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import UnknownInstruction
from .operands import predicate, register, word
from .sass import Instruction

Move = tuple[int, np.ndarray]


@dataclass(frozen=True)
class Control:
    text: str
    guard: Callable[[Any, Any], Any] | None
    instruction: Instruction

    def go(self, machine: Any, group: np.ndarray, pc: int) -> Iterator[Move]:
        chosen = np.ones(group.shape, bool)
        if self.guard is not None:
            chosen = np.array(np.broadcast_to(self.guard(machine, group), group.shape))
        chosen = chosen & np.broadcast_to(self.condition(machine, group), group.shape)
        yield pc + 1, group[~chosen]
        if chosen.any():
            yield from self.do(machine, group[chosen], pc)

    def condition(self, machine: Any, group: np.ndarray) -> Any:
        return True

    def do(self, machine: Any, group: np.ndarray, pc: int) -> Iterator[Move]:
        raise NotImplementedError

    def again(self, machine: Any, pc: int) -> Iterator[Move]:
        return iter(())


class Branch(Control):
    """BRA [p,] target. BRA.DIV leaves for a path that treats a warp whose lanes have parted: here they wait instead."""

    def condition(self, machine: Any, group: np.ndarray) -> Any:
        if "DIV" in self.instruction.modifiers or "CONV" in self.instruction.modifiers:
            return True
        *conditions, _ = self.instruction.operands
        return predicate(conditions[0])(machine, group) if conditions else True

    def do(self, machine: Any, group: np.ndarray, pc: int) -> Iterator[Move]:
        if "DIV" in self.instruction.modifiers:
            machine.waiting.setdefault(pc, np.zeros(machine.count, bool))[group] = True
            yield from self.again(machine, pc)
        elif "CONV" in self.instruction.modifiers:
            yield pc + 1, group  # the path for parted lanes is right for all
        else:
            yield int(self.instruction.operands[-1], 16) // 16, group

    def again(self, machine: Any, pc: int) -> Iterator[Move]:
        everyone = machine.masks(machine.alive)
        yield pc + 1, machine.arrived(pc, machine.of_warp(everyone))


class Call(Control):
    def do(self, machine: Any, group: np.ndarray, pc: int) -> Iterator[Move]:
        yield int(self.instruction.operands[0], 16) // 16, group


class Return(Control):
    """RET R4 0x0: to where the register says, which may differ."""

    def do(self, machine: Any, group: np.ndarray, pc: int) -> Iterator[Move]:
        name, offset = self.instruction.operands[0].split()
        targets = (machine.registers[register(name), group] + np.uint32(int(offset, 16))) // 16
        for target in np.unique(targets):
            yield int(target), group[targets == target]


class Exit(Control):
    def do(self, machine: Any, group: np.ndarray, pc: int) -> Iterator[Move]:
        machine.alive[group] = False
        return iter(())


class SetBarrier(Control):
    """BSSY B, target: the lanes that are here will meet at the BSYNC of B."""

    def do(self, machine: Any, group: np.ndarray, pc: int) -> Iterator[Move]:
        number = int(self.instruction.operands[0][1:])
        machine.barriers[number, group] = machine.masks(machine.present(group))[group]
        yield pc + 1, group


class Break(Control):
    """BREAK B: these lanes will not come to the BSYNC of B."""

    def do(self, machine: Any, group: np.ndarray, pc: int) -> Iterator[Move]:
        number = int(self.instruction.operands[0][1:])
        machine.barriers[number] &= ~machine.masks(machine.present(group))
        yield pc + 1, group


class Meet(Control):
    """BSYNC B, and WARPSYNC with a mask: go on together."""

    def needed(self, machine: Any) -> Any:
        name, operands = self.instruction.name, self.instruction.operands
        if name == "BSYNC":
            return machine.barriers[int(operands[0][1:])]
        if "ALL" in self.instruction.modifiers:
            return machine.masks(machine.alive)
        if "COLLECTIVE" in self.instruction.modifiers:
            raise UnknownInstruction(f"{self.text}: the path of a warp whose lanes have parted")
        return np.broadcast_to(word(operands[0])(machine, slice(None)), (machine.count,))

    def do(self, machine: Any, group: np.ndarray, pc: int) -> Iterator[Move]:
        machine.waiting.setdefault(pc, np.zeros(machine.count, bool))[group] = True
        yield from self.again(machine, pc)

    def again(self, machine: Any, pc: int) -> Iterator[Move]:
        yield pc + 1, machine.arrived(pc, machine.of_warp(self.needed(machine)))


class BlockBarrier(Control):
    """BAR.SYNC: all threads of the block."""

    def do(self, machine: Any, group: np.ndarray, pc: int) -> Iterator[Move]:
        if "SYNC" not in self.instruction.modifiers:
            raise UnknownInstruction(self.text)
        machine.waiting.setdefault(pc, np.zeros(machine.count, bool))[group] = True
        yield from self.again(machine, pc)

    def again(self, machine: Any, pc: int) -> Iterator[Move]:
        yield pc + 1, machine.arrived(pc, machine.of_block)


KINDS: dict[str, type[Control]] = {
    "BRA": Branch, "CALL": Call, "RET": Return, "EXIT": Exit, "BSSY": SetBarrier, "BREAK": Break, "BSYNC": Meet,
    "WARPSYNC": Meet, "BAR": BlockBarrier,
}  # fmt: skip
