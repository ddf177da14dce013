"""Conditional modes of the random effects and their covariances, given beta and theta."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.base.options import checked_flag, meant
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit

__all__ = ["RandomEffects", "conditional_modes"]

Matrix = NDArray[np.float64]


class RandomEffects(dict[str, pd.DataFrame]):
    """Conditional modes by grouping factor, with their covariances where asked for.

    Attributes
    ----------
    cond_var : dict of str to ndarray (l, k, k)
        Conditional covariance matrix of each level's effects, in the order of the DataFrame's
        rows and columns; empty unless asked for.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    >>> effects = m.ranef(cond_var=True)
    >>> effects["Batch"].round(1).T
                    A    B     C     D     E     F
    (Intercept) -17.6  0.4  28.6 -23.1  56.7 -45.0
    >>> effects.cond_var["Batch"].shape
    (6, 1, 1)
    """

    def __init__(self, modes: dict[str, pd.DataFrame], cond_var: dict[str, Matrix]) -> None:
        super().__init__(modes)
        self.cond_var = cond_var

    def __missing__(self, group: str) -> pd.DataFrame:
        known = ", ".join(repr(name) for name in self)
        raise ModelError(
            f"There is no grouping factor {group!r}; there are {known}.{meant(group, self)}"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row for each conditional mode, as ``as.data.frame(ranef(m))`` in R's lme4.

        Returns
        -------
        DataFrame, q rows
            Columns ``grp``, ``level``, ``term``, ``condval``, and ``condsd``, the conditional
            standard deviation, if the variances were asked for.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.ranef(cond_var=True).to_frame().head(2)
        grp   level term        condval condsd
        Batch A     (Intercept) -17.607 19.587
        Batch B     (Intercept)   0.391 19.587
        """
        parts = []
        for group, modes in self.items():
            n_levels, k = modes.shape
            part = pd.DataFrame(
                {
                    "grp": group,
                    "level": np.repeat(np.asarray(modes.index.astype(str), dtype=object), k),
                    "term": np.tile(np.asarray(modes.columns, dtype=object), n_levels),
                    "condval": modes.to_numpy().ravel(),
                }
            )
            if group in self.cond_var:
                variances = np.einsum("ikk->ik", self.cond_var[group])
                part["condsd"] = np.sqrt(np.maximum(variances, 0.0)).ravel()
            parts.append(part)
        return ResultTable.of(pd.concat(parts, ignore_index=True))

    def __repr__(self) -> str:
        return "\n\n".join(
            f"{group} ({len(modes):,} levels)\n" + modes.to_string(max_rows=10)
            for group, modes in self.items()
        )


def conditional_modes(fit: Fit, cond_var: bool = False) -> RandomEffects:
    """Modes by grouping factor; terms on the same factor share a table, as in lme4.

    Parameters
    ----------
    fit : Fit
        The fit.
    cond_var : bool
        Whether to compute ``Var(b | y, beta) = sigma^2 Lambda M_q^-1 Lambda'``, level by level.

    Returns
    -------
    RandomEffects
        In the units of the response per unit of the column.
    """
    frame, modes = fit.frame, fit.modes
    by_group: dict[str, list[int]] = {}
    for t, term in enumerate(frame.terms):
        by_group.setdefault(term.group, []).append(t)
    tables = {
        group: pd.DataFrame(
            np.hstack([modes[t] for t in members]),
            index=frame.terms[members[0]].levels,
            columns=[column for t in members for column in frame.terms[t].columns],
        )
        for group, members in by_group.items()
    }
    if not checked_flag(cond_var, "cond_var"):
        return RandomEffects(tables, {})
    factorisation = fit.factorisation_at_modes
    A = factorisation.A
    inverse = factorisation.selected_inverse(with_fixed=False, keep=True)
    variances = {}
    for f, factor in enumerate(A.factors):
        order = sorted(factor.members, key=lambda member: member.term)
        C = scipy.linalg.block_diag(*(A.basis.terms[m.term] for m in order))
        columns = np.concatenate([np.arange(factor.k)[m.columns] for m in order])
        P = inverse.P[f][:, columns[:, None], columns[None, :]]
        scale = (fit.working_sigma / np.sqrt(A.basis.weight_scale)) ** 2
        group = frame.terms[order[0].term].group
        variances[group] = scale * np.einsum("ab,ibc,dc->iad", C, P, C)
    return RandomEffects(tables, variances)
