"""The plug-in format of the maketables package."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mixedeffects.model.shared.held import Held

__all__ = ["ForMaketables"]


class ForMaketables(Held):
    """The plug-in format of the maketables package."""

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        from mixedeffects.adapters.maketables import coefficients

        return coefficients(self.fit)

    def __maketables_stat__(self, key: str) -> Any:
        from mixedeffects.adapters.maketables import statistic

        return statistic(self.fit, key)

    @property
    def __maketables_depvar__(self) -> str:
        return self.frame.formula.response

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        return {"vcov_type": "model", "clustervar": None}

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        from mixedeffects.adapters.maketables import STATISTIC_LABELS

        return dict(STATISTIC_LABELS)

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        from mixedeffects.adapters.maketables import default_statistics

        return default_statistics(self.fit)
