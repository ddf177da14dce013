"""Where large arrays live: in memory, or in files of a folder that are gone with them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import DataError, FileError

__all__ = ["IN_MEMORY", "FilesIn", "Pieces", "Scratch", "scratch_folder"]

Matrix = NDArray[np.float64]

#: Numbers that are moved at a time.
_AT_ONCE = 2**20


class Scratch:
    """Arrays in memory."""

    def zeros(self, shape: tuple[int, ...]) -> Matrix:
        """An array of zeros."""
        return np.zeros(shape)

    def pieces(self, shape: tuple[int, ...]) -> Pieces:
        """An array that comes in pieces; ``shape`` is that of one row."""
        return Pieces(self, shape)


class Pieces:
    """Rows that come in pieces, and are put in order once all are there."""

    def __init__(self, scratch: Scratch, shape: tuple[int, ...]) -> None:
        self._scratch, self._shape = scratch, shape
        self._kept: list[Any] = []

    def append(self, piece: Matrix) -> None:
        """Keep further rows."""
        self._kept.append(piece)

    def sorted(self, places: NDArray[np.integer[Any]]) -> Matrix:
        """All rows, each in its place; the pieces are given up."""
        out = self._scratch.zeros((len(places), *self._shape))
        at = 0
        for i in range(len(self._kept)):
            piece, self._kept[i] = self._kept[i], None
            out[places[at : at + len(piece)]] = piece
            at += len(piece)
        return out


IN_MEMORY = Scratch()


class FilesIn(Scratch):
    """Arrays in files of a folder, which the system takes away with the arrays.

    The files have no name where the system allows it, so that nothing stays behind whatever ends
    the program.

    Parameters
    ----------
    folder : Path
        Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def zeros(self, shape: tuple[int, ...]) -> Matrix:
        """An array of zeros.

        Raises
        ------
        FileError
            If the disk has no place for it.
        """
        size = 8 * int(np.prod(shape))
        if size == 0:
            return np.zeros(shape)
        try:
            with self.file() as file:
                # A file with holes would end the program where the disk is full.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    _fill(file, size)
                mapped = np.memmap(file, dtype=np.float64, mode="r+", shape=shape)
        except OSError as error:
            raise self.refused(error, size) from error
        return mapped.view(np.ndarray)

    def pieces(self, shape: tuple[int, ...]) -> Pieces:
        """An array that comes in pieces."""
        return _PiecesInFile(self, shape)

    def file(self) -> Any:
        """A file for a while."""
        return tempfile.TemporaryFile(dir=self._folder, prefix=".mixedeffects-", buffering=0)

    def refused(self, error: OSError, size: int) -> FileError:
        """The error for a disk without place."""
        out = FileError(
            f"{size:,} bytes cannot be written to the folder {str(self._folder)!r} that scratch= "
            f"names: {error.strerror or error}. Nothing was left there."
        )
        out.errno = error.errno
        return out


class _PiecesInFile(Pieces):
    def __init__(self, scratch: FilesIn, shape: tuple[int, ...]) -> None:
        super().__init__(scratch, shape)
        self._files = scratch
        try:
            self._file = scratch.file()
        except OSError as error:
            raise scratch.refused(error, 0) from error

    def append(self, piece: Matrix) -> None:
        try:
            _write(self._file, np.ascontiguousarray(piece).data.cast("B"))
        except OSError as error:
            self._file.close()
            raise self._files.refused(error, piece.nbytes) from error

    def sorted(self, places: NDArray[np.integer[Any]]) -> Matrix:
        width = int(np.prod(self._shape))
        with self._file as file:
            out = self._files.zeros((len(places), *self._shape))
            file.seek(0)
            step = max(1, _AT_ONCE // max(width, 1))
            for at in range(0, len(places), step):
                own = places[at : at + step]
                piece = np.empty(width * len(own))
                file.readinto(piece.data.cast("B"))
                out[own] = piece.reshape(len(own), *self._shape)
        return out


def scratch_folder(given: Any) -> Scratch:
    """Where arrays are kept: in memory for None, else in files of a folder.

    Raises
    ------
    DataError
        If there is no such folder.
    FileError
        If nothing can be written there.
    """
    if given is None:
        return IN_MEMORY
    if not isinstance(given, (str, os.PathLike)) or not os.fspath(given):
        raise DataError(f"scratch= is the name of a folder, not {given!r:.60}.")
    folder = Path(os.fsdecode(given))
    if not folder.is_dir():
        raise DataError(f"There is no folder {str(folder)!r} for scratch=; make it first.")
    files = FilesIn(folder)
    try:
        files.file().close()
    except OSError as error:
        raise files.refused(error, 0) from error
    return files


def _fill(file: Any, size: int) -> None:
    zeros = bytes(8 * _AT_ONCE)
    for at in range(0, size, len(zeros)):
        _write(file, memoryview(zeros)[: size - at])


def _write(file: Any, content: memoryview) -> None:
    """Write all: a system may take a part at a time, and says only then that it has no place."""
    while len(content):
        content = content[file.write(content) :]
