"""The bundled data sets: tables from the literature on mixed models, with their provenance."""

from __future__ import annotations

from mixedeffects.datasets.catalogue import list_datasets
from mixedeffects.datasets.loading import load_dataset

__all__ = ["list_datasets", "load_dataset"]
