// Substitution and multiplication with the blocks of elimination.hpp, level by level of one factor:
// each level's panel meets the rows of the outer factors and of the remainder that it refers to.
#pragma once

#include "arrays.hpp"
#include "parallel.hpp"

#include <algorithm>
#include <type_traits>

namespace kernels {

// Rows that a chain factor's panels refer to: those of the factors further out, one level each, and
// those of the remainder; `columns` values a row. Writable if the array type is.
template <class Array> struct OuterRows {
    using Value = std::remove_pointer_t<decltype(std::declval<const Array &>().data())>;

    const std::vector<Codes> &parents;
    const std::vector<Array> &outer;
    const Array &remainder;
    Offsets ptr;
    Codes ind;
    std::int64_t k, n_levels, columns, n_remainder, head = 0;

    OuterRows(std::int64_t k_, const std::vector<Codes> &parents_, const std::vector<Array> &outer_,
              Offsets ptr_, Codes ind_, const Array &remainder_)
        : parents(parents_), outer(outer_), remainder(remainder_), ptr(ptr_), ind(ind_), k(k_),
          n_levels(static_cast<std::int64_t>(ptr.shape(0)) - 1),
          columns(static_cast<std::int64_t>(remainder.shape(1))),
          n_remainder(static_cast<std::int64_t>(remainder.shape(0))) {
        for (auto &o : outer) head += static_cast<std::int64_t>(o.shape(1));
    }

    // Calls body(level, room, remainder) for every level, shared out over threads. `room` has space
    // for a level's own rows; threads other than the first add up what they write to the
    // remainder's rows on the side. Levels that share a level further out do not write to it at the
    // same time.
    template <class Body> void each_level(Body &&body) const {
        constexpr bool writes = !std::is_const_v<Value>;
        const std::int64_t size = n_remainder * columns;
        auto panels_up_to = [&](std::int64_t i) { return double(ptr.data()[i] + (head + k) * i); };
        const int threads = writes && !outer.empty()
                                ? 1
                                : worthwhile_threads(4.0 * panels_up_to(n_levels) * k * columns);
        std::vector<std::vector<double>> aside(threads);
        parallel_ranges(n_levels, threads, panels_up_to,
                        [&](int thread, std::int64_t first, std::int64_t last) {
                            std::vector<double> room(k * columns);
                            Value *rows = remainder.data();
                            if (writes && thread > 0) {
                                aside[thread].assign(size, 0.0);
                                rows = aside[thread].data();
                            }
                            for (std::int64_t i = first; i < last; ++i) body(i, room.data(), rows);
                        });
        if constexpr (writes)
            for (int thread = 1; thread < threads; ++thread)
                for (std::int64_t t = 0; t < size; ++t) remainder.data()[t] += aside[thread][t];
    }

    // rows += Sign panel' block, for the panel of level i and a block of k rows.
    template <int K, int Sign>
    void add_to_rows(std::int64_t i, const double *panels, const double *block,
                     double *remainder_rows) const {
        visit<K>(i, panels, remainder_rows, [&](std::int64_t k, const double *u, double *row) {
            for (std::int64_t a = 0; a < k; ++a)
                add_multiple(row, Sign * u[a], block + a * columns);
        });
    }

    // block += Sign panel rows.
    template <int K, int Sign>
    void add_rows_to(double *block, std::int64_t i, const double *panels,
                     const double *remainder_rows) const {
        visit<K>(i, panels, remainder_rows,
                 [&](std::int64_t k, const double *u, const double *row) {
                     for (std::int64_t a = 0; a < k; ++a)
                         add_multiple(block + a * columns, Sign * u[a], row);
                 });
    }

  private:
    void add_multiple(double *to, double factor, const double *row) const {
        for (std::int64_t c = 0; c < columns; ++c) to[c] += factor * row[c];
    }

    // Calls visit(k, column of the panel, row it refers to) for level i.
    template <int K, class Row, class Visit>
    void visit(std::int64_t i, const double *panels, Row *remainder_rows, Visit &&visit) const {
        const std::int64_t rows = K == Eigen::Dynamic ? k : K;
        const double *u = panels + rows * (head * i + ptr.data()[i]);
        for (std::size_t g = 0; g < outer.size(); ++g) {
            const std::int64_t ko = static_cast<std::int64_t>(outer[g].shape(1));
            const std::int64_t j = parents[g].data()[i];
            for (std::int64_t a = 0; a < ko; ++a, u += rows)
                visit(rows, u, outer[g].data() + (j * ko + a) * columns);
        }
        for (std::int64_t c = ptr.data()[i]; c < ptr.data()[i + 1]; ++c, u += rows) {
            const std::int64_t at = ind.data()[c];
            if (at >= n_remainder) break;
            visit(rows, u, remainder_rows + at * columns);
        }
    }
};

// x (k x columns, row-major) <- L^-1 x, or L^-T x; L is row-major.
template <int K>
void solve_small(bool transpose, std::int64_t k_, const double *L, double *x,
                 std::int64_t columns) {
    const std::int64_t k = K == Eigen::Dynamic ? k_ : K;
    for (std::int64_t step = 0; step < k; ++step) {
        const std::int64_t a = transpose ? k - 1 - step : step;
        for (std::int64_t earlier = 0; earlier < step; ++earlier) {
            const std::int64_t b = transpose ? k - 1 - earlier : earlier;
            const double factor = transpose ? L[b * k + a] : L[a * k + b];
            for (std::int64_t c = 0; c < columns; ++c)
                x[a * columns + c] -= factor * x[b * columns + c];
        }
        const double inverse = 1.0 / L[a * k + a];
        for (std::int64_t c = 0; c < columns; ++c) x[a * columns + c] *= inverse;
    }
}

// out (k x columns) <- T x, or T' x.
template <int K>
void multiply_small(bool transpose, std::int64_t k_, const double *T, const double *x, double *out,
                    std::int64_t columns) {
    const std::int64_t k = K == Eigen::Dynamic ? k_ : K;
    for (std::int64_t a = 0; a < k; ++a)
        for (std::int64_t c = 0; c < columns; ++c) {
            double sum = 0.0;
            for (std::int64_t b = 0; b < k; ++b)
                sum += (transpose ? T[b * k + a] : T[a * k + b]) * x[b * columns + c];
            out[a * columns + c] = sum;
        }
}

// Forward substitution of one factor: solved[i] = L^-1 T' rhs[i], and what follows from it is taken
// off the right-hand sides of the outer factors and of the remainder (the rows it has).
inline void forward_levels(ConstDoubles T, ConstDoubles L, ConstDoubles U, Offsets ptr, Codes ind,
                           std::vector<Codes> parents, ConstDoubles rhs, Doubles solved,
                           std::vector<Doubles> outer_rhs, Doubles remainder_rhs) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const OuterRows<Doubles> rows(k, parents, outer_rhs, ptr, ind, remainder_rhs);
    const std::int64_t columns = rows.columns, own = k * columns;
    nb::gil_scoped_release release;
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        rows.each_level([&](std::int64_t i, double *, double *remainder) {
            double *f = solved.data() + i * own;
            multiply_small<K>(true, k, T.data(), rhs.data() + i * own, f, columns);
            solve_small<K>(false, k, L.data() + i * k * k, f, columns);
            rows.add_to_rows<K, -1>(i, U.data(), f, remainder);
        });
    });
}

// Back substitution of one factor: effects[i] = T L^-T (solved[i] - U b), b = the effects of the
// outer factors and of the remainder, already known.
inline void backward_levels(ConstDoubles T, ConstDoubles L, ConstDoubles U, Offsets ptr, Codes ind,
                            std::vector<Codes> parents, ConstDoubles solved, Doubles effects,
                            std::vector<ConstDoubles> outer_effects,
                            ConstDoubles remainder_effects) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const OuterRows<ConstDoubles> rows(k, parents, outer_effects, ptr, ind, remainder_effects);
    const std::int64_t columns = rows.columns, own = k * columns;
    nb::gil_scoped_release release;
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        rows.each_level([&](std::int64_t i, double *left, const double *remainder) {
            std::copy_n(solved.data() + i * own, own, left);
            rows.add_rows_to<K, -1>(left, i, U.data(), remainder);
            solve_small<K>(true, k, L.data() + i * k * k, left, columns);
            multiply_small<K>(false, k, T.data(), left, effects.data() + i * own, columns);
        });
    });
}

// One factor's share of A v: products with its diagonal blocks and panels, in both directions.
inline void multiply_levels(ConstDoubles diag, ConstDoubles panel, Offsets ptr, Codes ind,
                            std::vector<Codes> parents, ConstDoubles v,
                            std::vector<ConstDoubles> outer_v, ConstDoubles remainder_v,
                            Doubles product, std::vector<Doubles> outer_product,
                            Doubles remainder_product) {
    const std::int64_t k = static_cast<std::int64_t>(diag.shape(1));
    const OuterRows<Doubles> rows(k, parents, outer_product, ptr, ind, remainder_product);
    const OuterRows<ConstDoubles> sources(k, parents, outer_v, ptr, ind, remainder_v);
    const std::int64_t columns = rows.columns, own = k * columns;
    nb::gil_scoped_release release;
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        rows.each_level([&](std::int64_t i, double *room, double *remainder) {
            const double *x = v.data() + i * own;
            double *out = product.data() + i * own;
            multiply_small<K>(false, k, diag.data() + i * k * k, x, room, columns);
            for (std::int64_t t = 0; t < own; ++t) out[t] += room[t];
            rows.add_to_rows<K, 1>(i, panel.data(), x, remainder);
            sources.add_rows_to<K, 1>(out, i, panel.data(), remainder_v.data());
        });
    });
}

} // namespace kernels
