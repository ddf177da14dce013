"""G, the covariance matrix of the random effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.arrays import read_only
from mixedeffects.base.sealed import Sealed
from mixedeffects.covariance.design import z_labels
from mixedeffects.display import plots
from mixedeffects.display.vocabulary import squared_units
from mixedeffects.errors import ModelError
from mixedeffects.frame.model_frame import RandomTerm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RandomEffectsCovariance"]

Matrix = NDArray[np.float64]


class RandomEffectsCovariance(Sealed):
    """G = Var(b): one k x k covariance per term, repeated for each of its levels.

    Parameters
    ----------
    terms : sequence of RandomTerm
        The terms, in Z's order.
    blocks : sequence of ndarray (k, k)
        Covariance matrix of each term's effects, in squared units of the response.
    residual_arguments : mapping of str to str
        ``residual`` and ``variance`` of the model that they belong to, where it has them: without
        these they are not all of its V.
    name : str
        What V is called where it is that of a working model, on the scale of a link.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.G["Subject"].round(1)
                 (Intercept)  Days
    (Intercept)        612.1   9.6
    Days                 9.6  35.1
    >>> m.G.shape
    (36, 36)
    """

    #: Not on the objects of ordinary models, nor of those pickled by earlier versions.
    _residual_arguments: Mapping[str, str] = MappingProxyType({})
    _called: str = ""

    def __init__(
        self,
        terms: Sequence[RandomTerm],
        blocks: Sequence[Matrix],
        residual_arguments: Mapping[str, str] | None = None,
        name: str = "",
    ) -> None:
        self._terms = tuple(terms)
        if residual_arguments:
            self._residual_arguments = dict(residual_arguments)
        if name:
            self._called = name
        self._blocks = tuple(read_only(np.array(block, dtype=np.float64)) for block in blocks)

    @property
    def shape(self) -> tuple[int, int]:
        """(q, q), where q is the number of random effects, that is of columns of Z."""
        q = sum(term.n_levels * term.n_columns for term in self._terms)
        return q, q

    def __getitem__(self, label: str) -> pd.DataFrame:
        """Covariance matrix of one term's effects, DataFrame k x k; ModelError if there is none."""
        for term, block in zip(self._terms, self._blocks, strict=True):
            if term.label == label:
                return pd.DataFrame(block, index=term.columns, columns=list(term.columns))
        raise ModelError(
            f"There is no random-effects term {label!r}; "
            f"the terms are {', '.join(repr(t.label) for t in self._terms)}."
        )

    def keys(self) -> list[str]:
        """Labels of the terms, a list of str: the names that ``G[label]`` takes."""
        return [term.label for term in self._terms]

    def blocks(self) -> pd.DataFrame:
        """One block per term on the diagonal, ``bdiag(VarCorr(m))`` in R.

        Returns
        -------
        DataFrame, sum of k square
            Rows and columns labelled by term and column name; in squared units of the response
            per unit of the columns.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.G.blocks().to_numpy().round(2)
        array([[1.23, 0.  ],
               [0.  , 0.42]])
        """
        names = [(term.label, column) for term in self._terms for column in term.columns]
        labels = _multi_index(names, ["term", "column"])
        values = scipy.linalg.block_diag(*self._blocks) if names else np.zeros((0, 0))
        return pd.DataFrame(values, index=labels, columns=labels)

    def sparse(self) -> scipy.sparse.csc_array:
        """G in Z's column order, ``bdiag(kronecker(diag(l), G_t), ...)`` in R.

        Returns
        -------
        scipy.sparse.csc_array, q x q
            In squared units of the response per unit of the columns.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.G.sparse()[:4, :4].toarray().round(1)
        array([[612.1,   9.6,   0. ,   0. ],
               [  9.6,  35.1,   0. ,   0. ],
               [  0. ,   0. , 612.1,   9.6],
               [  0. ,   0. ,   9.6,  35.1]])
        """
        if not self._terms:
            return scipy.sparse.csc_array((0, 0))
        return scipy.sparse.csc_array(
            scipy.sparse.block_diag(
                [
                    scipy.sparse.kron(scipy.sparse.eye_array(term.n_levels), block)
                    for term, block in zip(self._terms, self._blocks, strict=True)
                ]
            )
        )

    def dense(self) -> Matrix:
        """G as an ndarray.

        Returns
        -------
        ndarray, q x q
            As `sparse`, zeros included.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.G.dense().shape
        (36, 36)
        """
        return np.asarray(self.sparse().toarray())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Matrix:
        """G as an ndarray, for NumPy."""
        return self.dense().astype(np.float64 if dtype is None else dtype)

    def labels(self) -> pd.MultiIndex:
        """Names of the rows of G, that is of the columns of Z.

        Returns
        -------
        MultiIndex of length q
            (term, level, column).

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.G.labels()[:2].tolist()
        [('Subject', '308', '(Intercept)'), ('Subject', '308', 'Days')]
        """
        return _multi_index(z_labels(self._terms), ["term", "level", "column"])

    def plot(self, *, ax: Any = None, **options: Any) -> Axes:
        """Picture of G, with lines between the terms.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        **options
            Passed on to `mixedeffects.plot.covariance`.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.G.plot(ax=Figure().subplots()).images[0].get_array().shape
        (36, 36)
        """
        start, groups = 0, []
        for term in self._terms:
            stop = start + term.n_levels * term.n_columns
            groups.append((term.label, start, stop))
            start = stop
        options.setdefault("title", "G, covariance of the random effects")
        # Of slopes too, the blocks are in several units.
        if all(term.columns == ("(Intercept)",) for term in self._terms):
            options.setdefault("units", squared_units(self._called))
        return plots.covariance(self.sparse(), ax=ax, groups=groups, **options)

    def __repr__(self) -> str:
        head = f"G: {self.shape[0]} x {self.shape[1]}, block-diagonal"
        parts = [
            f"{term.label}: {term.n_levels} levels, each with covariance\n"
            + self[term.label].to_string(float_format="{:.5g}".format)
            for term in self._terms
        ]
        return "\n".join([head, *parts])


def _multi_index(labels: Sequence[tuple[str, ...]], names: list[str]) -> pd.MultiIndex:
    """Also of no labels at all."""
    if labels:
        return pd.MultiIndex.from_tuples(labels, names=names)
    return pd.MultiIndex.from_arrays([[] for _ in names], names=names)
