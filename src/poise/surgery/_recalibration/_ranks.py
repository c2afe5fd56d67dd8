"""Work that every process of a torch.distributed group does on its own share of the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import distributed

from poise._errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """All processes of the default group, or this one alone.

    Args:
        number: Of processes.
    """

    number: int

    @classmethod
    def of(cls, *, synchronize: bool) -> Ranks:
        """The default group, if it is wanted and there is one."""
        is_group = synchronize and distributed.is_available() and distributed.is_initialized()
        return cls(distributed.get_world_size() if is_group else 1)

    def together(self, work: Callable[[], T]) -> list[T]:
        """What `work` returns on each rank, in order.

        Raises:
            DataError: If it failed on another rank; on the rank where it failed its own error goes on. None waits.
        """
        if self.number == 1:
            return [work()]
        done: list[T] = []
        failure: Exception | None = None
        try:
            done.append(work())
        except Exception as error:  # goes on below, once the other ranks know
            failure = error
        gathered: list[tuple[list[T], str | None]] = [([], None)] * self.number
        distributed.all_gather_object(gathered, (done, None if failure is None else str(failure)))
        if failure is not None:
            raise failure
        for rank, (_, message) in enumerate(gathered):
            if message is not None:
                raise DataError(f"Another process failed: {message}", where=f"rank {rank}")
        return [one for found, _ in gathered for one in found]
