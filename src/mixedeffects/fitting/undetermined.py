"""Variance parameters that the likelihood does not depend on: found after a fit, and in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.engine.basis import Basis
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.curvature import surely_curved
from mixedeffects.engine.identification import (
    Design,
    may_be_undetermined,
    undetermined_directions,
)
from mixedeffects.engine.optimum import Optimum
from mixedeffects.engine.parameters import lower_entries
from mixedeffects.fitting.assembly import engine_terms
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm

__all__ = ["hardly_determined", "with_identification"]

Matrix = NDArray[np.float64]

#: Share of a direction that is more than rounding.
_PART = 1e-6


def with_identification(frame: ModelFrame, A: CrossProducts, optimum: Optimum) -> Optimum:
    """The optimum, marked where the structure of the model leaves parameters undetermined.

    Parameters
    ----------
    frame : ModelFrame
        The rows that were fitted.
    A : CrossProducts
        Their cross-products.
    optimum : Optimum
        Of the fit.
    """
    if not may_be_undetermined(A, optimum):
        return optimum
    design = Design(frame.X, tuple(engine_terms(frame.terms)), frame.weights)
    free = design.without_fixed()
    without_fixed = free.crossproducts()
    by_columns = undetermined_directions(without_fixed, optimum, free)
    reml = optimum.evaluation.reml
    null = undetermined_directions(A, optimum, design) if reml else by_columns
    if not len(null):
        return optimum
    parts = _merged(_parts(frame.terms, A.basis, null, by_columns, _bars(frame)))
    return dataclasses.replace(
        optimum,
        null_directions=null,
        undetermined=tuple(dict.fromkeys(name for part in parts for name in part.names)),
        reasons=tuple(part.sentence() for part in parts),
        converged=False,
        message=f"{optimum.message}, but the likelihood does not have a single maximum",
    )


def hardly_determined(A: CrossProducts, optimum: Optimum) -> NDArray[np.intp]:
    """Positions of the parameters along which the likelihood is as good as flat, maybe none.

    Parameters
    ----------
    A : CrossProducts
        Of the fit.
    optimum : Optimum
        Reached, with nothing undetermined by structure.
    """
    none = np.empty(0, dtype=np.intp)
    if surely_curved(A, optimum):
        return none
    certificate = optimum.certificate
    # Curved downwards, it is no optimum, which is another matter.
    if not abs(certificate.smallest_curvature) <= certificate.least_curvature:
        return none
    curvature = optimum.curvature
    share = np.abs(curvature.flattest(curvature.interior(A)))
    found = np.flatnonzero(share > 0.1 * share.max())
    p, eta = optimum.parameterisation, optimum.eta
    return found if p is None or eta is None else np.flatnonzero(~p.fixed(eta))[found]


@dataclass(frozen=True, eq=False)
class _Part:
    """Parameters that the same directions change, and no other does.

    Attributes
    ----------
    terms, bars : sequences of RandomTerm, of str
        All terms, and how they are written.
    entries : list of (term, row, column)
        Entries of their covariance matrices.
    residual : bool
        Whether the residual variance is one of them.
    null : ndarray, shape (r, number of entries)
        The directions, in these entries.
    by_fixed : bool
        Whether the fixed effects are the reason.
    """

    terms: Sequence[RandomTerm]
    bars: Sequence[str]
    entries: list[tuple[int, int, int]]
    residual: bool
    null: Matrix
    by_fixed: bool

    @property
    def names(self) -> list[str]:
        """Names of the parameters as in `LinearMixedModel.covariance_parameters`."""
        out = []
        for t, row, column in self.entries:
            term = self.terms[t]
            if term.structure != "us" and (term.homogeneous or row != column):
                out.append(f"{'sd' if row == column else 'cor'}|{term.label}")
            elif row == column:
                out.append(f"sd_{term.columns[row]}|{term.label}")
            else:
                out.append(f"cor_{term.columns[row]}.{term.columns[column]}|{term.label}")
        return list(dict.fromkeys([*out, "sigma"] if self.residual else out))

    def sentence(self) -> str:
        """What is not determined, why, and what to do."""
        names = self.names
        listed = ", ".join(f"`{name}`" for name in names)
        free = len(self.null)
        if free >= len(self.entries) + self.residual:
            each = "any value fits" if len(names) == 1 else "any values fit"
            what = f"{listed} cannot be estimated: {each} the data equally well"
        else:
            several = "one combination" if free == 1 else f"{free} combinations"
            what = f"{several} of {listed} cannot be estimated, so neither can these on their own"
        return f"{what}. {self._why()}"

    @property
    def members(self) -> list[int]:
        """The terms it is about."""
        return list(dict.fromkeys(t for t, _, _ in self.entries))

    def _why(self) -> str:
        own = self.members
        bars = [self.bars[t] for t in own]
        if self.by_fixed:
            groups = ", ".join(dict.fromkeys(f"`{self.terms[t].group}`" for t in own))
            return (
                f"The fixed effects explain already what these random effects of {groups} could: "
                "they have a column, or a combination of columns, for every level. "
                f"{self._cure_of_fixed()}, or take what spans it from the fixed effects."
            )
        if self.residual:
            return (
                f"Every row has a value of its own in {_joined(bars, 'and')}, so they cannot be "
                "told from the residual. Use fewer of them, or a coarser grouping."
            )
        if len(own) > 1:
            settling = [t for t in own if self._settles(t)] or own
            cures = list(dict.fromkeys(self._columns_of(t) for t in settling))
            return (
                f"The terms {_joined(bars, 'and')} can stand in for each other there. Leave "
                f"{_joined(cures, 'or')} out.{self._if_of_double_bar(own)}"
            )
        return self._within(self.terms[own[0]], bars[0])

    def _if_of_double_bar(self, own: Sequence[int]) -> str:
        """What makes of ``(f || g)`` what it is mostly taken for."""
        terms = [self.terms[t] for t in own]
        one_group = len({term.group for term in terms}) == 1
        if one_group and any(term.columns == ("(Intercept)",) for term in terms):
            return (
                " Where `||` of a factor made them, double_bar='separate' takes its effects apart."
            )
        return ""

    def _cure_of_fixed(self) -> str:
        """Leave the term out, or its columns that are concerned."""
        own = self.members
        if len(own) > 1:
            return f"Leave {_joined([self._columns_of(t) for t in own], 'or')} out"
        term, bar = self.terms[own[0]], self.bars[own[0]]
        variances = {row for _, row, column in self.entries if row == column}
        others = [name for j, name in enumerate(term.columns) if j not in variances]
        if not others or not variances:
            return f"Leave {bar} out"
        return f"Write {_written(others, term.group)} in place of {bar}"

    def _columns_of(self, t: int) -> str:
        """A term, or its columns that are concerned."""
        term = self.terms[t]
        own = {j for of, *pair in self.entries if of == t for j in pair}
        if len(own) == term.n_columns:
            return self.bars[t]
        names = ", ".join(f"`{term.columns[j]}`" for j in sorted(own))
        return f"{names} in {self.bars[t]}"

    def _within(self, term: RandomTerm, bar: str) -> str:
        pairs = [(row, column) for _, row, column in self.entries if row != column]
        if len(pairs) == len(self.entries) and not any(_meet(term, *pair) for pair in pairs):
            return (
                f"No level of `{term.group}` has rows with both effects, so the data say nothing "
                f"about their correlation. Write {_independent(bar)}, in place of {bar}."
            )
        off = [i for i, (_, row, column) in enumerate(self.entries) if row != column]
        independent = np.linalg.matrix_rank(self.null[:, off], _PART) == len(self.null)
        cure = f"{_independent(bar)}, or " if independent else ""
        return (
            f"Within the levels of `{term.group}` the columns of {bar} are constant, or depend on "
            f"each other too much to tell all its variances and correlations. Write {cure}a term "
            "with fewer columns."
        )

    def _settles(self, t: int) -> bool:
        """Whether nothing is left undetermined without this term."""
        own = [i for i, entry in enumerate(self.entries) if entry[0] == t]
        return bool(np.linalg.matrix_rank(self.null[:, own], _PART) == len(self.null))


def _parts(
    terms: Sequence[RandomTerm],
    basis: Basis,
    null: Matrix,
    by_columns: Matrix,
    bars: Sequence[str],
) -> list[_Part]:
    """The directions in the user's columns, taken apart into what they have in common."""
    to_user = _to_user(terms, basis)
    user = scipy.linalg.orth((null @ to_user.T).T).T
    shared = np.abs(user.T @ user) > _PART
    involved = np.flatnonzero(np.diag(shared))
    _, label = scipy.sparse.csgraph.connected_components(
        scipy.sparse.coo_array(shared[np.ix_(involved, involved)].astype(np.int8))
    )
    known = scipy.linalg.orth((by_columns @ to_user.T).T).T if len(by_columns) else user[:0]
    entries = [
        (t, int(row), int(column))
        for t, term in enumerate(terms)
        for row, column in zip(*lower_entries(term.n_columns), strict=True)
    ]
    parts = []
    for which in range(label.max() + 1):
        at = involved[label == which]
        own = scipy.linalg.orth(user[:, at].T, _PART).T
        placed = np.zeros((len(own), user.shape[1]))
        placed[:, at] = own
        rest = placed - placed @ known.T @ known
        residual = bool(at[-1] == len(entries))
        parts.append(
            _Part(
                terms,
                bars,
                [entries[i] for i in at if i < len(entries)],
                residual,
                own,
                bool(np.linalg.norm(rest) > _PART),
            )
        )
    return parts


def _merged(parts: Sequence[_Part]) -> list[_Part]:
    """Those of one term with one reason, none of whose parameters is determined, made one."""
    out: list[_Part] = []
    for part in parts:
        alone = len(part.null) == len(part.entries) and not part.residual
        for i, other in enumerate(out):
            if (
                alone
                and len(other.null) == len(other.entries)
                and (part.members, part.by_fixed) == (other.members, other.by_fixed)
            ):
                null = scipy.linalg.block_diag(other.null, part.null)
                entries = [*other.entries, *part.entries]
                out[i] = dataclasses.replace(other, entries=entries, null=null)
                break
        else:
            out.append(part)
    return out


def _to_user(terms: Sequence[RandomTerm], basis: Basis) -> Matrix:
    """From lower entries of the engine's Sigmas to those of the user's, in columns of size one."""
    blocks = []
    for term, C in zip(terms, basis.terms, strict=True):
        size = np.sqrt(np.einsum("ij,ij->j", term.z, term.z) / len(term.z))
        own = C * size[:, None]
        rows, columns = lower_entries(term.n_columns)
        # Sigma_user = own Sigma own'
        block = own[rows][:, rows] * own[columns][:, columns]
        crossed = own[rows][:, columns] * own[columns][:, rows]
        blocks.append(np.where(rows == columns, block, block + crossed))
    return scipy.linalg.block_diag(*blocks, np.ones((1, 1)))


def _meet(term: RandomTerm, a: int, b: int) -> bool:
    """Whether some level has rows with a value in one column and rows with one in the other."""
    with_a = np.bincount(term.codes[term.z[:, a] != 0.0], minlength=term.n_levels)
    with_b = np.bincount(term.codes[term.z[:, b] != 0.0], minlength=term.n_levels)
    return bool(((with_a > 0) & (with_b > 0)).any())


def _bars(frame: ModelFrame) -> list[str]:
    """Each term as it stands in a formula."""
    encoders = frame.random_encoders
    out = []
    for t, term in enumerate(frame.terms):
        effects = list(term.columns)
        # A frame of other terms than the formula's has encoders that are not theirs.
        if len(encoders) == len(frame.terms) and encoders[t].names == term.columns:
            intercept = encoders[t].table.intercept
            effects = ["(Intercept)"] * intercept + list(encoders[t].term_labels)
        out.append(_written(effects, term.group))
    return out


def _written(effects: Sequence[str], group: str) -> str:
    if effects[0] != "(Intercept)":
        return f"`(0 + {' + '.join(effects)} | {group})`"
    return f"`({' + '.join(effects[1:]) or '1'} | {group})`"


def _independent(bar: str) -> str:
    return f"`diag{bar[1:-1]}`, for independent effects"


def _joined(texts: Sequence[str], last: str) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {last} {texts[-1]}"
