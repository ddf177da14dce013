"""Where classes of stored fits and results lived in earlier versions.

A pickle names the module of each class in it. The modules of earlier versions are found under their
old names when something asks for them, with the same names in them; nothing is imported before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.comparison.variance_explained import Variances, variances
from mixedeffects.diagnostics.residuals import residual_quantiles
from mixedeffects.fitting.estimability import estimability
from mixedeffects.frame.estimable import Estimability
from mixedeffects.inference.wald import term_hypotheses

__all__ = ["Remembered", "find_former_modules"]

Matrix = NDArray[np.float64]

_PACKAGE = "mixedeffects"
#: Modules of earlier versions, and where their names are now.
_FORMER: dict[str, tuple[str, ...]] = {
    "conditional_aic": ("comparison.conditional_aic",),
    "cross_validation": ("comparison.cross_validation",),
    "deletion": ("diagnostics.deletion",),
    "display.bootstrap_plot": ("inference.bootstrap_plot",),
    "estimates_table": ("reporting.estimates_table",),
    "influence": ("diagnostics.influence",),
    "pickling": ("base.sealed", "storage.pickling"),
    "planned": ("prediction.planned",),
    "power": ("prediction.power",),
    "ranova": ("comparison.ranova",),
    "refitting": ("fitting.request", "fitting.refitting"),
    "searching": ("fitting.searching",),
    "variance_explained": ("comparison.variance_explained",),
    "variogram": ("diagnostics.variogram",),
    "without_data": ("storage.former_paths", "frame.without_rows", "fitting.request"),
}


@dataclass(frozen=True, eq=False)
class Remembered:
    """What a fit without its data kept of them in formats 1 and 2.

    Attributes
    ----------
    residual_quantiles : ndarray, shape (5,)
        Minimum, quartiles and maximum of the scaled residuals.
    variances : Variances
        Behind ICC and R2.
    term_contrasts : dict of int to dict of str to ndarray, shape (rows, p)
        Hypotheses of types 1, 2 and 3 about each term.
    estimability : Estimability or None
        How columns dropped for rank follow from those kept; None in the oldest.
    """

    residual_quantiles: Matrix
    variances: Variances
    term_contrasts: dict[int, dict[str, Matrix]]
    estimability: Estimability | None = None

    def as_dict(self) -> dict[Any, Any]:
        """The same as `Fit.remembered` has it."""
        kept: dict[Any, Any] = {
            residual_quantiles.key(): self.residual_quantiles,
            variances.key(): self.variances,
        }
        if self.estimability is not None:
            kept[estimability.key()] = self.estimability
        for kind, contrasts in self.term_contrasts.items():
            kept[term_hypotheses.key(kind)] = contrasts
        return kept


class _FormerModules(MetaPathFinder, Loader):
    """Finds a module of an earlier version, as one that looks its names up where they are now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != _PACKAGE or name not in _FORMER:
            return None
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        homes = _FORMER[module.__name__.partition(".")[2]]

        def find(name: str) -> Any:
            for home in homes:
                value = getattr(import_module(f"{_PACKAGE}.{home}"), name, None)
                if value is not None:
                    return value
            raise AttributeError(name)

        module.__getattr__ = find  # type: ignore[method-assign]


def find_former_modules() -> None:
    """Have Python find them; asked for once, when the package is imported."""
    if not any(isinstance(finder, _FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(_FormerModules())
