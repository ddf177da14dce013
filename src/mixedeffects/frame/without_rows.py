"""A model frame without rows: they were left out, or they stayed in their table."""

from __future__ import annotations

from typing import Any

from mixedeffects.errors import ModelError
from mixedeffects.families import Response
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm

__all__ = ["OF_FRAME", "OF_TERM", "FrameWithoutRows", "TermWithoutRows", "left_out"]

#: What of a frame and of a term is one value for each row, and what it is called.
OF_FRAME = {
    "y": "the response",
    "X": "the model matrix X",
    "weights": "the prior weights",
    "offset": "the offset",
    "index": "the row labels",
    "positions": "the positions of the rows",
    "data": "the variables of the model",
}
OF_TERM = {
    "codes": "the level of each row",
    "z": "the columns of the random effects",
}


def left_out(what: str, engine: str = "") -> ModelError:
    """The error for something that needs rows, ``what`` being the part of them it wants.

    Parameters
    ----------
    what : str
        Such as ``"the response"``.
    engine : str
        Whose table the rows stayed in; by default they were left out.
    """
    if engine:
        return ModelError(
            f"The rows stayed in the table ({engine}), and this needs {what}, row by row. "
            "m.augment() and m.predict(table) have fitted values and residuals as columns of the "
            "table; for all else fit with rows='collect', or to a sample of the rows."
        )
    return ModelError(
        f"This is a fit without its data: without_data() left out {what}. Use the fit that "
        "has the data, or fit again with m.update(data=...)."
    )


class TermWithoutRows(RandomTerm):
    """A random-effects term with its levels and names but no rows."""

    def __getattr__(self, name: str) -> Any:
        if name in OF_TERM:
            raise left_out(OF_TERM[name], self.__dict__.get("engine", ""))
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r}, {self.n_levels} levels)"

    @property
    def n_columns(self) -> int:
        """Number of columns, k."""
        return len(self.columns)

    @classmethod
    def of(cls, engine: str = "", **known: Any) -> TermWithoutRows:
        """A term of what is known of it, by the names of `RandomTerm`."""
        term = object.__new__(cls)
        term.__dict__.update(known, **({"engine": engine} if engine else {}))
        return term


class FrameWithoutRows(ModelFrame):
    """A model frame with names, levels and encoders but no rows."""

    def __getattr__(self, name: str) -> Any:
        if name in OF_FRAME:
            raise left_out(OF_FRAME[name], self.engine)
        raise AttributeError(name)

    def __repr__(self) -> str:
        where = f"in a table ({self.engine})" if self.engine else "left out"
        return f"{type(self).__name__}({self.formula.text!r}, {self.nobs} rows {where})"

    @property
    def engine(self) -> str:
        """Whose table the rows stayed in; empty where they were left out."""
        return str(self.__dict__.get("of_engine", ""))

    @property
    def nobs(self) -> int:
        """Number of rows used, n."""
        return int(self.__dict__["n_rows_used"])

    @property
    def response(self) -> Response | None:
        """None where there was none; else it was left out."""
        if self.__dict__.get("had_response"):
            raise left_out("the response", self.engine)
        return None

    @property
    def has_trials(self) -> bool:
        """Whether the response was a number of successes among several trials."""
        return bool(self.__dict__.get("had_trials"))

    def away_from_table(self) -> FrameWithoutRows:
        """The same apart from the table, as if the rows had been left out."""
        known = {name: value for name, value in self.__dict__.items() if name != "of_engine"}
        nobs = known.pop("n_rows_used")
        terms = tuple(
            TermWithoutRows.of(**{k: v for k, v in term.__dict__.items() if k != "engine"})
            for term in self.terms
        )
        return FrameWithoutRows.of(nobs, **{**known, "terms": terms})

    @classmethod
    def of(cls, nobs: int, engine: str = "", **known: Any) -> FrameWithoutRows:
        """A frame of what is known of it, by the names of `ModelFrame`."""
        frame = object.__new__(cls)
        frame.__dict__.update(known, n_rows_used=nobs)
        if engine:
            frame.__dict__["of_engine"] = engine
        return frame
