"""The operations of a program while they are written down, and where their values and gradients lie."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from poise.fleet.compiled._program import (
    ACCUMULATE,
    ACTIVATION,
    CHAIN,
    CODE,
    COPIES,
    DROP,
    DROP_PATH,
    EPS,
    FIRST,
    GHOST_SIZE,
    MOMENTS,
    NO_DROP,
    NO_NORM,
    NOISE,
    NORM,
    NUM_COLUMNS,
    PIECES,
    RATE,
    SCALE,
    SOURCE,
    SOURCE_COPIES,
    SOURCE_GRAD,
    SOURCE_WIDTH,
    STREAM,
    STRENGTH,
    TARGET,
    TARGET_GRAD,
    WIDTH,
)
from poise.kernels.cpu._activation import CODES


@dataclass(frozen=True)
class Value:
    """A matrix of the batch: where it lies, how wide it is, its first column whose gradient is needed, rows per row."""

    offset: int
    width: int
    first: int = 0
    copies: int = 1


@dataclass(eq=False)
class Operations:
    """Rows of `Program.ops`, and the numbers that they point to.

    Args:
        ops: In order of execution.
        constants: Of the program.
        total_width: Columns of all values.
        copies: Rows of new values for each row of the batch.
    """

    ops: list[list[int]] = field(default_factory=list)
    constants: list[float] = field(default_factory=list)
    total_width: int = 0
    copies: int = 1

    def new(self, width: int, first: int = 0) -> Value:
        """Room for a value."""
        value = Value(self.total_width, width, first, self.copies)
        self.total_width += max(1, width)  # values without columns lie apart, too
        return value

    def add(self, code: int, x: Value, y: Value) -> Value:
        """Append an operation that makes y of x; returns y."""
        op = [-1] * NUM_COLUMNS
        op[CODE], op[SOURCE], op[TARGET], op[SOURCE_WIDTH], op[WIDTH] = code, x.offset, y.offset, x.width, y.width
        op[NORM], op[ACTIVATION], op[DROP] = NO_NORM, CODES["identity"], NO_DROP
        op[ACCUMULATE], op[FIRST], op[GHOST_SIZE], op[MOMENTS], op[EPS] = 0, x.first, 0, 0, 0
        op[STRENGTH], op[STREAM], op[RATE], op[PIECES] = 0, 0, 0, 0
        op[SOURCE_GRAD], op[TARGET_GRAD] = x.offset, y.offset
        op[SOURCE_COPIES], op[COPIES] = x.copies, y.copies
        self.ops.append(op)
        return y

    def constant(self, number: float) -> int:
        """The index of a number."""
        self.constants.append(number)
        return len(self.constants) - 1

    def open_chain(self, x: Value) -> list[int] | None:
        """The last operation, if it is a chain that ends in x and has not dropped yet."""
        op = self.ops[-1] if self.ops else None
        return op if op and op[CODE] == CHAIN and op[TARGET] == x.offset and op[DROP] == NO_DROP else None

    def take_scale(self, x: Value) -> tuple[list[int] | None, Value]:
        """The last operation, taken away, if it scales what becomes x, and its source; None and x otherwise."""
        op = self.ops[-1] if self.ops else None
        if op is None or op[CODE] != SCALE or op[TARGET] != x.offset:
            return None, x
        self.ops.pop()
        self.total_width = x.offset
        return op, Value(op[SOURCE], op[SOURCE_WIDTH], op[FIRST], op[SOURCE_COPIES])

    def place_gradients(self) -> None:
        """Backward runs from the end: the last reader of a value writes its gradient, those before it add to it.

        The only reader of a value, if it is a map of elements, works in place: its gradients are one matrix.
        """
        readers = Counter(op[SOURCE] for op in self.ops)
        places: dict[int, int] = {}
        read: set[int] = set()
        for op in reversed(self.ops):
            op[ACCUMULATE] = int(op[SOURCE] in read)
            read.add(op[SOURCE])
            op[TARGET_GRAD] = places.get(op[TARGET], op[TARGET])
            if readers[op[SOURCE]] == 1 and op[CODE] in (CHAIN, NOISE, DROP_PATH, SCALE):
                places[op[SOURCE]] = op[TARGET_GRAD]
            op[SOURCE_GRAD] = places.get(op[SOURCE], op[SOURCE])
