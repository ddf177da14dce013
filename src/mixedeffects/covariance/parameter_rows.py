"""Standard deviations and correlations of the random effects under broom's names."""

from __future__ import annotations

from collections.abc import Container

import pandas as pd

from mixedeffects.covariance.varcorr import VarCorr
from mixedeffects.fitting.natural import structure_parameters
from mixedeffects.fitting.residual_parameters import RESIDUAL

__all__ = ["parameter_rows"]


def parameter_rows(
    varcorr: VarCorr, structured: Container[str], parameters: pd.Series
) -> list[tuple[str, str, float]]:
    """Group, name and value of each parameter, named as in R's broom.mixed.

    Parameters
    ----------
    varcorr : VarCorr
        Variances and covariances.
    structured : container of str
        Labels of the terms whose covariance has a structure.
    parameters : Series
        The parameters of these, as `covariance_parameters` names them.

    Returns
    -------
    list of (group, name, value)
        The residual standard deviation last, or all that is known of the residuals' covariance.
    """
    rows: list[tuple[str, str, float]] = []
    for group, own in varcorr.to_frame().groupby("grp", sort=False):
        if group in structured:
            for kind, column, value in structure_parameters(parameters, str(group)):
                rows.append((str(group), f"{kind}__{column}" if column else kind, value))
            continue
        for first, second, value in own[["var1", "var2", "sdcor"]].to_numpy().tolist():
            if isinstance(second, str):
                rows.append((str(group), f"cor__{first}.{second}", value))
            else:
                name = first if isinstance(first, str) else "Observation"
                rows.append((str(group), f"sd__{name}", value))
    # Their standard deviations are in the frame.
    rows += [
        (RESIDUAL, "__".join(filter(None, (each.kind, each.column))), each.value)
        for each in varcorr.residuals
        if each.kind != "sd"
    ]
    return rows
