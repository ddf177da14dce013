"""V = Z G Z' + R, the marginal covariance matrix of the response, as what a user holds.

Nothing n x n is made until somebody asks for it. What V is stands in ``structure.py``, and what can
be done to it in files of their own: ``product.py``, ``entries.py``, ``blocks.py``,
``conversion.py``, ``inverse.py``, ``whitening.py``, ``sampling.py``, ``pictures.py`` and
``export.py``. Here are the methods that call them; those that need the engine's factor, a square
root or a file are in the ``marginal_*.py`` beside this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.arrays import read_only
from mixedeffects.base.caching import cached_property
from mixedeffects.base.sealed import Sealed
from mixedeffects.covariance.blocks import iterate_blocks
from mixedeffects.covariance.components import check_sigma
from mixedeffects.covariance.design import random_effects_matrix
from mixedeffects.covariance.factored import FactoredCovariance, factorise, refactored
from mixedeffects.covariance.marginal_inverse import InverseOfV
from mixedeffects.covariance.marginal_output import OutputOfV
from mixedeffects.covariance.marginal_roots import RootsOfV
from mixedeffects.covariance.parts import CovarianceParts, split_by_source
from mixedeffects.covariance.random_effects import RandomEffectsCovariance
from mixedeffects.covariance.residual import ResidualCovariance
from mixedeffects.covariance.rows import Rows
from mixedeffects.covariance.sizes import range_text, size_text
from mixedeffects.covariance.structure import CovarianceStructure, with_residual_factor
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["MarginalCovariance", "factorise"]

Matrix = NDArray[np.float64]


class MarginalCovariance(InverseOfV, RootsOfV, OutputOfV, Sealed):
    """V as an n x n operator: solve, multiply, cut by cluster, turn into a matrix.

    Made by ``m.V`` for a fitted model, and by `mixedeffects.marginal_covariance` for a planned one.
    Rows are the rows used, in the order of the data.

    Parameters
    ----------
    terms : sequence of RandomTerm
        Codes and columns of the random effects.
    blocks : sequence of ndarray (k, k)
        Covariance matrix G_t of each term's effects.
    sigma : float
        Residual standard deviation at unit weight.
    weights : ndarray, shape (n,), or None
        Prior weights.
    factorisation : Factorisation
        M at these parameters, from the engine.
    index : pandas.Index, length n
        Row labels.
    residual : StructuredResidual, optional
        R where it is not ``sigma^2 W^-1``; the factorisation is then that of whitened rows.
    name : str
        What is said of V where it is not the covariance of the response.

    Examples
    --------
    >>> import numpy as np
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.V.shape
    (180, 180)
    >>> m.V.block("308").iloc[:2, :2].round(1)
            0       1
    0  1267.0   621.7
    1   621.7  1321.3
    >>> bool(np.allclose(m.V.solve(m.V @ m.y), m.y))
    True
    """

    _instead = (
        "V.solve, V.logdet, V.quad, V @ x, V.diag, V.gls and V.block(level) answer without it; "
        "max_gb= raises the limit."
    )

    def __init__(
        self,
        terms: Sequence[RandomTerm],
        blocks: Sequence[Matrix],
        sigma: float,
        weights: Matrix | None,
        factorisation: Factorisation,
        index: pd.Index,
        residual: StructuredResidual | None = None,
        name: str = "",
    ) -> None:
        # What pickles hold: the rest follows from it.
        self._user_terms = tuple(terms)
        self._user_blocks = tuple(read_only(np.array(G, dtype=np.float64)) for G in blocks)
        #: Residual standard deviation at unit prior weight, in units of the response.
        self.sigma = sigma
        self._weights = weights
        self._factorisation = factorisation
        self._index = index
        self._residual = residual
        # Not `_name`, which stored matrices have had for something else.
        self._called = name

    @classmethod
    def _attributes_now(cls, stored: dict[str, Any]) -> dict[str, Any]:
        return {"_residual": None, "_called": "", **stored}

    @cached_property
    def _factored(self) -> FactoredCovariance:
        return FactoredCovariance.of(
            self._user_terms, self._user_blocks, self.R._matrix, self.sigma, self._factorisation
        )

    @cached_property
    def _structure(self) -> CovarianceStructure:
        return self._factored.V

    @cached_property
    def _rows(self) -> Rows:
        R = self._residual
        factors = with_residual_factor(self._user_terms, None if R is None else R.factor)
        return Rows(self._index, factors, "V")

    @property
    def T(self) -> MarginalCovariance:
        """V itself: it is symmetric."""
        return self

    # --- what it is made of ----------------------------------------------------------------

    @property
    def G(self) -> RandomEffectsCovariance:
        """Covariance matrix of the random effects, q x q."""
        R = self._residual
        of = {} if R is None else {"residual": R.term, "variance": R.variance}
        arguments = {name: part.text for name, part in of.items() if part is not None}
        terms, blocks = self._user_terms, self._user_blocks
        return RandomEffectsCovariance(terms, blocks, arguments, self._called)

    @property
    def R(self) -> ResidualCovariance:
        """Covariance matrix of the residual errors, n x n."""
        n = len(self._index)
        rows = replace(self._rows, matrix="R")
        return ResidualCovariance(self.sigma, self._weights, n, self._residual, rows, self._called)

    @property
    def Z(self) -> scipy.sparse.csc_array:
        """Random-effects model matrix, n x q, in the column order of G."""
        return random_effects_matrix(self._user_terms, len(self._index))

    @cached_property
    def parts(self) -> CovarianceParts:
        """V by source: ``{"tch:sch": part, "sch": part, "Residual": part}``, summing to V.

        Each part is an operator as V is; ``V.parts.share()`` gives their proportions of the
        marginal variance. Terms on one grouping factor make one part.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> list(m.V.parts)
        ['tch.cl:sch.cl', 'sch.cl', 'Residual']
        >>> m.V.parts.share().round(3)
        tch.cl:sch.cl    0.467
        sch.cl           0.160
        Residual         0.373
        Name: share, dtype: float64
        """
        return split_by_source(self)

    def at(self, theta: Any, sigma: float | None = None) -> MarginalCovariance:
        """V of the same rows at other parameters.

        Parameters
        ----------
        theta : array, shape (m,)
            Relative covariance parameters, in lme4's order.
        sigma : float, optional
            Residual standard deviation; by default this V's.

        Returns
        -------
        MarginalCovariance
            This V stays as it is.

        Raises
        ------
        ModelError
            If theta has the wrong length, a value is not finite, sigma is not positive, or V is
            not numerically positive definite there.

        Examples
        --------
        Without random effects the rows are independent:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.V.at([0, 0, 0], sigma=30.0).rows([0, 1])
        array([[900.,   0.],
               [  0., 900.]])
        """
        scale = self.sigma if sigma is None else check_sigma(sigma)
        blocks, factorisation = refactored(self._factorisation.A, self._user_terms, theta, scale)
        return self._with(blocks, scale, factorisation)

    def _with(
        self, blocks: Sequence[Matrix], sigma: float, factorisation: Factorisation
    ) -> MarginalCovariance:
        """The same rows with other covariances."""
        R = self._residual
        return MarginalCovariance(
            self._user_terms,
            blocks,
            sigma,
            self._weights,
            factorisation,
            self._index,
            residual=None if R is None else R.divided_by((self.sigma / sigma) ** 2),
            name=self._called,
        )

    # --- block by block ------------------------------------------------------------------

    def blocks(
        self, by: str | None = None, *, partial: bool = False
    ) -> Iterator[tuple[Any, NDArray[np.intp], Matrix]]:
        """Iterate over V's blocks.

        Parameters
        ----------
        by : str, optional
            A grouping factor by which V is block-diagonal: one block per level. By default the
            connected blocks: rows that share any level, directly or through others; V is zero
            between them.
        partial : bool
            Whether ``by`` may also be a factor by which V is not block-diagonal, such as teachers
            within schools. The blocks are then cut out of V, and the covariances between rows of
            different levels are in none of them.

        Yields
        ------
        level : str or int
            Level label, or the number of the connected block.
        rows : ndarray of intp
            Row positions.
        block : ndarray, n_i x n_i
            ``V[rows, rows]``, in squared units of the response.

        Raises
        ------
        ModelError
            If there is no such factor, or V is not block-diagonal by it and ``partial`` is false.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> level, rows, block = next(m.V.blocks(by="sch.cl"))
        >>> level, rows.tolist(), block.shape
        ('a', [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], (15, 15))

        Pupils of different teachers of a school are correlated, so V has no blocks by teacher:

        >>> m.V.blocks(by="tch.cl:sch.cl")
        Traceback (most recent call last):
            ...
        mixedeffects.errors.ModelError: V is not block-diagonal by 'tch.cl:sch.cl': ...
        >>> len(list(m.V.blocks(by="tch.cl:sch.cl", partial=True)))
        30
        """
        return iterate_blocks(self._structure, by, partial)

    def corr(self, level: Any, by: str | None = None) -> pd.DataFrame:
        """Correlations within one level, as option VCORR of SAS's PROC MIXED gives them.

        Parameters
        ----------
        level, by
            As for `block`.

        Returns
        -------
        DataFrame, n_i x n_i
            With ones on the diagonal.

        Raises
        ------
        ModelError
            As for `block`.

        Examples
        --------
        In a school, pupils of one teacher (rows 0 and 1) and of different teachers (0 and 5):

        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.V.corr("a").loc[[0, 1, 5], [0, 1, 5]].round(2)
              0     1     5
        0  1.00  0.63  0.16
        1  0.63  1.00  0.16
        5  0.16  0.16  1.00
        """
        block = self.block(level, by)
        values = block.to_numpy()
        sd = np.sqrt(np.diag(values))
        return pd.DataFrame(values / np.outer(sd, sd), index=block.index, columns=block.columns)

    def __repr__(self) -> str:
        name = f", {self._called}" if self._called else ""
        lines = [f"V = Z G Z' + R{name}: {self._n:,} x {self._n:,}, {self._blocks_text()}"]
        if self._user_terms:
            groups = (f"{t.label} ({t.n_levels} levels)" for t in self._user_terms)
            lines.append(f"  random effects: {'; '.join(groups)}")
        if self.R.structure is not None:
            lines.append(f"  residual covariance: {self.R.structure}")
        lines.append(
            f"  dense it would take {size_text(8.0 * float(self._n) ** 2)}; "
            "solve, logdet, quad, @, diag, block and gls need none of it"
        )
        return "\n".join(lines)

    def _blocks_text(self) -> str:
        sizes = self._structure.connected.sizes
        if len(sizes) == 1:
            return "one connected block"
        if max(sizes) == 1:
            return "diagonal"
        return f"{len(sizes):,} blocks of {range_text(min(sizes), max(sizes))} rows"
