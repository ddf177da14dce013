"""Refuse what this machine cannot hold before the operating system has to choose what to kill."""

from __future__ import annotations

from collections.abc import Sequence

from mixedeffects.base.memory import usable_memory

__all__ = ["RemainderTooLargeError", "check_memory", "entries_that_fit"]

#: A matrix, its factor and its inverse are there at the same time.
_COPIES = 3


class RemainderTooLargeError(MemoryError):
    """The remainder would not fit into this machine's memory.

    Attributes
    ----------
    members : list of int
        What its dense core is made of: factors of the remainder, or terms.
    size : int
        Rows of the core.
    gigabytes : float
        What a fit would need.
    """

    def __init__(self, members: Sequence[int], size: int, gigabytes: float) -> None:
        super().__init__(f"{size} dense rows need {gigabytes:.1f} GB")
        self.members, self.size, self.gigabytes = list(members), size, gigabytes


def entries_that_fit() -> float:
    """Floating-point numbers a matrix may have, its factor and inverse beside it."""
    return usable_memory() / (8.0 * _COPIES)


def check_memory(core_rows: int, front_entries: float, members: Sequence[int]) -> None:
    """Raise `RemainderTooLargeError` if core and fronts have more entries than fit."""
    entries = float(core_rows) ** 2 + front_entries
    if entries > entries_that_fit():
        raise RemainderTooLargeError(members, core_rows, 8e-9 * _COPIES * entries)
