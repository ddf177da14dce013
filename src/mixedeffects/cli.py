"""The command line: ``mixedeffects demo`` and ``mixedeffects fit``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import mixedeffects as me
from mixedeffects.base.files import report_path
from mixedeffects.covariance.export import check_target
from mixedeffects.families import find_family
from mixedeffects.fitting.lazy_fitting import ROWS
from mixedeffects.frame.data_files import read_file
from mixedeffects.inference.cluster_robust import check_kind
from mixedeffects.inference.variance import DDF_METHODS
from mixedeffects.lazy.files import ENGINES, has_wildcards, table_of_files
from mixedeffects.lazy.table import is_lazy, lazy_table
from mixedeffects.storage.fit_document import (
    checks_document,
    effects_document,
    fit_document,
    json_text,
    robust_document,
)

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        0, or 1 after an error and 130 after an interruption; the message goes to standard error.

    Raises
    ------
    SystemExit
        If the arguments cannot be read, or after ``--help`` and ``--version``.

    Examples
    --------
    >>> from mixedeffects.cli import main
    >>> main(["fit", "dyestuff", "Yield ~ 1 + (1 | Batch)"])
    Linear mixed model fit by REML. t-tests use Satterthwaite's method
    Formula: Yield ~ 1 + (1 | Batch)
    ...
    0
    """
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = int(options.run(options))
        # A full disk or a reader that has gone shows when the last lines are written.
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read the output, such as head, has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (me.MixedEffectsError, OSError, ImportError, MemoryError) as error:
        print(f"mixedeffects: {error or type(error).__name__}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mixedeffects: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mixedeffects",
        description="Linear and generalized linear mixed models, and their V as a matrix.",
    )
    parser.add_argument("--version", action="version", version=me.__version__)
    commands = parser.add_subparsers(required=True, metavar="{demo,fit}")

    demo = commands.add_parser("demo", help="run the post: extracting V from a mixed model")
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("mixedeffects-demo"),
        help="folder for the figures (default: ./mixedeffects-demo)",
    )
    demo.set_defaults(run=_demo)

    fit = commands.add_parser("fit", help="fit a model to a data file")
    fit.add_argument(
        "data",
        help="csv, tsv, txt (also .gz), parquet, arrow, xlsx or sav file, - for text from a pipe, "
        "or a bundled dataset's name; with --engine parquet or csv files, several by wildcards",
    )
    fit.add_argument("formula", help="for example 'Reaction ~ Days + (Days | Subject)'")
    fit.add_argument("--ml", action="store_true", help="maximum likelihood instead of REML")
    fit.add_argument(
        "--family",
        metavar="NAME",
        help="a generalized model, by maximum likelihood: binomial, poisson, negative_binomial, "
        "gamma, inverse_gaussian, beta, gaussian",
    )
    fit.add_argument("--link", metavar="NAME", help="link of the family, for example probit")
    fit.add_argument(
        "--nagq",
        type=int,
        metavar="POINTS",
        help="quadrature points for each random effect of the one factor of a generalized model "
        "(default: 1, Laplace's approximation)",
    )
    fit.add_argument(
        "--exposure",
        metavar="COLUMN",
        help="what the mean of counts is proportional to, such as hours",
    )
    fit.add_argument(
        "--exponentiate",
        action="store_true",
        help="print the coefficients of a generalized model as ratios too, with intervals",
    )
    fit.add_argument("--weights", metavar="COLUMN", help="prior weights; of proportions, trials")
    fit.add_argument("--offset", metavar="COLUMN", help="offset")
    fit.add_argument(
        "--residual",
        metavar="STRUCTURE",
        help="covariance of the residuals, for example 'ar1(week | id)'; the formula may then have "
        "no random effects",
    )
    fit.add_argument(
        "--variance",
        metavar="TERMS",
        help="what the size of the residuals follows, for example sex or 'sex + log(age)'",
    )
    fit.add_argument(
        "--sigma", type=float, metavar="NUMBER", help="a known residual standard deviation"
    )
    fit.add_argument(
        "--factor",
        metavar="COLUMN",
        action="append",
        default=[],
        help="read this column as categorical (may be repeated)",
    )
    fit.add_argument(
        "--missing",
        metavar="TEXT",
        action="append",
        default=[],
        help="what stands for a missing value in the file, such as n.a. or -99 (may be repeated)",
    )
    fit.add_argument(
        "--ddf",
        choices=tuple(DDF_METHODS),
        help="degrees of freedom (default: satterthwaite; generalized models have none)",
    )
    fit.add_argument(
        "--robust",
        metavar="KIND",
        help="cluster-robust tests with their own degrees of freedom: CR2, CR0, CR1, CR1S, CR3",
    )
    fit.add_argument(
        "--cluster",
        metavar="FACTOR",
        action="append",
        help="clusters of --robust (default: the outermost factor; several: multiway)",
    )
    fit.add_argument(
        "--effects",
        metavar="COLUMNS",
        action="append",
        default=[],
        help="print the predictions of the population over these columns: Days, or age,Sex "
        "(may be repeated)",
    )
    fit.add_argument(
        "--save-v", type=Path, metavar="FILE", help="write V: .npz, .mtx, .csv or .csv.gz"
    )
    fit.add_argument("--save-v-level", metavar="LEVEL", help="only the block of this level")
    fit.add_argument("--save-v-by", metavar="FACTOR", help="the factor that the level belongs to")
    fit.add_argument(
        "--escape-formulas",
        action="store_true",
        help="in csv files, an apostrophe before labels that spreadsheets would run",
    )
    fit.add_argument("--check", action="store_true", help="check the fit: a verdict a line")
    fit.add_argument(
        "--check-order", metavar="COLUMN", help="look for autocorrelation along it, with --check"
    )
    fit.add_argument("--html", type=Path, metavar="FILE", help="write a report with pictures")
    fit.add_argument(
        "--engine",
        choices=ENGINES,
        help="what reads the files and sums up their rows, which need not fit into memory: "
        "parquet or csv, several by wildcards in quotes, 'trips/*.parquet'",
    )
    fit.add_argument(
        "--rows",
        choices=ROWS,
        help="of an --engine: push leaves the rows in the files, collect brings them into memory, "
        "auto (default) collects up to a million",
    )
    fit.add_argument("--memory", metavar="SIZE", help="most memory of --engine duckdb, such as 2GB")
    fit.add_argument("--json", action="store_true", help="print the estimates as JSON")
    fit.add_argument(
        "--progress", action="store_true", help="show passes and iterations on standard error"
    )
    fit.set_defaults(run=_fit)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from mixedeffects.demo import run

    print(run(options.output), end="")
    return 0


def _fit(options: argparse.Namespace) -> int:
    _check_targets(options)
    _check_kind(options)
    data = _data(options)
    model = _generalized(options, data) if options.family else _linear(options, data)
    ddf = options.ddf or model.fit.request.ddf
    robust = None
    if options.robust is not None:
        # A list of one is the same as its element; the model is asked once, before any output.
        robust = model.robust(options.robust, options.cluster)
    checks = model.check(order=options.check_order) if options.check else None
    summary = model.summary(ddf=ddf)
    kind = "model" if robust is None else robust.kind
    columns = lazy_table(data).names if is_lazy(data) else list(data.columns)
    effects = [
        model.effects(_columns(each, columns), ddf=ddf, vcov=kind, cluster=options.cluster)
        for each in options.effects
    ]
    if options.json:
        document = fit_document(model.fit, ddf)
        if robust is not None:
            document["robust"] = robust_document(robust)
        if effects:
            document["effects"] = [effects_document(each) for each in effects]
        if checks is not None:
            document["checks"] = checks_document(checks)
        print(json_text(document))
    else:
        print(summary)
        if options.exponentiate:
            print(f"\n{model.tidy('fixed', vcov=kind, cluster=options.cluster, **RATIOS)}")
        if robust is not None:
            print(f"\n{robust}")
        for each in effects:
            names = ", ".join((*each.variables, *each.by))
            print(f"\nEffect of {names} on {each.response}:\n{each}")
        if checks is not None:
            print(f"\n{checks}")
    if options.html is not None:
        model.report(options.html, ddf=ddf, vcov=kind, cluster=options.cluster)
        print(f"{options.html} written", file=sys.stderr)
    if options.save_v is not None:
        model.V.save(
            options.save_v,
            options.save_v_level,
            options.save_v_by,
            escape_formulas=options.escape_formulas,
        )
        print(f"{options.save_v} written", file=sys.stderr)
    return 0


#: Options of a table of ratios with its intervals.
RATIOS: dict[str, Any] = {"exponentiate": True, "level": 0.95}


def _linear(options: argparse.Namespace, data: Any) -> Any:
    return me.lmer(
        options.formula,
        data,
        reml=not options.ml,
        weights=options.weights,
        offset=options.offset,
        residual=options.residual,
        variance=options.variance,
        sigma=options.sigma,
        rows=options.rows or "auto",
        progress=options.progress or None,
    )


def _generalized(options: argparse.Namespace, data: pd.DataFrame) -> Any:
    family = find_family(options.family)
    if options.link is not None:
        family = type(family)(options.link)
    return me.glmer(
        options.formula,
        data,
        family=family,
        weights=options.weights,
        offset=options.offset,
        exposure=options.exposure,
        nagq=1 if options.nagq is None else options.nagq,
        progress=options.progress or None,
    )


#: Options of one kind of model, by their name among the options.
_OF_GENERALIZED = ("link", "nagq", "exposure", "exponentiate")
_OF_LINEAR = ("ml", "residual", "variance", "sigma", "engine")


def _check_kind(options: argparse.Namespace) -> None:
    """Complain about options of the other kind of model, and of a misspelt family, at once."""
    if options.family is None:
        given = [name for name in _OF_GENERALIZED if getattr(options, name)]
        if given:
            raise me.ModelError(
                f"--{given[0]} is for generalized models: say which --family, such as binomial."
            )
        return
    find_family(options.family)
    given = [name for name in _OF_LINEAR if getattr(options, name)]
    if given == ["ml"]:
        raise me.ModelError("Generalized models are always by maximum likelihood: leave --ml out.")
    if given:
        raise me.ModelError(f"--{given[0]} is for linear models; --family makes a generalized one.")


def _columns(given: str, names: Sequence[str]) -> list[str]:
    """The columns that a list with commas names; a column's own name may have one."""
    return [given] if given in names else [each.strip() for each in given.split(",")]


def _data(options: argparse.Namespace) -> Any:
    """The table in memory, or that of an engine."""
    source = options.data
    if options.engine is not None:
        if options.factor:
            name = options.factor[0]
            raise me.DataError(
                f"--factor {name} is for tables in memory; with --engine write factor({name}) in "
                "the formula."
            )
        return table_of_files(
            source, options.engine, memory=options.memory, missing=options.missing
        )
    given = [name for name in ("rows", "memory") if getattr(options, name) is not None]
    if given:
        raise me.DataError(
            f"--{given[0]} is about the table of an engine: say which --engine, duckdb or polars."
        )
    data = _read(source, options.missing)
    for column in options.factor:
        if column not in data.columns:
            raise me.DataError(f"--factor {column}: there is no such column in {source}.")
        data[column] = data[column].astype("category")
    return data


def _read(source: str, missing: list[str]) -> pd.DataFrame:
    path = Path(source)
    if source != "-" and not path.exists():
        if has_wildcards(source):
            raise me.DataError(
                f"Several files, {source!r}, are read by an engine: add --engine duckdb, or polars."
            )
        if path.suffix or "/" in source:
            raise me.DataError(f"There is no file {source!r}.")
        return me.load_dataset(source)
    return read_file(source, missing, _tell, _tell)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    # Where in the package it came from says nothing to who typed a command.
    _tell(message)


def _tell(text: object) -> None:
    print(f"mixedeffects: {text}", file=sys.stderr)


def _check_targets(options: argparse.Namespace) -> None:
    """Complain about files that cannot be written before the fit, not after."""
    if options.save_v is not None:
        check_target(options.save_v)
    elif options.save_v_level is not None or options.save_v_by is not None:
        raise me.DataError("--save-v-level and --save-v-by say what --save-v FILE is to write.")
    if options.save_v_by is not None and options.save_v_level is None:
        raise me.DataError("--save-v-by needs --save-v-level: a level of the factor.")
    if options.html is not None:
        report_path(options.html)
    if options.check_order is not None and not options.check:
        raise me.DataError("--check-order says along what --check looks for autocorrelation.")
    if options.robust is not None:
        check_kind(options.robust)
    elif options.cluster is not None:
        raise me.DataError("--cluster says what the clusters of --robust KIND are.")


if __name__ == "__main__":
    sys.exit(main())
