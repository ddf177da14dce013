"""What a matrix would cost, said in words, before it is made."""

from __future__ import annotations

from mixedeffects.base.memory import usable_memory
from mixedeffects.base.options import plain
from mixedeffects.errors import ModelError

__all__ = ["range_text", "refuse_above", "refuse_beyond_memory", "size_text"]


def refuse_above(n_bytes: float, max_gb: float, what: str, instead: str) -> None:
    """Raise ModelError if something would take more memory than allowed.

    Parameters
    ----------
    n_bytes : float
        What it would take.
    max_gb : float
        The limit, in gigabytes.
    what, instead : str
        Subject of the sentence, and the advice that follows it.
    """
    max_gb = plain(max_gb)
    if isinstance(max_gb, bool) or not isinstance(max_gb, (int, float)) or not max_gb >= 0.0:
        raise ModelError(f"max_gb must be a number of gigabytes, not {max_gb!r:.60}.")
    if n_bytes > max_gb * 1e9:
        raise ModelError(
            f"{what} would take {size_text(n_bytes)}, more than the limit of {max_gb:g} GB. "
            f"{instead}"
        )
    refuse_beyond_memory(n_bytes, what, instead)


def refuse_beyond_memory(n_bytes: float, what: str, instead: str) -> None:
    """Raise ModelError if something would take more memory than this machine has.

    Parameters
    ----------
    n_bytes : float
        What it would take.
    what, instead : str
        Subject of the sentence, and the advice that follows it.
    """
    memory = usable_memory()
    if n_bytes > memory:
        raise ModelError(
            f"{what} would take {size_text(n_bytes)}, more than the {size_text(memory)} that this "
            f"machine has for it. {instead}"
        )


def range_text(low: int, high: int) -> str:
    """``"10"`` or ``"10 to 20"``."""
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def size_text(n_bytes: float) -> str:
    """A number of bytes with three digits and its unit."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000.0:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000.0
    return f"{n_bytes:.3g} GB"
