"""How much memory this machine has."""

from __future__ import annotations

import os

__all__ = ["usable_memory"]


def usable_memory() -> float:
    """Bytes that this machine has for us; infinite where the system does not tell."""
    try:
        memory = float(os.sysconf("SC_PAGE_SIZE")) * float(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not every system tells
        return float("inf")
    return 0.9 * memory
