from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Doubles = NDArray[np.float64]
_Codes = NDArray[np.int32]
_Offsets = NDArray[np.int64]

def rows_by_level(codes: _Codes, n_levels: int, /) -> tuple[_Offsets, _Codes]: ...
def nesting_parents(inner: _Codes, n_inner: int, outer: _Codes, /) -> _Codes: ...
def remainder_pattern(
    start: _Offsets,
    order: _Codes,
    rest_codes: Sequence[_Codes],
    rest_first: Sequence[_Codes],
    rest_columns: Sequence[int],
    n_rest: int,
    n_border: int,
    /,
) -> tuple[_Offsets, _Codes]: ...
def relative_positions(
    parent: _Codes,
    inner_ptr: _Offsets,
    inner_ind: _Codes,
    outer_ptr: _Offsets,
    outer_ind: _Codes,
    /,
) -> _Codes: ...
def assemble_levels(
    start: _Offsets,
    order: _Codes,
    z: _Doubles,
    weights: _Doubles,
    head_z: Sequence[_Doubles],
    rest_codes: Sequence[_Codes],
    rest_first: Sequence[_Codes],
    rest_z: Sequence[_Doubles],
    border: _Doubles,
    n_rest: int,
    ptr: _Offsets,
    ind: _Codes,
    diag: _Doubles,
    panel: _Doubles,
    /,
) -> None: ...
def assemble_remainder(
    codes: Sequence[_Codes],
    z: Sequence[_Doubles],
    offsets: Sequence[int],
    weights: _Doubles,
    border: _Doubles,
    n_rest: int,
    A: _Doubles,
    /,
) -> None: ...
def add_neighbours_to_levels(
    start: _Offsets,
    order: _Codes,
    z: _Doubles,
    coefficient: _Doubles,
    head_z: Sequence[_Doubles],
    rest_codes: Sequence[_Codes],
    rest_first: Sequence[_Codes],
    rest_z: Sequence[_Doubles],
    border: _Doubles,
    n_rest: int,
    ptr: _Offsets,
    ind: _Codes,
    diag: _Doubles,
    panel: _Doubles,
    /,
) -> None: ...
def add_neighbours_to_remainder(
    codes: Sequence[_Codes],
    first: Sequence[_Codes],
    z: Sequence[_Doubles],
    coefficient: _Doubles,
    border: _Doubles,
    n_rest: int,
    A: _Doubles,
    /,
) -> None: ...
def neighbour_variates(
    kind: _Codes,
    residuals: _Doubles,
    before: _Doubles,
    own: _Doubles,
    before_change: _Doubles,
    own_change: _Doubles,
    products: _Doubles,
    /,
) -> None: ...
def group_sums(codes: _Codes, z: _Doubles, values: _Doubles, sums: _Doubles, /) -> None: ...
def logit_rows(
    y: _Doubles,
    trials: _Doubles,
    ways: _Doubles,
    weights: _Doubles,
    eta: _Doubles,
    d: _Doubles,
    r: _Doubles,
    W: _Doubles,
    W1: _Doubles,
    W2: _Doubles,
    /,
) -> None: ...
def log_rows(
    y: _Doubles,
    factorials: _Doubles,
    weights: _Doubles,
    eta: _Doubles,
    d: _Doubles,
    r: _Doubles,
    W: _Doubles,
    W1: _Doubles,
    W2: _Doubles,
    /,
) -> None: ...
def add_block_forms(
    values: _Doubles,
    first: _Offsets,
    left: _Doubles,
    right: _Doubles,
    factor: float,
    h: _Doubles,
    /,
) -> None: ...
def add_gathered(values: _Doubles, places: _Offsets, weights: _Doubles, h: _Doubles, /) -> None: ...
def curvature_sums(
    codes: _Codes,
    z: _Doubles,
    X: _Doubles,
    b: _Doubles,
    W: _Doubles,
    W1: _Doubles,
    v: _Doubles,
    C: _Doubles,
    S: _Doubles,
    H: _Doubles,
    /,
) -> None: ...
def expand_levels(codes: _Codes, z: _Doubles, effects: _Doubles, values: _Doubles, /) -> None: ...
def thin_cross(X: _Doubles, Y: _Doubles, weights: _Doubles, product: _Doubles, /) -> None: ...
def thin_times(
    X: _Doubles, Q: _Doubles, alpha: float, add: bool, column: int, out: _Doubles, /
) -> None: ...
def eliminate_levels(
    T: _Doubles,
    diag: _Doubles,
    panel: _Doubles,
    ptr: _Offsets,
    head: int,
    L: _Doubles,
    U: _Doubles,
    /,
) -> float: ...
def subtract_from_remainder(
    U: _Doubles, ptr: _Offsets, ind: _Codes, head: int, k: int, core: int, S: _Doubles, /
) -> None: ...
def subtract_from_outer(
    U: _Doubles,
    ptr: _Offsets,
    head: int,
    k: int,
    at: int,
    parent: _Codes,
    relative: _Codes,
    outer_ptr: _Offsets,
    outer_head: int,
    outer_diag: _Doubles,
    outer_panel: _Doubles,
    /,
) -> None: ...
def forward_levels(
    T: _Doubles,
    L: _Doubles,
    U: _Doubles,
    ptr: _Offsets,
    ind: _Codes,
    parents: Sequence[_Codes],
    rhs: _Doubles,
    solved: _Doubles,
    outer_rhs: Sequence[_Doubles],
    remainder_rhs: _Doubles,
    /,
) -> None: ...
def backward_levels(
    T: _Doubles,
    L: _Doubles,
    U: _Doubles,
    ptr: _Offsets,
    ind: _Codes,
    parents: Sequence[_Codes],
    solved: _Doubles,
    effects: _Doubles,
    outer_effects: Sequence[_Doubles],
    remainder_effects: _Doubles,
    /,
) -> None: ...
def multiply_levels(
    diag: _Doubles,
    panel: _Doubles,
    ptr: _Offsets,
    ind: _Codes,
    parents: Sequence[_Codes],
    v: _Doubles,
    outer_v: Sequence[_Doubles],
    remainder_v: _Doubles,
    product: _Doubles,
    outer_product: Sequence[_Doubles],
    remainder_product: _Doubles,
    /,
) -> None: ...
def scale_columns(
    A: _Doubles, offset: int, n_levels: int, T: _Doubles, transposed: bool, /
) -> None: ...
def scale_rows(
    A: _Doubles, offset: int, n_levels: int, T: _Doubles, transposed: bool, /
) -> None: ...
def mirror_lower(A: _Doubles, /) -> None: ...
def selected_inverse_levels(
    T: _Doubles,
    diag: _Doubles,
    panel: _Doubles,
    L: _Doubles,
    ptr: _Offsets,
    ind: _Codes,
    parents: Sequence[_Codes],
    relatives: Sequence[_Codes],
    outer_P: Sequence[_Doubles],
    outer_P_panel: Sequence[_Doubles],
    outer_ptr: Sequence[_Offsets],
    core_P: _Doubles,
    fronts: Sequence[_Offsets],
    front_P: _Doubles,
    n_remainder: int,
    P: _Doubles,
    P_panel: _Doubles,
    N_sum: _Doubles,
    B_sum: _Doubles,
    /,
) -> None: ...
def sigma_model_at(
    theta: _Doubles,
    sizes: Sequence[int],
    score: _Doubles,
    information: _Doubles,
    correction: _Doubles,
    step: _Doubles,
    /,
) -> tuple[float, _Doubles, _Doubles]: ...
def minimise_sigma_model(
    theta: _Doubles,
    sizes: Sequence[int],
    score: _Doubles,
    information: _Doubles,
    correction: _Doubles,
    radius: float,
    /,
) -> tuple[_Doubles, float]: ...
def minimise(
    evaluate: Callable[[_Doubles], Any],
    x: _Doubles,
    point: Any,
    correction: _Doubles,
    tolerance: float,
    most_evaluations: int,
    radius: float,
    natural: bool,
    report: Callable[[_Doubles, Any, int, int, float, float, str], None] | None,
    /,
) -> tuple[_Doubles, Any, int, int, float, float, str]: ...
def minimise_model(
    model_at: Callable[[_Doubles], tuple[float, _Doubles, _Doubles]],
    size: int,
    radius: float,
    /,
) -> tuple[_Doubles, float]: ...
def secant_update(correction: _Doubles, missing: _Doubles, step: _Doubles, /) -> _Doubles: ...
def symmetric_rank_one_update(
    correction: _Doubles, missing: _Doubles, step: _Doubles, /
) -> _Doubles: ...
def trust_region_step(gradient: _Doubles, hessian: _Doubles, radius: float, /) -> _Doubles: ...
def use_blas(gemm: Any, trsm: Any, potrf: Any, /) -> None: ...
def solve_lower(L: _Doubles, B: _Doubles, transposed: bool, /) -> None: ...
def dense_cholesky(A: _Doubles, /) -> None: ...
def dense_inverse(C: _Doubles, inverse: _Doubles, /) -> None: ...
def clique_graph(
    ptr: _Offsets, ind: _Codes, n_nodes: int, most: int, /
) -> tuple[_Codes, _Codes]: ...
def elimination_plan(
    graph_ptr: _Codes, graph_ind: _Codes, sizes: _Offsets, costs: _Doubles, most: float, /
) -> tuple[_Codes, _Codes, _Offsets, _Codes, float]: ...
def front_entries(fronts: Sequence[_Offsets], rows: _Codes, columns: _Codes, /) -> _Offsets: ...
def subtract_from_fronts(
    U: _Doubles,
    ptr: _Offsets,
    ind: _Codes,
    head: int,
    k: int,
    fronts: Sequence[_Offsets],
    values: _Doubles,
    /,
) -> None: ...
def eliminate_fronts(
    T: Sequence[_Doubles],
    fronts: Sequence[_Offsets],
    values: _Doubles,
    factors: _Doubles,
    core: _Doubles,
    /,
) -> float: ...
def forward_fronts(
    T: Sequence[_Doubles], fronts: Sequence[_Offsets], factors: _Doubles, rhs: _Doubles, /
) -> None: ...
def backward_fronts(
    T: Sequence[_Doubles], fronts: Sequence[_Offsets], factors: _Doubles, values: _Doubles, /
) -> None: ...
def multiply_front_rows(
    fronts: Sequence[_Offsets], values: _Doubles, v: _Doubles, product: _Doubles, /
) -> None: ...
def selected_inverse_fronts(
    T: Sequence[_Doubles],
    fronts: Sequence[_Offsets],
    values: _Doubles,
    factors: _Doubles,
    core_P: _Doubles,
    n_remainder: int,
    P: _Doubles,
    N_sums: Sequence[_Doubles],
    B_sums: Sequence[_Doubles],
    /,
) -> None: ...
def evaluate_single_factor(
    T: _Doubles,
    diag: _Doubles,
    panel: _Doubles,
    border: _Doubles,
    with_fixed: bool,
    N: _Doubles,
    B: _Doubles,
    CC: _Doubles,
    information: _Doubles,
    /,
) -> tuple[float, float, float]: ...
def descend_single_factor(
    theta: _Doubles,
    diag: _Doubles,
    panel: _Doubles,
    border: _Doubles,
    reml: bool,
    df: float,
    sum_log_weights: float,
    tolerance: float,
    most: int,
    radius: float,
    /,
) -> tuple[_Doubles, int, int, _Doubles]: ...
def descend_single_factor_from_each(
    starts: _Doubles,
    diag: _Doubles,
    panel: _Doubles,
    border: _Doubles,
    reml: bool,
    df: float,
    sum_log_weights: float,
    tolerance: float,
    most: int,
    /,
) -> tuple[_Doubles, _Doubles, _Doubles, int]: ...
def descend_dense_from_each(
    starts: _Doubles,
    G: _Doubles,
    levels: Sequence[int],
    columns: Sequence[int],
    entry_factor: Sequence[int],
    entry_row: Sequence[int],
    entry_column: Sequence[int],
    sizes: Sequence[int],
    reml: bool,
    df: float,
    sum_log_weights: float,
    tolerance: float,
    most: int,
    /,
) -> tuple[_Doubles, _Doubles, _Doubles, int]: ...
