"""A launch: all threads of all blocks side by side, one lane each, in numpy arrays.

Lanes at the same instruction are a group, and a group is executed at once. Of several groups the one whose instruction
stands first in the code goes on until it meets another; so lanes that parted come together again. Where the code says
that lanes wait for each other (BSYNC, WARPSYNC, BAR), they wait. Blocks are independent: there is no order between them,
and none of the kernels here communicates across blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from .errors import Deadlock, EndlessLoop, OutOfBounds
from .instructions import Control, compiled
from .moving import LOCAL_WINDOW, SHARED_WINDOW
from .sass import Kernel

BASE = 0x7F00_0000_0000  # where global memory starts
STEPS = 400_000  # instructions of a group; the largest launch here takes a tenth
SHARED = 12_288  # words of shared memory a block has
LOCAL = 256  # words of local memory a thread has
REGISTERS = 256 + 64  # a thread's own, then those of its warp
WARP = 32
#: Where the constant bank holds the parameters.
PARAMETERS = {"sm_80": 0x160, "sm_90": 0x210}


class Memory:
    """Global memory: arrays with gaps between them, so that what runs over an end is found."""

    def __init__(self, words: int = 1 << 16) -> None:
        self.words = np.zeros(words, np.uint32)
        self.allocated = np.zeros(words, bool)
        self.top = 64

    def put(self, array: np.ndarray) -> int:
        """The address of a copy."""
        data = np.ascontiguousarray(array)
        words = data.nbytes // 4
        start, self.top = self.top, (self.top + words + 127) // 64 * 64
        if self.top > self.words.size:
            grown = max(2 * self.words.size, self.top)
            self.words = np.concatenate([self.words, np.zeros(grown - self.words.size, np.uint32)])
            self.allocated = np.concatenate([self.allocated, np.zeros(grown - self.allocated.size, bool)])
        self.words[start : start + words] = data.reshape(-1).view(np.uint32)
        self.allocated[start : start + words] = True
        return BASE + 4 * start

    def empty(self, *shape: int) -> int:
        """The address of an array that nobody wrote: NaN, so that what is not written shows."""
        return self.put(np.full(shape, np.nan, np.float32))

    def get(self, address: int, *shape: int) -> np.ndarray:
        start = (address - BASE) // 4
        return self.words[start : start + int(np.prod(shape))].view(np.float32).reshape(shape).copy()

    def index(self, address: np.ndarray, size: int, text: str) -> np.ndarray:
        """Words for addresses, after a look at whether they are allocated and aligned."""
        words = (address - np.uint64(BASE)) >> np.uint64(2)
        last = words + np.uint64(size // 4 - 1)
        if np.any(address % np.uint64(size)) or np.any(last >= np.uint64(self.words.size)):
            raise OutOfBounds(f"{text}: address {int(address.flat[0]):#x} is not aligned or outside memory")
        inside = self.allocated[words.astype(np.int64)] & self.allocated[last.astype(np.int64)]
        if not inside.all():
            raise OutOfBounds(f"{text}: address {int(address[~inside][0]):#x} is not allocated")
        return words.astype(np.int64)


class Machine:
    """The state of a launch."""

    def __init__(self, kernel: Kernel, memory: Memory, grid: tuple[int, int], block: tuple[int, int], bank: bytes):
        threads, blocks = block[0] * block[1], grid[0] * grid[1]
        self.padded = -(-threads // WARP) * WARP  # a block starts a warp of its own
        self.kernel, self.memory, self.bank, self.count = kernel, memory, bank, blocks * self.padded
        lanes = np.arange(self.count)
        self.block_of, thread = lanes // self.padded, lanes % self.padded
        self.thread = (thread % block[0], thread // block[0])
        self.block = (self.block_of % grid[0], self.block_of // grid[0])
        self.lane = (lanes % WARP).astype(np.uint32)
        self.alive = thread < threads
        self.registers = np.zeros((REGISTERS, self.count), np.uint32)
        self.floats = self.registers.view(np.float32)
        self.predicates = np.zeros((16, self.count), bool)
        self.shared = np.zeros(blocks * SHARED, np.uint32)
        self.local = np.zeros(self.count * LOCAL, np.uint32)
        self.barriers = np.zeros((16, self.count), np.uint32)
        self.waiting: dict[int, np.ndarray] = {}
        self.lanes = lanes

    # --- who is where -------------------------------------------------------------------------------------------------

    def masks(self, present: np.ndarray) -> np.ndarray:
        """For each lane, which lanes of its warp are present, as the bits of a word."""
        bits = present.reshape(-1, WARP) << np.arange(WARP, dtype=np.uint64)
        return np.repeat(bits.sum(1, dtype=np.uint64), WARP).astype(np.uint32)

    def present(self, group: np.ndarray) -> np.ndarray:
        found = np.zeros(self.count, bool)
        found[group] = True
        return found

    def arrived(self, pc: int, needed: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The lanes that wait at an instruction and whose company is complete."""
        here = self.waiting.get(pc)
        if here is None:
            return self.lanes[:0]
        done = here & needed(here)
        self.waiting[pc] = here & ~done
        return np.flatnonzero(done)

    def of_warp(self, needed: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Whether all that a lane needs of its warp, and that still run, are here."""

        def complete(here: np.ndarray) -> np.ndarray:
            missing = needed & self.masks(self.alive) & ~self.masks(here)
            return missing == 0

        return complete

    def of_block(self, here: np.ndarray) -> np.ndarray:
        absent = (self.alive & ~here).reshape(-1, self.padded).any(1)
        return ~np.repeat(absent, self.padded)

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Runs to the end and says how many instructions of groups that took."""
        code = compiled(self.kernel)
        groups: dict[int, np.ndarray] = {0: np.flatnonzero(self.alive)}
        steps = 0

        def add(pc: int, lanes: np.ndarray) -> None:
            if lanes.size:
                groups[pc] = np.union1d(groups[pc], lanes) if pc in groups else lanes

        while groups or self._release(code, add):
            pc = min(groups)
            group = groups.pop(pc)
            limit = min(groups, default=len(code))
            where = slice(None) if group.size == self.count else group
            while True:
                steps += 1
                if steps > STEPS:
                    raise EndlessLoop(f"{self.kernel.name}: more than {STEPS} steps, at {code[pc].text}")
                step = code[pc]
                if isinstance(step, Control):
                    for target, lanes in step.go(self, group, pc):
                        add(target, lanes)
                    break
                step.run(self, where, group)
                pc += 1
                if pc >= limit:
                    add(pc, group)
                    break
        return steps

    def _release(self, code: list, add: Callable[[int, np.ndarray], None]) -> bool:
        """Looks again at those who wait: whom they waited for may have left."""
        waiting = [pc for pc, here in self.waiting.items() if here.any()]
        released = False
        for pc in waiting:
            for target, lanes in code[pc].again(self, pc):
                add(target, lanes)
                released |= lanes.size > 0
        if waiting and not released:
            raise Deadlock(f"{self.kernel.name}: all threads wait, at {code[waiting[0]].text}")
        return released


def launch(kernel: Kernel, memory: Memory, parameters: bytes, grid: tuple[int, int], block: tuple[int, int]) -> int:
    """Runs a kernel over a grid of blocks. The parameters are laid out as C does it."""
    bank = bytearray(0x1000)
    sizes = np.array([block[0], block[1], 1, grid[0], grid[1], 1], "<u4").tobytes()
    bank[: len(sizes)] = sizes
    bank[0x18:0x28] = struct.pack("<QQ", SHARED_WINDOW << 32, LOCAL_WINDOW << 32)
    bank[0x28:0x2C] = (4 * LOCAL).to_bytes(4, "little")  # where the stack of a thread starts
    start = PARAMETERS[kernel.architecture]
    bank[start : start + len(parameters)] = parameters
    with np.errstate(all="ignore"):
        return Machine(kernel, memory, grid, block, bytes(bank)).run()
