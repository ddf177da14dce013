// Rows that follow each other: products of neighbours, and recursions along series.
#pragma once

#include "arrays.hpp"
#include "parallel.hpp"

#include <algorithm>

namespace kernels {

// Adds sum_i c_i (b_i b_p' + b_p b_i') over rows i and the row p = i - 1 before it, b = [z x], to the
// blocks of `assemble_levels`. Where c_i is not zero both rows are in one level of the factor.
inline void add_neighbours_to_levels(Offsets start, Codes order, ConstDoubles z, ConstDoubles coefficient,
                                     std::vector<ConstDoubles> head_z, std::vector<Codes> rest_codes,
                                     std::vector<Codes> rest_first, std::vector<ConstDoubles> rest_z,
                                     ConstDoubles border, std::int64_t n_rest, Offsets ptr, Codes ind,
                                     Doubles diag, Doubles panel) {
    const std::int64_t n_levels = static_cast<std::int64_t>(start.shape(0)) - 1;
    const std::int64_t k = static_cast<std::int64_t>(z.shape(1));
    const std::int64_t n_border = static_cast<std::int64_t>(border.shape(1));
    std::int64_t head = 0;
    for (auto &h : head_z) head += static_cast<std::int64_t>(h.shape(1));
    nb::gil_scoped_release release;
    const std::int64_t n_columns = k + head + static_cast<std::int64_t>(rest_z.size()) + n_border;
    const int threads =
        worthwhile_threads(16.0 * static_cast<double>(order.shape(0)) * k * n_columns);
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        using Column = Eigen::Matrix<double, K, 1>;
        auto range = [&](int, std::int64_t first, std::int64_t last) {
            std::vector<std::int32_t> position(n_rest, 0);
            Column of_own(k), of_before(k);
            for (std::int64_t i = first; i < last; ++i) {
                const std::int64_t begin = ptr.data()[i], m = ptr.data()[i + 1] - begin;
                for (std::int64_t c = 0; c < m - n_border; ++c)
                    position[ind.data()[begin + c]] = static_cast<std::int32_t>(c);
                SquareMap<K> D(diag.data() + i * k * k, k, k);
                PanelMap<K> G(panel.data() + k * (head * i + begin), k, head + m);
                for (std::int64_t s = start.data()[i]; s < start.data()[i + 1]; ++s) {
                    const std::int64_t own = order.data()[s], before = own - 1;
                    const double c = coefficient.data()[own];
                    if (c == 0.0) continue;
                    Eigen::Map<const Column> z_own(z.data() + own * k, k);
                    Eigen::Map<const Column> z_before(z.data() + before * k, k);
                    of_own = c * z_own;
                    of_before = c * z_before;
                    D.noalias() += of_own * z_before.transpose();
                    D.noalias() += of_before * z_own.transpose();
                    std::int64_t column = 0;
                    auto add = [&](std::int64_t at, const double *x_own, const double *x_before,
                                   std::int64_t count) {
                        for (std::int64_t a = 0; a < count; ++a)
                            G.col(at + a) += of_before * x_own[a] + of_own * x_before[a];
                    };
                    for (auto &h : head_z) {
                        const std::int64_t kh = static_cast<std::int64_t>(h.shape(1));
                        add(column, h.data() + own * kh, h.data() + before * kh, kh);
                        column += kh;
                    }
                    for (std::size_t g = 0; g < rest_codes.size(); ++g) {
                        const std::int64_t kg = static_cast<std::int64_t>(rest_z[g].shape(1));
                        const std::int32_t *code = rest_codes[g].data();
                        const std::int32_t *place = rest_first[g].data();
                        const std::int64_t at_own = head + position[place[code[own]]];
                        const std::int64_t at_before = head + position[place[code[before]]];
                        const double *x_own = rest_z[g].data() + own * kg;
                        const double *x_before = rest_z[g].data() + before * kg;
                        for (std::int64_t a = 0; a < kg; ++a) {
                            G.col(at_own + a) += of_before * x_own[a];
                            G.col(at_before + a) += of_own * x_before[a];
                        }
                    }
                    add(head + m - n_border, border.data() + own * n_border,
                        border.data() + before * n_border, n_border);
                }
            }
        };
        parallel_ranges(
            n_levels, threads, [&](std::int64_t i) { return double(start.data()[i]); }, range);
    });
}

// The same for the dense remainder: the lower triangle of the random rows and all border rows
// (columns: random only). `first` has the column of each level.
inline void add_neighbours_to_remainder(std::vector<Codes> codes, std::vector<Codes> first,
                                        std::vector<ConstDoubles> z, ConstDoubles coefficient,
                                        ConstDoubles border, std::int64_t n_rest, FortranDoubles A) {
    const std::int64_t n = static_cast<std::int64_t>(border.shape(0));
    const std::int64_t n_border = static_cast<std::int64_t>(border.shape(1));
    const std::int64_t size = static_cast<std::int64_t>(A.shape(0));
    nb::gil_scoped_release release;
    for (std::int64_t own = 1; own < n; ++own) {
        const double c = coefficient.data()[own];
        if (c == 0.0) continue;
        const std::int64_t before = own - 1;
        for (std::size_t g = 0; g < codes.size(); ++g) {
            const std::int64_t kg = static_cast<std::int64_t>(z[g].shape(1));
            const std::int64_t at_own = first[g].data()[codes[g].data()[own]];
            const std::int64_t at_before = first[g].data()[codes[g].data()[before]];
            for (std::int64_t a = 0; a < kg; ++a) {
                const double x_own = c * z[g].data()[own * kg + a];
                const double x_before = c * z[g].data()[before * kg + a];
                double *column_own = A.data() + (at_own + a) * size;
                double *column_before = A.data() + (at_before + a) * size;
                for (std::size_t h = 0; h < codes.size(); ++h) {
                    const std::int64_t kh = static_cast<std::int64_t>(z[h].shape(1));
                    const std::int64_t other = first[h].data()[codes[h].data()[before]];
                    for (std::int64_t b = 0; b < kh; ++b) {
                        const double value = x_own * z[h].data()[before * kh + b];
                        const std::int64_t x = at_own + a, y = other + b;
                        A.data()[std::min(x, y) * size + std::max(x, y)] +=
                            x == y ? 2.0 * value : value;
                    }
                }
                for (std::int64_t b = 0; b < n_border; ++b) {
                    column_own[n_rest + b] += x_own * border.data()[before * n_border + b];
                    column_before[n_rest + b] += x_before * border.data()[own * n_border + b];
                }
            }
        }
    }
}

// Products (m x m) of the columns of W = (dU_j r) + U'^-1 dU_j' U r, for U with entries `before` and
// `own` in row i before the diagonal and on it. Both, and their m derivatives, are the same for all
// rows of one kind; the entry before the diagonal is zero for the first row of a series.
inline void neighbour_variates(Codes kind, ConstDoubles residuals, ConstDoubles before, ConstDoubles own,
                               ConstDoubles before_change, ConstDoubles own_change, Doubles products) {
    const std::int64_t n = static_cast<std::int64_t>(kind.shape(0));
    const std::int64_t m = static_cast<std::int64_t>(products.shape(0));
    const double *r = residuals.data();
    nb::gil_scoped_release release;
    std::vector<double> root(m, 0.0), row(m), partial(m * m, 0.0);
    std::fill(products.data(), products.data() + m * m, 0.0);
    // Partial sums of blocks of rows keep the rounding error small.
    constexpr std::int64_t block = 512;
    double next_before = 0.0, next_white = 0.0;
    std::vector<double> zero(m, 0.0);
    const double *next_change = zero.data();
    for (std::int64_t i = n - 1; i >= 0; --i) {
        const std::int64_t at = kind.data()[i];
        const double earlier = i > 0 ? r[i - 1] : 0.0;
        const double white = before.data()[at] * earlier + own.data()[at] * r[i];
        const double *change_before = before_change.data() + at * m;
        const double *change_own = own_change.data() + at * m;
        const double divisor = 1.0 / own.data()[at];
        for (std::int64_t j = 0; j < m; ++j) {
            const double back = change_own[j] * white + next_change[j] * next_white;
            root[j] = (back - next_before * root[j]) * divisor;
            row[j] = change_before[j] * earlier + change_own[j] * r[i] + root[j];
        }
        for (std::int64_t j = 0; j < m; ++j)
            for (std::int64_t l = 0; l <= j; ++l) partial[j * m + l] += row[j] * row[l];
        if (i % block == 0) {
            for (std::int64_t t = 0; t < m * m; ++t) products.data()[t] += partial[t];
            std::fill(partial.begin(), partial.end(), 0.0);
        }
        next_before = before.data()[at];
        next_white = white;
        next_change = change_before;
    }
    for (std::int64_t j = 0; j < m; ++j)
        for (std::int64_t l = 0; l < j; ++l) products.data()[l * m + j] = products.data()[j * m + l];
}

} // namespace kernels
