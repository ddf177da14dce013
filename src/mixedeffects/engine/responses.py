"""Many responses for one design: only the y column of the cross-products changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.engine.basis import in_steps, standard_responses
from mixedeffects.engine.crossproducts import CrossProducts, EngineTerm
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.provisional import Columns, Provisional, project, residual_effects

__all__ = ["Responses", "less_provisional_effects", "replace_response"]

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
    less_effects_at : sequence of ndarray (k, k), optional
        Factors of the terms, in the basis of A, at which provisional random effects are found and
        taken off; see `provisional`.
    """

    def __init__(
        self,
        A: CrossProducts,
        Y: Matrix,
        X: Matrix,
        terms: Sequence[EngineTerm],
        weights: Matrix | None,
        less_effects_at: Sequence[Matrix] | None = None,
    ) -> None:
        self.A, self._terms = A, terms
        basis = A.basis
        self._w = None if weights is None else weights / basis.weight_scale
        self._X_star = basis.fixed_columns(X)
        self._Y, self._beta0, self._scale = standard_responses(
            Y, self._X_star, basis.fixed, self._w, A.n
        )
        self._products, self._border = self._multiply(self._Y)
        self._provisional: Columns | None = None
        if less_effects_at is not None:
            self._take_off_effects(less_effects_at)

    def _multiply(self, columns: Matrix) -> tuple[list[Matrix], Matrix]:
        """Products of columns with each factor, (l, k, m), and with ``[X*]``."""
        A, w = self.A, self._w
        weighted = np.ascontiguousarray(columns if w is None else columns * w[:, None])
        m = columns.shape[1]
        products = []
        for factor in A.factors:
            out = np.empty((factor.n_levels, factor.k, m))
            for member in factor.members:
                term = self._terms[member.term]
                steps = A.basis.term_steps[member.term] if A.basis.term_steps else ()
                # Columns far from zero lose their digits in sums over rows.
                z = in_steps(term.z, steps[:-1])
                sums = np.zeros((term.n_levels, z.shape[1], m))
                _kernels.group_sums(term.codes, z, weighted, sums)
                last = steps[-1] if steps else A.basis.terms[member.term]
                out[:, member.columns] = last.T @ sums
            products.append(out)
        return products, self._X_star.T @ weighted

    def _times_columns(self, effects: Sequence[Matrix]) -> Matrix:
        """``Z b`` for effects per factor, arrays (l, k, m)."""
        out = np.zeros((len(self._Y), effects[0].shape[2]))
        for factor, b in zip(self.A.factors, effects, strict=True):
            for member in factor.members:
                term = self._terms[member.term]
                z = self.A.basis.term_columns(member.term, term.z)
                for column, own in zip(z.T, b[:, member.columns].transpose(1, 0, 2), strict=True):
                    out += column[:, None] * own[term.codes]
        return out

    def _less(self, beta: Matrix, effects: Sequence[Matrix]) -> Columns:
        """``[X* Y]``, with ``X* beta`` off Y, less their effects."""
        columns = np.hstack([self._X_star, self._Y - self._X_star @ beta])
        left = columns - self._times_columns(effects)
        square = left.T @ (left if self._w is None else left * self._w[:, None])
        return Columns(tuple(effects), tuple(self._multiply(left)[0]), square)

    def _take_off_effects(self, T: Sequence[Matrix]) -> None:
        """Find provisional effects at T, and the fixed effects that go with them."""
        A = self.A
        products = [
            np.concatenate([own, of_y], axis=2)
            for own, of_y in zip(self._multiply(self._X_star)[0], self._products, strict=True)
        ]
        beta, self._provisional = less_provisional_effects(A, T, products, self._less)
        self._beta0 = self._beta0 + self._scale * (A.basis.fixed @ beta)
        self._Y = self._Y - self._X_star @ beta
        self._products, self._border = self._multiply(self._Y)

    def crossproducts(self, j: int) -> CrossProducts:
        """Blocks with response j in place of A's."""
        A, p = self.A, self.A.p
        y = self._Y[:, j]
        square = float(y @ (y if self._w is None else y * self._w))
        changed = A.with_response(
            [own[:, :, j] for own in self._products], np.append(self._border[:, j], square)
        )
        provisional = None
        if self._provisional is not None:
            own = np.append(np.arange(p), p + j)
            provisional = Provisional(A.without_border(), self._provisional.chosen(own))
        return replace(
            changed,
            basis=replace(
                A.basis, beta0=self._beta0[:, j].copy(), response_scale=float(self._scale[j])
            ),
            provisional=provisional,
        )


def less_provisional_effects(
    A: CrossProducts,
    T: Sequence[Matrix],
    products: Sequence[Matrix],
    less: Callable[[Matrix, Sequence[Matrix]], Columns],
) -> tuple[Matrix, Columns]:
    """Columns ``[X* Y]`` less their random effects at T; see `provisional`.

    Parameters
    ----------
    A : CrossProducts
        The blocks.
    T : sequence of ndarray (k, k)
        Relative factors, in the basis of A.
    products : sequence of ndarray (l, k, p + m)
        Products of ``[X* Y]`` with each factor.
    less : callable
        From what is taken off Y of ``X*``, (p, m), and effects, to what is left.

    Returns
    -------
    beta : ndarray, shape (p, m)
        What was taken off.
    left : Columns
    """
    p = A.p
    random = Factorisation(A.without_border(), T)
    size = products[0].shape[2]
    effects, _ = random.solve(products, np.zeros((0, size)))
    projection = project(random, less(np.zeros((p, size - p)), effects))
    square = projection.square
    beta = np.asarray(np.linalg.solve(square[:p, :p], square[:p, p:]))
    modes, _ = residual_effects(projection, beta)
    effects = [
        np.concatenate([own[:, :, :p], of_y], axis=2)
        for own, of_y in zip(projection.modes, modes, strict=True)
    ]
    return beta, less(beta, effects)


def replace_response(
    A: CrossProducts,
    y: Matrix,
    X: Matrix,
    terms: Sequence[EngineTerm],
    weights: Matrix | None,
    less_effects_at: Sequence[Matrix] | None = None,
) -> CrossProducts:
    """The same blocks with another response, shape (n,); the others as for `Responses`."""
    return Responses(A, y[:, None], X, terms, weights, less_effects_at).crossproducts(0)
