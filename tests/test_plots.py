"""Pictures of matrices: what the pixels, colours, labels and scales say must be true."""

from __future__ import annotations

import builtins
import io
import re
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

mpl.use("Agg")

import matplotlib.pyplot as plt

import mixedeffects as me
from mixedeffects.display.binning import bin_matrix
from mixedeffects.display.cell_text import cell_texts
from mixedeffects.display.colours import ZeroIsWhite, diverging, readable_on
from mixedeffects.errors import ModelError
from mixedeffects.plot import covariance, matrix

SLEEP_G = np.array([[612.1, 9.6], [9.6, 35.07]])


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    assert plt.get_fignums() == []
    yield
    plt.close("all")


def sleep_block() -> np.ndarray:
    z = np.column_stack([np.ones(10), np.arange(10.0)])
    return z @ SLEEP_G @ z.T + 654.9 * np.eye(10)


def scale_axes(ax: Any) -> Any:
    (place,) = ax.child_axes
    return place


def cell_numbers(ax: Any) -> dict[tuple[float, float], str]:
    return {
        (text.get_position()[1], text.get_position()[0]): text.get_text()
        for text in ax.texts
        if not hasattr(text, "xycoords")
    }


def notes(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts if hasattr(text, "xycoords")]


def colours(ax: Any) -> np.ndarray:
    image = ax.images[0]
    return np.asarray(image.cmap(image.norm(image.get_array())))


# Reduction to pixels ------------------------------------------------------------------------------


def largest_by_hand(A: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    def pick(block: np.ndarray) -> float:
        return float(block.ravel()[np.argmax(np.abs(block))])

    return np.array(
        [
            [pick(A[i : i + cells[0], j : j + cells[1]]) for j in range(0, A.shape[1], cells[1])]
            for i in range(0, A.shape[0], cells[0])
        ]
    )


@pytest.mark.parametrize("shape", [(7, 5), (12, 12), (50, 3), (1, 40), (23, 17)])
@pytest.mark.parametrize("convert", [np.asarray, sparse.csc_array, sparse.coo_array])
def test_pixels_are_the_values_of_largest_magnitude(shape: tuple[int, int], convert: Any) -> None:
    rng = np.random.default_rng(sum(shape))
    A = rng.normal(size=shape) * (rng.random(shape) < 0.3)
    binned = bin_matrix(convert(A), 5, 4)
    cells = (-(-shape[0] // 5), -(-shape[1] // 4))
    assert binned.cells == cells
    np.testing.assert_array_equal(binned.pixels, largest_by_hand(A, cells))
    assert binned.pixels.shape[0] <= 5
    assert binned.pixels.shape[1] <= 4


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array])
def test_pattern_is_the_share_of_nonzeros_also_in_partial_pixels(convert: Any) -> None:
    A = np.zeros((5, 5))
    A[0, 0] = -2
    A[4, :] = 1
    binned = bin_matrix(convert(A), 3, 3, "pattern")
    assert binned.cells == (2, 2)
    expected = [[0.25, 0, 0], [0, 0, 0], [1, 1, 1]]
    np.testing.assert_array_equal(binned.pixels, expected)


def test_stored_zeros_are_not_nonzeros_and_repeated_entries_add_up() -> None:
    repeated = sparse.coo_array(
        ([5.0, -5.0, 1.0, 2.0, 0.0], ([0, 0, 1, 1, 0], [0, 0, 1, 1, 1])), shape=(2, 2)
    )
    np.testing.assert_array_equal(bin_matrix(repeated, 2, 2).pixels, [[0, 0], [0, 3]])
    np.testing.assert_array_equal(bin_matrix(repeated, 1, 1, "pattern").pixels, [[0.25]])
    np.testing.assert_array_equal(bin_matrix(repeated, 1, 1).pixels, [[3]])


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array])
def test_missing_values_are_not_hidden_by_larger_ones(convert: Any) -> None:
    A = np.array([[1.0, np.nan], [-9.0, 2.0]])
    assert np.isnan(bin_matrix(convert(A), 1, 1).pixels).all()


def test_reduction_leaves_the_matrix_alone() -> None:
    A = np.arange(6.0).reshape(2, 3)
    bin_matrix(A, 9, 9).pixels[:] = -1
    np.testing.assert_array_equal(A, np.arange(6.0).reshape(2, 3))


# Colours ------------------------------------------------------------------------------------------


def test_only_zero_is_white() -> None:
    norm, cmap = ZeroIsWhite(100.0), diverging()
    values = np.array([0.0, 1e-9, -1e-9, 100.0, -100.0])
    rgb = cmap(norm(values))[:, :3]
    np.testing.assert_array_equal(rgb[0], 1)
    assert (rgb[1:] < 0.99).any(axis=1).all()
    blue_minus_red = rgb[:, 2] - rgb[:, 0]
    assert (blue_minus_red[[1, 3]] > 0).all()
    assert (blue_minus_red[[2, 4]] < 0).all()


def test_colours_are_monotone_in_lightness_on_both_sides() -> None:
    rgb = diverging()(np.linspace(0, 1, 257))[:, :3]
    lightness = rgb @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness[:129]) > 0).all()
    assert (np.diff(lightness[128:]) < 0).all()


def test_scale_keeps_order_and_clips() -> None:
    norm = ZeroIsWhite(2.0, center=1.0)
    values = np.array([-5.0, -1.0, 0.0, 1.0, 1.001, 2.0, 3.0, 9.0])
    shares = np.asarray(norm(values))
    assert shares[[0, 1, 3, 6, 7]].tolist() == [0, 0, 0.5, 1, 1]
    assert (np.diff(shares)[1:-1] > 0).all()
    assert np.ma.getmaskarray(norm(np.array([np.nan, 1.0]))).tolist() == [True, False]


def test_text_is_readable_on_every_colour() -> None:
    def luminance(colour: tuple[float, ...]) -> float:
        c = np.array(colour[:3])
        return float(
            np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
            @ [0.2126, 0.7152, 0.0722]
        )

    for background in diverging()(np.linspace(0, 1, 257)):
        text = mpl.colors.to_rgb(readable_on(tuple(background)))
        light, dark = sorted([luminance(tuple(background)), luminance(text)], reverse=True)
        # 4.5 : 1 is what accessibility guidelines ask of body text.
        assert (light + 0.05) / (dark + 0.05) >= 4.5


# Numbers in cells ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 0.0, 12.0, -3.0], ["1", ".", "12", "-3"]),
        ([612.1, 9.6, 9.6, 35.07], ["612.1", "9.6", "9.6", "35.1"]),
        ([141.79, -10.118, 0.0, 0.722], ["141.79", "-10.12", ".", "0.72"]),
        ([1.0, 0.48, 0.3, 0.55], ["1.00", "0.48", "0.30", "0.55"]),
        ([4280.4, 622.1, 1267.0, 700.2], ["4280", "622", "1267", "700"]),
        ([2.0e7, 1.0, 0.0, 1.0], ["2.0e+07", "1.0e+00", ".", "1.0e+00"]),
        ([0.0, 0.0, 0.0, 0.0], [".", ".", ".", "."]),
        ([1.5, np.nan, 0.25, 1e-9], ["1.50", "nan", "0.25", "0.00"]),
    ],
)
def test_numbers_share_their_decimals(values: list[float], expected: list[str]) -> None:
    assert cell_texts(np.array(values).reshape(2, 2)).ravel().tolist() == expected


# The picture --------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [np.asarray, pd.DataFrame, sparse.csc_array, sparse.csr_matrix])
def test_every_kind_of_matrix_shows_its_values(convert: Any) -> None:
    A = np.array([[0.0, 1.5, 0.0], [-2.0, 0.0, 4.0]])
    ax = matrix(convert(A))
    np.testing.assert_array_equal(ax.images[0].get_array(), A)
    assert ax.images[0].get_clim() == (-4, 4)
    white = (colours(ax)[..., :3] == 1).all(axis=-1)
    np.testing.assert_array_equal(white, A == 0)


def test_the_first_row_is_on_top() -> None:
    ax = matrix(np.eye(3))
    assert ax.get_ylim() == (2.5, -0.5)
    assert ax.get_xlim() == (-0.5, 2.5)
    top = ax.transData.transform((0, 0))[1]
    assert top > ax.transData.transform((0, 2))[1]


def test_zero_is_white_on_the_canvas_and_the_smallest_entry_is_not() -> None:
    A = np.zeros((20, 20))
    A[0, 0], A[10, 10], A[19, 19] = 1e6, 1e-3, -1e-3
    ax = matrix(A, annotate=False)
    figure = ax.figure
    figure.canvas.draw()
    canvas = np.asarray(figure.canvas.buffer_rgba())[::-1]

    def at(row: int, column: int) -> list[int]:
        x, y = ax.transData.transform((column, row))
        return canvas[int(y), int(x), :3].tolist()

    assert at(5, 5) == [255, 255, 255]
    assert at(0, 0)[2] > at(0, 0)[0]
    assert at(0, 0)[0] < 20
    assert at(10, 10)[2] > at(10, 10)[0]
    assert at(19, 19)[2] < at(19, 19)[0]


def test_colour_limits_are_symmetric_for_nonnegative_values_too() -> None:
    ax = matrix(np.array([[0.0, 3.0], [1.0, 2.0]]))
    assert ax.images[0].get_clim() == (-3, 3)
    # The half that cannot occur is not shown beside the picture.
    assert scale_axes(ax).get_ylim() == (0, 3)
    assert scale_axes(matrix(np.array([[-1.0, 3.0]]))).get_ylim() == (-3, 3)


def test_center_limit_and_zeros_only() -> None:
    assert matrix(np.zeros((2, 2))).images[0].get_clim() == (-1, 1)
    assert matrix(np.array([[1.0, 7.0]]), center=2).images[0].get_clim() == (-3, 7)
    assert matrix(np.eye(2), limit=5).images[0].get_clim() == (-5, 5)
    infinite = matrix(np.array([[np.inf, 2.0], [np.nan, -1.0]]))
    assert infinite.images[0].get_clim() == (-2, 2)
    grey = colours(infinite)[1, 0, :3]
    assert grey[0] == grey[1] == grey[2] < 0.8


def test_a_large_matrix_says_how_many_cells_a_pixel_is() -> None:
    A = sparse.csr_array((np.array([-7.0, 3.0]), ([50, 51], [7, 7])), shape=(100, 40))
    ax = matrix(A, max_pixels=20)
    assert notes(ax)[0] == "100 x 40, each pixel 5 x 2 cells\n(value of largest magnitude)"
    pixels = np.asarray(ax.images[0].get_array())
    assert pixels.shape == (20, 20)
    assert pixels[10, 3] == -7
    assert np.count_nonzero(pixels) == 1
    # Positions on the axes are those of the matrix.
    assert ax.get_xlim() == (-0.5, 39.5)
    assert ax.get_ylim() == (99.5, -0.5)
    assert ax.images[0].get_extent() == [-0.5, 39.5, 99.5, -0.5]


def test_pixels_lie_over_their_cells_when_the_last_ones_are_partial() -> None:
    ax = matrix(np.ones((10, 7)), max_pixels=4)
    assert ax.images[0].get_array().shape == (4, 4)
    assert ax.images[0].get_extent() == [-0.5, 7.5, 11.5, -0.5]
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 6.5), (9.5, -0.5))


def test_pattern_shows_shares_and_says_so() -> None:
    ax = matrix(np.diag([-4.0, 2.0, 0.0, 1.0]), kind="pattern", max_pixels=2)
    np.testing.assert_array_equal(ax.images[0].get_array(), [[0.5, 0], [0, 0.25]])
    assert notes(ax)[0].endswith("(share of nonzeros)")
    assert scale_axes(ax).get_ylabel() == "share of nonzeros"


def test_a_very_large_sparse_matrix_is_drawn_quickly() -> None:
    rng = np.random.default_rng(1)
    n, m = 73_421, 4_128
    columns = np.concatenate([rng.integers(0, 2972, n), rng.integers(2972, 4100, n)])
    Z = sparse.csc_array((np.ones(2 * n), (np.tile(np.arange(n), 2), columns)), shape=(n, m))
    start = time.perf_counter()
    ax = matrix(Z)
    ax.figure.savefig(io.BytesIO(), format="png")
    assert time.perf_counter() - start < 10  # about half a second; dense it would be 2.4 GB
    assert ax.images[0].get_array().shape == (1185, 1032)
    assert "73,421 x 4,128, each pixel 62 x 4 cells" in notes(ax)[0]
    # There are at least as many dots as pixels, so none of them is left out.
    box = ax.get_window_extent()
    assert box.height >= 1184.5
    assert box.width >= 1031.5


def test_given_axes_get_no_more_pixels_than_they_have_dots() -> None:
    _, axes = plt.subplots(figsize=(2, 2), dpi=50)
    A = sparse.csr_array(([9.0], ([1234], [999])), shape=(2000, 2000))
    ax = matrix(A, ax=axes)
    assert ax is axes
    pixels = np.asarray(ax.images[0].get_array())
    box = ax.get_window_extent()
    assert max(pixels.shape) <= box.height
    assert pixels.max() == 9
    assert "each pixel" in notes(ax)[0]


def test_labels_of_a_dataframe_are_written() -> None:
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    ax = matrix(pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], index=index, columns=["x", "y"]))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a:1", "b:2"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["x", "y"]
    assert ax.get_yticks().tolist() == [0, 1]


def test_given_labels_win_and_too_many_give_way_to_positions() -> None:
    ax = matrix(pd.DataFrame(np.eye(2), columns=["x", "y"]), columns=["p", "q"])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["p", "q"]
    many = matrix(sparse.eye_array(500), rows=[f"level {i}" for i in range(500)])
    many.figure.canvas.draw()
    texts = [text.get_text() for text in many.get_yticklabels()]
    assert len(texts) < 20
    assert not any("level" in text for text in texts)
    assert "100" in texts
    assert many.get_ylabel() == "row"


def test_long_column_labels_are_turned() -> None:
    long = matrix(np.eye(30), columns=[f"column number {i}" for i in range(30)])
    assert {text.get_rotation() for text in long.get_xticklabels()} == {90.0}
    short = matrix(np.eye(3), columns=["a", "b", "c"])
    assert {text.get_rotation() for text in short.get_xticklabels()} == {0.0}


@pytest.mark.parametrize("count", [3, 10, 30])
def test_labels_do_not_overlap(count: int) -> None:
    names = [f"1{i:02d}:a" for i in range(count)]
    groups = [(f"group {i}", i, i + 1) for i in range(count)]
    ax = matrix(np.eye(count), rows=names, columns=names, groups=groups, title="Title")
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.get_xticklabels() + ax.get_yticklabels()]
    boxes += [text.get_window_extent() for text in ax.texts if hasattr(text, "xycoords")]
    boxes += [ax.title.get_window_extent(), ax._left_title.get_window_extent()]
    boxes += [scale_axes(ax).get_window_extent()]
    boxes = [box for box in boxes if box.width > 1]
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert not one.padded(-1).overlaps(other.padded(-1))
    whole = ax.figure.bbox
    assert all(box.x0 >= 0 and box.x1 <= whole.width for box in boxes)
    assert all(box.y0 >= 0 and box.y1 <= whole.height for box in boxes)


def test_groups_are_separated_and_named() -> None:
    groups = {"columns": [("teacher", 0, 30), ("school", 30, 40)]}
    ax = matrix(np.ones((30, 40)), groups=groups)
    assert [line.get_xdata()[0] for line in ax.lines] == [29.5]
    named = {text.get_text(): text.xy for text in ax.texts if hasattr(text, "xycoords")}
    assert named["teacher"] == (14.5, 1)
    assert named["school"] == (34.5, 1)


def test_a_list_of_groups_is_for_both_sides_of_a_square_matrix() -> None:
    groups = [("a", 0, 2), ("b", 2, 5)]
    square = matrix(np.eye(5), groups=groups)
    assert sorted(notes(square))[1:] == ["a", "a", "b", "b"]
    assert len(square.lines) == 2
    wide = matrix(np.ones((3, 5)), groups=groups)
    assert sorted(notes(wide))[1:] == ["a", "b"]
    assert len(wide.lines) == 1


def test_too_many_groups_are_thinned_out() -> None:
    groups = [(f"s{i}", i, i + 1) for i in range(3000)]
    ax = matrix(sparse.eye_array(3000), groups=groups)
    assert len(ax.lines) == 0
    assert 10 < len(notes(ax)) < 150


def test_numbers_are_written_into_small_matrices_only() -> None:
    A = np.array([[1.25, 0.0], [-3.5, 2.0]])
    assert cell_numbers(matrix(A)) == {
        (0, 0): "1.25",
        (0, 1): ".",
        (1, 0): "-3.50",
        (1, 1): "2.00",
    }
    assert cell_numbers(matrix(A, annotate=False)) == {}
    assert len(cell_numbers(matrix(np.ones((12, 12))))) == 144
    assert cell_numbers(matrix(np.ones((31, 2)))) == {}
    assert len(cell_numbers(matrix(np.ones((31, 2)), annotate=True))) == 62


def test_numbers_fit_their_cells() -> None:
    ax = matrix(-1234.5 * np.ones((12, 12)))
    ax.figure.canvas.draw()
    box = ax.get_window_extent()
    for text in ax.texts:
        if not hasattr(text, "xycoords"):
            extent = text.get_window_extent()
            assert extent.width < box.width / 12
            assert extent.height < box.height / 12


def test_numbers_too_small_to_read_are_written_only_on_request() -> None:
    _, axes = plt.subplots(figsize=(1.5, 1.5))
    assert cell_numbers(matrix(np.full((12, 12), 0.25), ax=axes)) == {}
    _, axes = plt.subplots(figsize=(1.5, 1.5))
    assert len(cell_numbers(matrix(np.full((12, 12), 0.25), ax=axes, annotate=True))) == 144


def test_colour_of_numbers_follows_their_background() -> None:
    ax = matrix(np.array([[1.0, 0.01], [-1.0, 0.3]]))
    found = {text.get_position(): text.get_color() for text in ax.texts}
    assert found[0, 0] == "white"
    assert found[0, 1] == "white"
    assert found[1, 0] == "black"
    assert found[1, 1] == "black"


def test_cells_are_square_unless_the_matrix_is_long() -> None:
    def cell(ax: Any) -> float:
        box = ax.get_window_extent()
        n, m = ax.images[0].get_array().shape
        return float((box.height / n) / (box.width / m))

    assert cell(matrix(np.ones((30, 40)))) == pytest.approx(1, rel=1e-6)
    assert cell(matrix(np.ones((3, 3)))) == pytest.approx(1, rel=1e-6)
    box = matrix(np.ones((180, 36))).get_window_extent()
    assert box.height / box.width == pytest.approx(2, rel=1e-6)


def test_scale_is_labelled_and_can_be_left_out() -> None:
    assert scale_axes(matrix(np.eye(2), label="loading", units="m")).get_ylabel() == "loading (m)"
    assert scale_axes(matrix(np.eye(2), units="kg")).get_ylabel() == "kg"
    assert scale_axes(matrix(np.eye(2))).get_ylabel() == ""
    assert matrix(np.eye(2), colorbar=False).child_axes == []


def test_title_and_dimensions() -> None:
    ax = matrix(np.ones((1150, 796)), title="Z")
    assert ax.get_title(loc="left") == "Z"
    assert notes(ax) == ["1,150 x 796"]


def test_another_colour_map() -> None:
    assert matrix(np.eye(2), cmap="PuOr").images[0].get_cmap().name == "PuOr"


def test_objects_with_a_sparse_form_are_drawn_from_it() -> None:
    class Operator:
        def sparse(self) -> Any:
            return sparse.diags_array([1.0, 2.0])

        def __array__(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("made dense")

    np.testing.assert_array_equal(matrix(Operator()).images[0].get_array(), np.diag([1, 2]))
    np.testing.assert_array_equal(covariance(Operator()).images[0].get_array(), np.diag([1, 2]))


def test_drawing_changes_neither_the_matrix_nor_the_settings() -> None:
    A = sparse.coo_array(([1.0, 2.0], ([0, 0], [0, 0])), shape=(2, 2))
    before = dict(mpl.rcParams)
    matrix(A)
    assert A.nnz == 2
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"A": np.ones(3)}, r"shape \(3,\)"),
        ({"A": np.ones((0, 3))}, r"shape \(0, 3\)"),
        ({"A": np.array([["a"]])}, "Only real numbers"),
        ({"A": np.eye(2), "rows": ["a"]}, "1 labels in rows for 2"),
        ({"A": np.eye(2), "groups": [("g", 0, 3)]}, r"'g' spans rows 0 to 3|'g' spans columns"),
        ({"A": np.eye(2), "groups": {"cols": []}}, "keys 'rows' and 'columns'"),
        ({"A": np.eye(2), "kind": "shape"}, "kind must be"),
        ({"A": np.eye(2), "max_pixels": 0}, "max_pixels"),
        ({"A": np.eye(2), "limit": 0.0}, "limit must be positive"),
        ({"A": np.eye(200), "annotate": True}, "too many cells"),
    ],
)
def test_errors_say_what_is_wrong_and_leave_no_figure(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        matrix(**arguments)
    assert plt.get_fignums() == []


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(ModelError, match="complex128"):
        matrix(np.eye(2) * 1j)


@pytest.mark.parametrize("draw", [matrix, covariance])
def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, draw: Any
) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'mixedeffects\[plots\]'"):
        draw(np.eye(2))


# Covariances --------------------------------------------------------------------------------------


def test_blocks_are_put_in_their_places_with_their_names() -> None:
    B = sleep_block()
    blocks = ((str(308 + i), np.arange(10 * i, 10 * i + 10), B) for i in range(18))
    ax = covariance(blocks, units="ms^2")
    np.testing.assert_array_equal(ax.images[0].get_array(), np.kron(np.eye(18), B))
    assert scale_axes(ax).get_ylabel() == "covariance (ms^2)"
    assert notes(ax).count("308") == notes(ax).count("325") == 2
    assert len(ax.lines) == 2 * 17


def test_blocks_of_scattered_rows_are_placed_but_not_marked() -> None:
    first, second = np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([[2.0]])
    ax = covariance([("a", [2, 0], first), ("b", [1], second)])
    np.testing.assert_array_equal(ax.images[0].get_array(), [[3, 0, 1], [0, 2, 0], [1, 0, 4]])
    assert len(ax.lines) == 0


def test_one_cluster_has_numbers_and_labels() -> None:
    ax = covariance(sleep_block(), [f"day {i}" for i in range(10)], units="ms^2")
    numbers = cell_numbers(ax)
    assert len(numbers) == 100
    assert numbers[0, 0] == "1267"
    assert numbers[9, 9] == "4280"
    assert ax.get_xticklabels()[3].get_text() == ax.get_yticklabels()[3].get_text() == "day 3"


@pytest.mark.parametrize("convert", [np.asarray, sparse.csc_array, pd.DataFrame])
def test_correlations_are_on_a_fixed_scale(convert: Any) -> None:
    ax = covariance(convert(SLEEP_G), kind="correlation", units="ms^2")
    r = 9.6 / np.sqrt(612.1 * 35.07)
    np.testing.assert_allclose(ax.images[0].get_array(), [[1, r], [r, 1]], rtol=1e-15)
    assert ax.images[0].get_clim() == (-1, 1)
    assert scale_axes(ax).get_ylim() == (-1, 1)
    assert scale_axes(ax).get_ylabel() == "correlation"


def test_variance_zero_has_no_correlation() -> None:
    ax = covariance(np.diag([4.0, 0.0]), kind="correlation")
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert shown[0, 0] == 1
    assert np.isnan(shown[1]).all()


def test_covariance_errors() -> None:
    with pytest.raises(ModelError, match="2 x 3"):
        covariance(np.ones((2, 3)))
    with pytest.raises(ModelError, match="Row 1 has the variance -4"):
        covariance(np.diag([1.0, -4.0]), kind="correlation")
    with pytest.raises(ModelError, match="block 'a' stands for 1 rows"):
        covariance([("a", [0], np.eye(2))])
    with pytest.raises(ModelError, match="no blocks"):
        covariance(iter([]))
    with pytest.raises(ModelError, match="kind must be"):
        covariance(np.eye(2), kind="precision")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="1 labels"):
        covariance(np.eye(2), ["a"])


def drawn_boxes(figure: Any) -> dict[Any, Any]:
    """Where each text of a figure is drawn, in pixels; boxes stand for what no font here has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.canvas.draw()
    texts = [text for text in figure.findobj(plt.Text) if text.get_visible() and text.get_text()]
    return {text: text.get_window_extent() for text in texts}


def long_names_fit() -> me.LinearMixedModel:
    rng = np.random.default_rng(3)
    arms = [f"Cognitive behavioural therapy, variant {k:02d}" for k in range(12)]
    n = 600
    school, arm = rng.integers(0, 30, n), rng.integers(0, 12, n)
    sex = rng.choice(["女性", "男性"], n)
    y = rng.normal(size=30)[school] + 0.2 * arm + rng.normal(size=n)
    data = pd.DataFrame(
        {
            "点数 (total score in points)": y,
            "treatment arm": pd.Categorical.from_codes(arm, arms),
            "sex": sex,
            "school": [f"大阪府立北野高等学校附属 {k:02d}" for k in school],
        }
    )
    formula = "`点数 (total score in points)` ~ `treatment arm` + sex + (1 | school)"
    return me.lmer(formula, data)


def test_long_names_stay_apart() -> None:
    """In panels side by side, below small pictures, beside comparisons; and none is cut off."""
    m = long_names_fit()
    means = m.emmeans("sex", by="treatment arm").plot(letters=True)
    titles = [each.title for each in means] + [each._left_title for each in means]
    figure = means[0].figure
    boxes = drawn_boxes(figure)
    own = [boxes[text] for text in titles if text.get_text()]
    assert len(own) == 12
    assert not any(a.overlaps(b) for i, a in enumerate(own) for b in own[:i])
    assert max(box.x1 for box in boxes.values()) <= figure.bbox.x1 + 1
    for each in means:
        letters = [boxes[text] for text in each.texts if text.get_text().isalpha()]
        assert letters and all(box.y1 <= each.get_window_extent().y1 + 1 for box in letters)

    panels = m.emmeans("treatment arm", by="sex").plot(letters=True, arrows=True)
    figure = panels[0].figure
    boxes = drawn_boxes(figure)
    # The line above the panels is broken, not cut off.
    assert max(box.x1 for box in boxes.values()) <= figure.bbox.x1 + 1
    ticks = [boxes[text] for text in panels[0].get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(ticks))
    assert panels[0].get_window_extent().height > 0.25 * figure.bbox.height
    # Backquotes belong to the formula, not to the name.
    assert figure.get_supylabel() == "点数 (total score in points)"

    ax = m.emmeans("treatment arm").contrasts().plot()
    drawn_boxes(ax.figure)
    assert ax.get_window_extent().width > 0.3 * ax.figure.bbox.width
    assert ax.get_xlabel() == "estimate (点数 (total score in points))"

    small = m.bootstrap(20, seed=1).plot()
    boxes = drawn_boxes(small[0].figure)
    below = [boxes[each.xaxis.label] for each in small]
    assert not any(a.overlaps(b) for i, a in enumerate(below) for b in below[:i])


def test_the_note_of_influence_fits() -> None:
    ax = long_names_fit().influence("school").plot()
    assert "most influential of 30;\nvariance parameters" in ax.texts[0].get_text()
    boxes = drawn_boxes(ax.figure)
    assert boxes[ax.texts[0]].x1 <= ax.figure.bbox.x1
    row = long_names_fit().influence().plot()
    assert row.get_title(loc="left") == "Influence of each row left out"


def test_series_differ_by_more_than_colour() -> None:
    """Markers of means and rows, and styles of levels' lines; none comes twice."""
    m = long_names_fit()
    ax = m.emmeans(["sex", "treatment arm"]).plot()
    shown = [(line.get_color(), line.get_marker()) for line in ax.lines]
    assert len(set(shown)) == len(shown) == 12
    ax = m.effects(["treatment arm", "sex"]).plot(data=True, groups="all")
    clouds = [each for each in ax.collections if type(each).__name__ == "PathCollection"]
    outlines = {tuple(map(tuple, each.get_paths()[0].vertices)) for each in clouds}
    assert len(clouds) == len(outlines) == 2


def test_one_distance_shows_both_numbers() -> None:
    data = me.load_dataset("dyestuff").assign(when=0.0)
    m = me.lmer("Yield ~ 1 + (1 | Batch)", data)
    ax = m.variogram("when").plot()
    assert ax.lines[0].get_marker() == "D"


def test_names_of_points_side_by_side() -> None:
    """Labels of near points are written apart from each other."""
    from mixedeffects.display.points import name_points

    _, ax = plt.subplots(figsize=(5, 4))
    x, y = np.array([0.70, 0.66, 0.68]), np.array([0.5, 0.49, 0.51])
    ax.set(xlim=(0, 1), ylim=(0, 1))
    name_points(ax, x, y, ["row 313", "row 421", "row 7"], np.arange(3))
    boxes = list(drawn_boxes(ax.figure).values())
    own = [boxes[i] for i, text in enumerate(drawn_boxes(ax.figure)) if text in ax.texts]
    assert len(own) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(own) for b in own[:i])


def test_levels_that_differ_in_the_middle_are_told_apart() -> None:
    """A name that is cut in its middle would be the same for all of them."""
    rng = np.random.default_rng(1)
    who = np.repeat([f"participant number {k:02d} of the northern site" for k in range(20)], 6)
    y = np.repeat(rng.normal(size=20), 6) + rng.normal(size=120)
    m = me.lmer("y ~ 1 + (1 | who)", pd.DataFrame({"y": y, "who": who}))
    for ax in (m.plot("caterpillar"), m.plot("groups"), m.influence("who").plot()):
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert len(set(labels)) == len(labels) == 20
        assert all(re.search(r"number \d\d|er \d\d of the", label) for label in labels), labels
