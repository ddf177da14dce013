"""Sums in a file of arrays and text, from which no code is run."""

from __future__ import annotations

import json
import os
import zipfile
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.files import check_place, into_file, target_path, write_whole
from mixedeffects.base.plain import as_plain, from_plain
from mixedeffects.engine.grouped_sums import (
    FactorSums,
    GroupedSums,
    PairSums,
    SumColumns,
    TermColumns,
)
from mixedeffects.errors import DataError, FileError
from mixedeffects.formula.values import Coding
from mixedeffects.frame.model_frame import Dropped
from mixedeffects.lazy.design import KnownDesign, KnownVariable
from mixedeffects.lazy.stored import Content, Levels

__all__ = ["read_file", "write_file"]

_SCHEMA, _VERSION = "mixedeffects.sufficient", 1


class _DamagedError(ValueError):
    """The file is none of these; said in one sentence for whatever is wrong."""


#: Name of the array that holds the text.
_HEADER = "header"


def write_file(content: Content, path: Any) -> None:
    """See `SufficientStatistics.to_file`."""
    target = target_path(path, "The file of statistics")
    check_place(target)
    arrays = _arrays(content)
    arrays[_HEADER] = _text(_header(content))
    write_whole(target, into_file(lambda file: np.savez(file, **arrays)))  # type: ignore[arg-type]


def read_file(path: str | os.PathLike[str]) -> Content:
    """See `SufficientStatistics.from_file`."""
    source = target_path(path, "The file of statistics")
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            header = json.loads(_of_text(archive[_HEADER]))
            if header.get("schema") != _SCHEMA:
                raise _DamagedError
            found = header["schema_version"]
            if not isinstance(found, int) or found > _VERSION:
                raise DataError(
                    f"{str(source)!r} was written by mixedeffects {header.get('mixedeffects')}, in "
                    f"version {found} of the format; this one reads up to {_VERSION}. Install a "
                    "newer mixedeffects."
                )
            content = _content(header, {name: archive[name] for name in archive.files})
        _check(content)
        return content
    except DataError:
        raise
    except OSError as error:
        raise FileError(f"{str(source)!r} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, zipfile.BadZipFile) as e:
        raise DataError(
            f"{str(source)!r} holds no sufficient statistics, or is damaged. They are written by "
            "s.to_file(...)."
        ) from e


def _text(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _of_text(array: NDArray[Any]) -> str:
    return array.astype(np.uint8, casting="safe").tobytes().decode()


def _header(content: Content) -> dict[str, Any]:
    sums, dropped = content.sums, content.dropped
    try:
        states = as_plain(content.known.states)
    except TypeError as error:
        raise DataError(
            f"A transform of {content.formula} cannot be written: it remembers {error}."
        ) from None
    return {
        "schema": _SCHEMA,
        "schema_version": _VERSION,
        "mixedeffects": version("mixedeffects"),
        "formula": content.formula,
        "weights": content.weights,
        "offset": content.offset,
        "others": list(content.others),
        "codings": {name: _coding(coding) for name, coding in content.codings.items()},
        "variables": [
            {
                "name": v.name,
                "kind": v.kind,
                "width": v.width,
                "levels": list(v.levels),
                "ordered": bool(v.ordered),
                "coding": None if v.coding is None else _coding(v.coding),
            }
            for v in content.known.variables.values()
        ],
        "states": states,
        "fixed": list(content.columns.fixed),
        "terms": [[term.factor, list(term.columns)] for term in content.columns.terms],
        "response": content.columns.response,
        "columns": list(sums.columns),
        "n": sums.n,
        "sum_weights": sums.sum_weights,
        "sum_log_weights": sums.sum_log_weights,
        "own": [list(factor.own) for factor in sums.factors],
        "pairs": [list(pair.factors) for pair in sums.pairs],
        "levels": [
            {"name": level.name, "variables": list(level.variables), "unused": level.unused}
            for level in content.levels
        ],
        "dropped": {
            "rows": len(dropped.rows),
            "n_rows": dropped.n_rows,
            "missing_by_column": dropped.missing_by_column,
            "lost": list(dropped.lost),
        },
    }


def _coding(coding: Coding) -> Any:
    return as_plain((coding.kind, coding.base, coding.matrix, coding.names, coding.rows))


def _arrays(content: Content) -> dict[str, NDArray[Any]]:
    sums = content.sums
    out: dict[str, NDArray[Any]] = {
        "centre": sums.centre,
        "scale": sums.scale,
        "total": sums.total,
        "largest": content.largest,
    }
    for f, factor in enumerate(sums.factors):
        out[f"products{f}"], out[f"rows{f}"] = factor.products, factor.rows
        level = content.levels[f]
        for j in range(len(level.variables)):
            out[f"levels{f}_{j}"] = _values(level, j)
    for p, pair in enumerate(sums.pairs):
        out[f"pair_products{p}"], out[f"pair_rows{p}"] = pair.products, pair.rows
        out[f"pair_codes{p}"] = np.stack(pair.codes)
    return out


def _values(level: Levels, j: int) -> NDArray[Any]:
    """Values of levels as an array; text as that of JSON."""
    values = level.values.get_level_values(j)  # noqa: PD011 - no array
    array = values.to_numpy()
    if array.dtype.kind in "biuf":
        return array
    items = values.tolist()
    if not all(type(item) in (str, int, float, bool) for item in items):
        raise DataError(
            f"The levels of `{level.name}` hold {type(items[0]).__name__}, which cannot be written "
            "to a file of statistics; convert the column to numbers or to text."
        )
    return _text({"text": items})


def _of_values(array: NDArray[Any], name: str) -> pd.Index[Any]:
    if array.dtype != np.uint8 or not len(array) or array[0] != ord("{"):
        values: Any = array
    else:
        values = json.loads(_of_text(array))["text"]
    index: pd.Index[Any] = pd.Index(values, name=name)
    return index


def _content(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Content:
    factors, levels = [], []
    for f, (own, level) in enumerate(zip(header["own"], header["levels"], strict=True)):
        factors.append(FactorSums(tuple(own), arrays[f"products{f}"], arrays[f"rows{f}"]))
        names = tuple(level["variables"])
        parts = [_of_values(arrays[f"levels{f}_{j}"], name) for j, name in enumerate(names)]
        values = parts[0] if len(parts) == 1 else pd.MultiIndex.from_arrays(parts, names=names)
        levels.append(Levels(str(level["name"]), names, values, int(level["unused"])))
    pairs = []
    for p, (s, t) in enumerate(header["pairs"]):
        one, other = arrays[f"pair_codes{p}"]
        pairs.append(
            PairSums((s, t), (one, other), arrays[f"pair_products{p}"], arrays[f"pair_rows{p}"])
        )
    sums = GroupedSums(
        tuple(header["columns"]),
        arrays["centre"],
        arrays["scale"],
        int(header["n"]),
        float(header["sum_weights"]),
        float(header["sum_log_weights"]),
        arrays["total"],
        tuple(factors),
        tuple(pairs),
    )
    variables = {
        v["name"]: KnownVariable(
            v["name"],
            v["kind"],
            int(v["width"]),
            tuple(v["levels"]),
            bool(v["ordered"]),
            None if v["coding"] is None else Coding(*from_plain(v["coding"])),
        )
        for v in header["variables"]
    }
    dropped = header["dropped"]
    return Content(
        str(header["formula"]),
        header["weights"],
        header["offset"],
        tuple(header["others"]),
        {name: Coding(*from_plain(coding)) for name, coding in header["codings"].items()},
        KnownDesign(variables, from_plain(header["states"]), sums.centre, sums.scale),
        SumColumns(
            tuple(header["fixed"]),
            tuple(TermColumns(factor, tuple(at)) for factor, at in header["terms"]),
            int(header["response"]),
        ),
        sums,
        tuple(levels),
        arrays["largest"],
        Dropped(
            rows=pd.RangeIndex(int(dropped["rows"])),
            missing_by_column=dict(dropped["missing_by_column"]),
            n_rows=int(dropped["n_rows"]),
            lost=tuple(dropped["lost"]),
        ),
    )


def _check(content: Content) -> None:
    """Refuse arrays that do not belong together, before anything is computed from them."""
    sums = content.sums
    m = len(sums.columns)
    shapes: list[tuple[NDArray[Any], tuple[int, ...], str]] = [
        (sums.centre, (m,), "f"),
        (sums.scale, (m,), "f"),
        (sums.total, (m, m), "f"),
        (content.largest, (m,), "f"),
    ]
    for factor, level in zip(sums.factors, content.levels, strict=True):
        n = len(level.values)
        shapes += [(factor.products, (n, len(factor.own), m), "f"), (factor.rows, (n,), "i")]
    for pair in sums.pairs:
        s, t = (sums.factors[f] for f in pair.factors)
        size = len(pair.rows)
        shapes += [
            (pair.products, (size, len(s.own), len(t.own)), "f"),
            (pair.rows, (size,), "i"),
            (pair.codes[0], (size,), "i"),
            (pair.codes[1], (size,), "i"),
        ]
        for codes, factor in zip(pair.codes, (s, t), strict=True):
            if size and not 0 <= codes.min() <= codes.max() < factor.n_levels:
                raise _DamagedError
    for array, shape, kind in shapes:
        if array.shape != shape or array.dtype.kind != kind or not np.isfinite(array).all():
            raise _DamagedError
    places = [*content.columns.fixed, content.columns.response]
    places += [c for term in content.columns.terms for c in term.columns]
    if not all(isinstance(c, int) and 0 <= c < m for c in places):
        raise _DamagedError
