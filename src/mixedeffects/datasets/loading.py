"""Reading a bundled data set with the types and level orders it has in R."""

from __future__ import annotations

import gzip
import zlib
from io import BytesIO

import numpy as np
import pandas as pd

from mixedeffects.base.habits import explained
from mixedeffects.datasets.catalogue import ColumnType, catalogue, data_file, schema, source_text
from mixedeffects.errors import FileError

__all__ = ["load_dataset"]


@explained
def load_dataset(name: str) -> pd.DataFrame:
    """Load one of the bundled data sets.

    Factors become categorical columns whose categories are R's levels in R's order; ordered
    factors become ordered categoricals. R's integers become ``int64``, or ``float64`` where values
    are missing; R's doubles stay ``float64`` even where all values are whole numbers (``Days`` of
    ``sleepstudy``). Text becomes ``str``, missing values become ``NaN``.

    Parameters
    ----------
    name : str
        One of the names that :func:`list_datasets` shows, for example ``"sleepstudy"``.

    Returns
    -------
    pandas.DataFrame
        A new table on every call. ``attrs["description"]`` and ``attrs["source"]`` say in plain
        text what it is and where it comes from; the full provenance, with the meaning and the
        unit of every column, is in the file ``PROVENANCE.md`` beside the data.

    Raises
    ------
    DataError
        If there is no data set of this name; the message lists the names.
    FileError
        If the file that was installed is damaged.

    See Also
    --------
    list_datasets : All names with a one-line description.

    Examples
    --------
    >>> from mixedeffects.datasets import load_dataset
    >>> sleep = load_dataset("sleepstudy")
    >>> sleep.head(3)
       Reaction  Days Subject
    0  249.5600   0.0     308
    1  258.7047   1.0     308
    2  250.8006   2.0     308
    >>> sleep["Subject"].cat.categories[:3].tolist()
    ['308', '309', '310']
    >>> load_dataset("star")["gr"].cat.ordered
    True
    >>> sleep.attrs["description"]
    'Average reaction time per day of 18 people allowed three hours in bed per night, over ten days'
    """
    columns = schema(name)
    try:
        content = gzip.decompress(data_file(f"{name}.csv.gz").read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(
            f"The bundled data set {name!r} cannot be read ({error}): the installation is damaged. "
            "Install mixedeffects again."
        ) from error
    table = pd.read_csv(
        BytesIO(content),
        dtype={column: _reading_type(kind) for column, kind in columns.items()},
        # Only a bare NA is missing: "NA:NA" is a level, and so would an empty text be.
        na_values=["NA"],
        keep_default_na=False,
    )
    for column, kind in columns.items():
        if kind["type"] == "numeric":
            # float() rounds correctly to the last bit, which a fast parser may not.
            table[column] = np.array([float(text) for text in table[column]])
        elif kind["type"] == "integer" and not table[column].hasnans:
            table[column] = table[column].astype("int64")
    entry = catalogue()[name]
    table.attrs["name"] = name
    table.attrs["description"] = entry["description"]
    table.attrs["source"] = source_text(entry)
    return table


def _reading_type(kind: ColumnType) -> pd.CategoricalDtype | str:
    """Choose the type to read a column with; doubles are read as text and converted later."""
    if kind["type"] in ("factor", "ordered"):
        return pd.CategoricalDtype(kind["levels"], ordered=kind["type"] == "ordered")
    # Integers may have gaps, which only floats can hold.
    return "float64" if kind["type"] == "integer" else "str"
