"""A property that is computed once, without a lock.

Before Python 3.12 the standard library's holds a lock, one for all objects of the class, while it
computes. A process forked meanwhile by another thread inherits it held, by a thread that is not
there any more, and waits for ever at the first use. Two threads may here compute the same value
twice instead, which does no harm.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

__all__ = ["cached_property"]

if TYPE_CHECKING:
    from functools import cached_property
else:

    class cached_property(functools.cached_property):  # noqa: N801
        """`functools.cached_property` without a lock; see the module."""

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            """The value, from the second time on the one of the first."""
            if instance is None:
                return self
            values = instance.__dict__
            if self.attrname not in values:
                values[self.attrname] = self.func(instance)
            return values[self.attrname]
