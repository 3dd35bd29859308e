"""What can go wrong in a simulation. Every error names the instruction and where it stands."""


class SimulationError(Exception):
    """The simulation cannot go on, so there is no result: never a wrong one in its place."""


class UnknownInstruction(SimulationError):
    """An instruction, an operand or a form of one that has no meaning here yet."""


class OutOfBounds(SimulationError):
    """An access outside what was allocated, or not aligned to its size."""


class EndlessLoop(SimulationError):
    """More instructions than any kernel here needs."""


class Deadlock(SimulationError):
    """Threads wait for others that will never come, or a shuffle reads a lane that is elsewhere."""


class NotExtracted(SimulationError):
    """The machine code is not in the cache."""
