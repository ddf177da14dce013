"""Many responses for one design: only the y column of the cross-products changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.engine.basis import standard_responses
from mixedeffects.engine.crossproducts import CrossProducts, EngineTerm

__all__ = ["Responses", "replace_response"]

Matrix = NDArray[np.float64]


class Responses:
    """Cross-products of a design with m responses at once.

    Parameters
    ----------
    A : CrossProducts
        The blocks, with any response.
    Y : ndarray, shape (n, m)
        Responses less offset, one a column.
    X : ndarray, shape (n, p)
        Fixed-effects matrix that A was made of.
    terms : sequence of EngineTerm
        Random-effects terms that A was made of.
    weights : ndarray, shape (n,), or None
        Prior weights that A was made of.
    """

    def __init__(
        self,
        A: CrossProducts,
        Y: Matrix,
        X: Matrix,
        terms: Sequence[EngineTerm],
        weights: Matrix | None,
    ) -> None:
        self.A = A
        basis = A.basis
        w = None if weights is None else weights / basis.weight_scale
        X_star = X @ basis.fixed
        Y_star, self._beta0, self._scale = standard_responses(Y, X_star, basis.fixed, w)
        weighted = np.ascontiguousarray(Y_star if w is None else Y_star * w[:, None])
        m = Y.shape[1]
        self._products = []
        for factor in A.factors:
            out = np.empty((m, factor.n_levels, factor.k))
            for member in factor.members:
                term = terms[member.term]
                sums = np.zeros((term.n_levels, term.z.shape[1], m))
                _kernels.group_sums(term.codes, term.z, weighted, sums)
                out[:, :, member.columns] = sums.transpose(2, 0, 1) @ basis.terms[member.term]
            self._products.append(out)
        self._border = np.vstack(
            [X_star.T @ weighted, np.einsum("ij,ij->j", Y_star, weighted)[None, :]]
        )
        self._ends = [
            factor.head * np.arange(1, factor.n_levels + 1) + factor.ptr[1:] - 1
            for factor in A.chain
        ]

    def crossproducts(self, j: int) -> CrossProducts:
        """Blocks with response j in place of A's."""
        A = self.A
        chain = []
        for factor, ends, products in zip(A.chain, self._ends, self._products, strict=False):
            panel = factor.panel.copy()
            panel.reshape(-1, factor.k)[ends] = products[j]
            chain.append(replace(factor, panel=panel))
        rest = [products[j][:, :, None] for products in self._products[len(A.chain) :]]
        column = A.stack_remainder(rest, self._border[:, j, None])[:, 0]
        return replace(
            A,
            chain=tuple(chain),
            remainder=A.remainder.with_response(column),
            basis=replace(
                A.basis, beta0=self._beta0[:, j].copy(), response_scale=float(self._scale[j])
            ),
        )


def replace_response(
    A: CrossProducts,
    y: Matrix,
    X: Matrix,
    terms: Sequence[EngineTerm],
    weights: Matrix | None,
) -> CrossProducts:
    """The same blocks with another response, shape (n,); the others as for `Responses`."""
    return Responses(A, y[:, None], X, terms, weights).crossproducts(0)
