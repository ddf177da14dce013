"""The random-effects terms of the rows used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.formula import Bar
from mixedeffects.formula.values import Coding
from mixedeffects.frame.checks import check_grouping, check_random_effects, check_size
from mixedeffects.frame.encode import DesignEncoder, fit_encoder
from mixedeffects.frame.grouping import Grouping, combine
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.named import NamedVariables
from mixedeffects.frame.structures import check_structure_columns
from mixedeffects.frame.used_rows import UsedRows

__all__ = ["RandomTerms", "group_variables", "lme4_order", "random_terms", "term_labels"]


@dataclass(frozen=True, eq=False)
class RandomTerms:
    """The random-effects terms of a model.

    Attributes
    ----------
    terms : tuple of RandomTerm
        The terms, in lme4's order.
    encoders : tuple of DesignEncoder
        Of their columns.
    unused : dict of str to int
        How many levels of each factor no row has, where there are such.
    """

    terms: tuple[RandomTerm, ...]
    encoders: tuple[DesignEncoder, ...]
    unused: dict[str, int]


def random_terms(
    named: NamedVariables,
    read: UsedRows,
    codings: Mapping[str, Coding],
    design_only: bool,
    rival: str | None,
) -> RandomTerms:
    """Make the terms of the rows used, in lme4's order.

    Parameters
    ----------
    named : NamedVariables
        The variables of the model.
    read : UsedRows
        These on the rows used.
    codings : mapping of str to Coding
        Of factors.
    design_only : bool
        Whether nothing is to be estimated.
    rival : str or None
        What a variance between rows would stand beside; None where there is nothing.

    Raises
    ------
    ModelError
        If the variance of a term cannot be estimated.
    """
    groupings = _groupings(named, read, design_only, rival)
    bars, n = named.formula.random, read.n
    order = lme4_order([len(groupings[bar.group].labels) for bar in bars])
    levels = {name: pd.Index(grouping.labels) for name, grouping in groupings.items()}
    terms: list[RandomTerm] = []
    encoders = []
    for i, label in zip(order, term_labels([bars[i].group for i in order]), strict=True):
        bar = bars[i]
        encoder, settled = fit_encoder(named.random[i], read.taken, read.states, codings)
        # Before the columns are built: there may be very many.
        if design_only:
            check_size(n, encoder.n_columns, bar.group)
        elif bar.structure == "us" and rival:
            check_random_effects(encoder.n_columns, len(levels[bar.group]), str(bar), n, rival)
        if bar.structure != "us":
            check_structure_columns(bar, encoder)
        terms.append(
            _term(
                bar,
                label,
                encoder,
                encoder.assemble(settled, n, "C"),
                groupings[bar.group],
                levels[bar.group],
            )
        )
        encoders.append(encoder)
    unused = {name: g.unused for name, g in groupings.items() if g.unused}
    return RandomTerms(tuple(terms), tuple(encoders), unused)


def _groupings(
    named: NamedVariables, read: UsedRows, design_only: bool, rival: str | None
) -> dict[str, Grouping]:
    """The grouping factors by their names."""
    groupings: dict[str, Grouping] = {}
    for group, variables in group_variables(named.formula.random).items():
        grouping = combine([read.groups_used[v] for v in variables], variables)
        if not design_only:
            levels_of = (group, len(grouping.labels), grouping.labels)
            check_grouping(*levels_of, read.n if rival else None, rival or "")
        groupings[group] = grouping
    return groupings


def group_variables(bars: Sequence[Bar]) -> dict[str, tuple[str, ...]]:
    """The columns that make each grouping factor, by its name.

    Raises
    ------
    ModelError
        If two have one name.
    """
    made_of: dict[str, tuple[str, ...]] = {}
    for bar in bars:
        if made_of.setdefault(bar.group, bar.variables) != bar.variables:
            raise ModelError(
                f"Two grouping factors are called `{bar.group}`: a column and a combination of "
                "columns. Rename the column."
            )
    return made_of


def _term(
    bar: Bar,
    label: str,
    encoder: DesignEncoder,
    z: NDArray[np.float64],
    grouping: Grouping,
    levels: pd.Index[Any],
) -> RandomTerm:
    return RandomTerm(
        label=label,
        group=bar.group,
        variables=bar.variables,
        columns=encoder.names,
        levels=levels,
        level_values=grouping.values,
        codes=grouping.codes,
        z=z,
        structure=bar.structure,
        homogeneous=bar.homogeneous,
    )


def term_labels(groups: Sequence[str]) -> list[str]:
    """A label of its own for each term, as in lme4: ``g``, ``g.1`` for a second on one factor.

    Examples
    --------
    >>> term_labels(["g", "h", "g"])
    ['g', 'h', 'g.1']
    """
    labels: list[str] = []
    for group in groups:
        label, repeat = group, 0
        while label in labels:
            repeat += 1
            label = f"{group}.{repeat}"
        labels.append(label)
    return labels


def lme4_order(n_levels: list[int]) -> list[int]:
    """Order the terms as lme4's ``mkReTrms``: untouched unless some count increases."""
    if all(a >= b for a, b in pairwise(n_levels)):
        return list(range(len(n_levels)))
    return sorted(range(len(n_levels)), key=n_levels.__getitem__)[::-1]
