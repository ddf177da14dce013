"""Pictures need matplotlib, which is an extra."""

from __future__ import annotations

__all__ = ["require_matplotlib"]


def require_matplotlib() -> None:
    """Say how to install matplotlib where it is missing.

    Raises
    ------
    ImportError
        If it is.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError(
            "Pictures need matplotlib; install it with: pip install 'mixedeffects[plots]'"
        ) from None
