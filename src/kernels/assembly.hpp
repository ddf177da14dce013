// From rows to blocks: which levels occur together, and the cross-products of their columns.
#pragma once

#include "arrays.hpp"
#include "parallel.hpp"

#include <algorithm>
#include <stdexcept>

namespace kernels {

// Rows grouped by level: rows order[start[i]..start[i+1]) belong to level i, in their old order.
inline auto rows_by_level(Codes codes, std::int64_t n_levels) {
    const std::int64_t n = static_cast<std::int64_t>(codes.shape(0));
    std::vector<std::int64_t> start(n_levels + 1, 0);
    std::vector<std::int32_t> order(n);
    const std::int32_t *code = codes.data();
    {
        nb::gil_scoped_release release;
        for (std::int64_t row = 0; row < n; ++row) ++start[code[row] + 1];
        for (std::int64_t i = 0; i < n_levels; ++i) start[i + 1] += start[i];
        std::vector<std::int64_t> next(start.begin(), start.end() - 1);
        for (std::int64_t row = 0; row < n; ++row)
            order[next[code[row]]++] = static_cast<std::int32_t>(row);
    }
    return nb::make_tuple(owned_array(std::move(start)), owned_array(std::move(order)));
}

// parent[i] = the one level of `outer` that level i of `inner` occurs with; an empty array where
// some level occurs with two, that is, where inner is not nested in outer.
inline auto nesting_parents(Codes inner, std::int64_t n_inner, Codes outer) {
    std::vector<std::int32_t> parent(n_inner, -1);
    const std::int64_t n = static_cast<std::int64_t>(inner.shape(0));
    const std::int32_t *in = inner.data();
    const std::int32_t *out = outer.data();
    bool nested = true;
    {
        nb::gil_scoped_release release;
        for (std::int64_t row = 0; row < n && nested; ++row) {
            std::int32_t &p = parent[in[row]];
            if (p < 0)
                p = out[row];
            else
                nested = p == out[row];
        }
    }
    if (!nested) parent.clear();
    return owned_array(std::move(parent));
}

// For each level, the sorted scalar columns of the remainder [Z_rest X y] it occurs with. The columns
// of level j of rest factor g are rest_first[g][j] and those that follow; the last n_border columns
// are always there.
inline auto remainder_pattern(Offsets start, Codes order, std::vector<Codes> rest_codes,
                              std::vector<Codes> rest_first, std::vector<std::int64_t> rest_columns,
                              std::int64_t n_rest, std::int64_t n_border) {
    const std::int64_t n_levels = static_cast<std::int64_t>(start.shape(0)) - 1;
    std::vector<std::int64_t> ptr(n_levels + 1, 0);
    std::vector<std::int32_t> ind;
    {
        nb::gil_scoped_release release;
        std::vector<std::int64_t> seen(n_rest, -1);
        std::vector<std::int32_t> found;
        for (std::int64_t i = 0; i < n_levels; ++i) {
            found.clear();
            for (std::size_t g = 0; g < rest_codes.size(); ++g) {
                const std::int32_t *code = rest_codes[g].data(), *first = rest_first[g].data();
                for (std::int64_t s = start.data()[i]; s < start.data()[i + 1]; ++s) {
                    const std::int32_t column = first[code[order.data()[s]]];
                    if (seen[column] == i) continue;
                    seen[column] = i;
                    for (std::int32_t a = 0; a < rest_columns[g]; ++a) found.push_back(column + a);
                }
            }
            std::sort(found.begin(), found.end());
            ind.insert(ind.end(), found.begin(), found.end());
            for (std::int64_t c = 0; c < n_border; ++c)
                ind.push_back(static_cast<std::int32_t>(n_rest + c));
            ptr[i + 1] = static_cast<std::int64_t>(ind.size());
        }
    }
    return nb::make_tuple(owned_array(std::move(ptr)), owned_array(std::move(ind)));
}

// Where each pattern entry of an inner level sits in the pattern of the outer level above it.
inline auto relative_positions(Codes parent, Offsets inner_ptr, Codes inner_ind, Offsets outer_ptr,
                               Codes outer_ind) {
    std::vector<std::int32_t> relative(inner_ind.shape(0));
    const std::int64_t n_levels = static_cast<std::int64_t>(parent.shape(0));
    {
        nb::gil_scoped_release release;
        for (std::int64_t i = 0; i < n_levels; ++i) {
            const std::int64_t outer_begin = outer_ptr.data()[parent.data()[i]];
            std::int64_t at = outer_begin;
            for (std::int64_t c = inner_ptr.data()[i]; c < inner_ptr.data()[i + 1]; ++c) {
                while (outer_ind.data()[at] < inner_ind.data()[c]) ++at;
                relative[c] = static_cast<std::int32_t>(at - outer_begin);
            }
        }
    }
    return owned_array(std::move(relative));
}

// Cross-products of one block-diagonal factor: diag[i] = sum w z z' (k x k) and the panel of level
// i, k x (head + pattern): its products with the factors above it, the rest, and the border [X y].
inline void assemble_levels(Offsets start, Codes order, ConstDoubles z, ConstDoubles weights,
                            std::vector<ConstDoubles> head_z, std::vector<Codes> rest_codes,
                            std::vector<Codes> rest_first, std::vector<ConstDoubles> rest_z,
                            ConstDoubles border, std::int64_t n_rest, Offsets ptr, Codes ind, Doubles diag,
                            Doubles panel) {
    const std::int64_t n_levels = static_cast<std::int64_t>(start.shape(0)) - 1;
    const std::int64_t k = static_cast<std::int64_t>(z.shape(1));
    const std::int64_t n_border = static_cast<std::int64_t>(border.shape(1));
    const bool weighted = weights.shape(0) > 0;
    std::int64_t head = 0;
    for (auto &h : head_z) head += static_cast<std::int64_t>(h.shape(1));
    nb::gil_scoped_release release;
    const std::int64_t n_columns = k + head + static_cast<std::int64_t>(rest_z.size()) + n_border;
    const int threads =
        worthwhile_threads(8.0 * static_cast<double>(order.shape(0)) * k * n_columns);
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        auto range = [&](int, std::int64_t first, std::int64_t last) {
            std::vector<std::int32_t> position(n_rest, 0);
            Eigen::Matrix<double, K, 1> wz(k);
            for (std::int64_t i = first; i < last; ++i) {
                const std::int64_t begin = ptr.data()[i], m = ptr.data()[i + 1] - begin;
                for (std::int64_t c = 0; c < m - n_border; ++c)
                    position[ind.data()[begin + c]] = static_cast<std::int32_t>(c);
                SquareMap<K> D(diag.data() + i * k * k, k, k);
                PanelMap<K> G(panel.data() + k * (head * i + begin), k, head + m);
                D.setZero();
                G.setZero();
                for (std::int64_t s = start.data()[i]; s < start.data()[i + 1]; ++s) {
                    const std::int64_t row = order.data()[s];
                    if (weighted && weights.data()[row] == 0.0) continue;
                    Eigen::Map<const Eigen::Matrix<double, K, 1>> zi(z.data() + row * k, k);
                    wz = weighted ? Eigen::Matrix<double, K, 1>(weights.data()[row] * zi)
                                  : Eigen::Matrix<double, K, 1>(zi);
                    D.noalias() += wz * zi.transpose();
                    std::int64_t column = 0;
                    for (auto &h : head_z) {
                        const std::int64_t kh = static_cast<std::int64_t>(h.shape(1));
                        for (std::int64_t a = 0; a < kh; ++a)
                            G.col(column++) += wz * h.data()[row * kh + a];
                    }
                    for (std::size_t g = 0; g < rest_codes.size(); ++g) {
                        const std::int64_t kg = static_cast<std::int64_t>(rest_z[g].shape(1));
                        const std::int64_t at =
                            head + position[rest_first[g].data()[rest_codes[g].data()[row]]];
                        for (std::int64_t a = 0; a < kg; ++a)
                            G.col(at + a) += wz * rest_z[g].data()[row * kg + a];
                    }
                    for (std::int64_t c = 0; c < n_border; ++c)
                        G.col(head + m - n_border + c) += wz * border.data()[row * n_border + c];
                }
            }
        };
        parallel_ranges(
            n_levels, threads, [&](std::int64_t i) { return double(start.data()[i]); }, range);
    });
}

// Cross-products of the factors that stay in the dense remainder, and of those with the border:
// the lower triangle of the random rows and all border rows (columns: random only).
inline void assemble_remainder(std::vector<Codes> codes, std::vector<ConstDoubles> z,
                               std::vector<std::int64_t> offsets, ConstDoubles weights,
                               ConstDoubles border, std::int64_t n_rest, FortranDoubles A) {
    const std::int64_t n = static_cast<std::int64_t>(border.shape(0));
    const std::int64_t n_border = static_cast<std::int64_t>(border.shape(1));
    const std::int64_t size = static_cast<std::int64_t>(A.shape(0));
    const bool weighted = weights.shape(0) > 0;
    nb::gil_scoped_release release;
    std::vector<double> sums;
    for (std::size_t g = 0; g < codes.size(); ++g) {
        const std::int64_t kg = static_cast<std::int64_t>(z[g].shape(1));
        const std::int64_t end = g + 1 < codes.size() ? offsets[g + 1] : n_rest;
        const std::int64_t width = kg + n_border, levels = (end - offsets[g]) / kg;
        // A level's own products next to each other: in A every one of them is far from the others.
        sums.assign(levels * kg * width, 0.0);
        with_block_size(kg, [&](auto constant) {
            constexpr int K = decltype(constant)::value;
            const std::int64_t k = K == Eigen::Dynamic ? kg : K;
            for (std::int64_t row = 0; row < n; ++row) {
                const double w = weighted ? weights.data()[row] : 1.0;
                if (w == 0.0) continue;
                const double *zg = z[g].data() + row * k, *own = border.data() + row * n_border;
                const std::int64_t level = codes[g].data()[row], at = offsets[g] + k * level;
                for (std::int64_t b = 0; b < k; ++b) {
                    const double wz = w * zg[b];
                    double *to = sums.data() + (level * k + b) * width;
                    for (std::int64_t a = b; a < k; ++a) to[a] += wz * zg[a];
                    for (std::int64_t c = 0; c < n_border; ++c) to[k + c] += wz * own[c];
                    for (std::size_t h = g + 1; h < codes.size(); ++h) {
                        const std::int64_t kh = static_cast<std::int64_t>(z[h].shape(1));
                        const double *zh = z[h].data() + row * kh;
                        double *there = A.data() + (at + b) * size + offsets[h] +
                                        kh * codes[h].data()[row];
                        for (std::int64_t a = 0; a < kh; ++a) there[a] += wz * zh[a];
                    }
                }
            }
        });
        for (std::int64_t level = 0; level < levels; ++level)
            for (std::int64_t b = 0; b < kg; ++b) {
                const std::int64_t at = offsets[g] + kg * level;
                const double *from = sums.data() + (level * kg + b) * width;
                double *column = A.data() + (at + b) * size;
                for (std::int64_t a = b; a < kg; ++a) column[at + a] += from[a];
                for (std::int64_t c = 0; c < n_border; ++c) column[n_rest + c] += from[kg + c];
            }
    }
}

// sums[level, a, :] += z[row, a] * values[row, :], that is Z' values for one term.
inline void group_sums(Codes codes, ConstDoubles z, ConstDoubles values, Doubles sums) {
    const std::int64_t n = static_cast<std::int64_t>(codes.shape(0));
    const std::int64_t k = static_cast<std::int64_t>(z.shape(1));
    const std::int64_t m = static_cast<std::int64_t>(values.shape(1));
    nb::gil_scoped_release release;
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        const std::int64_t size = K == Eigen::Dynamic ? k : K;
        auto walk = [&](auto width) {
            for (std::int64_t row = 0; row < n; ++row) {
                double *to =
                    sums.data() + static_cast<std::int64_t>(codes.data()[row]) * size * width;
                const double *from = values.data() + row * width, *own = z.data() + row * size;
                for (std::int64_t a = 0; a < size; ++a)
                    for (std::int64_t c = 0; c < width; ++c) to[a * width + c] += own[a] * from[c];
            }
        };
        // A width the compiler knows leaves no inner loop.
        if (m == 1)
            walk(std::integral_constant<std::int64_t, 1>{});
        else
            walk(m);
    });
}

// values[row, :] += sum_a z[row, a] * effects[level, a, :], that is Z b for one term.
inline void expand_levels(Codes codes, ConstDoubles z, ConstDoubles effects, Doubles values) {
    const std::int64_t n = static_cast<std::int64_t>(codes.shape(0));
    const std::int64_t k = static_cast<std::int64_t>(z.shape(1));
    const std::int64_t m = static_cast<std::int64_t>(values.shape(1));
    nb::gil_scoped_release release;
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        const std::int64_t size = K == Eigen::Dynamic ? k : K;
        auto walk = [&](auto width) {
            for (std::int64_t row = 0; row < n; ++row) {
                const double *from =
                    effects.data() + static_cast<std::int64_t>(codes.data()[row]) * size * width;
                const double *own = z.data() + row * size;
                double *to = values.data() + row * width;
                for (std::int64_t a = 0; a < size; ++a)
                    for (std::int64_t c = 0; c < width; ++c) to[c] += own[a] * from[a * width + c];
            }
        };
        if (m == 1)
            walk(std::integral_constant<std::int64_t, 1>{});
        else
            walk(m);
    });
}

} // namespace kernels
