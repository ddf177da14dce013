// Entries of P = L~ M^-1 L~' on A's own pattern, level by level, from the remainder downwards, and
// the sums over levels that the gradient needs. With E = T D^-1 T', G the panel of a level and Q =
// G P[J, J] G' over what the level touches:
//     P_ii = E + E Q E,                    P_iJ = -E G P[J, J],
//     B_ii = [Z'PZ]_ii = (A - A E A) - (I - A E) Q (I - E A),
//     N_ii = B_ii T    = (A - (I - A E) Q) T D^-1      (no division by T: exact at a singular T).
#pragma once

#include "arrays.hpp"
#include "fronts.hpp"
#include "parallel.hpp"

#include <Eigen/LU>

namespace kernels {

inline void selected_inverse_levels(ConstDoubles T, ConstDoubles diag, ConstDoubles panel,
                                    ConstDoubles L, Offsets ptr, Codes ind,
                                    std::vector<Codes> parents, std::vector<Codes> relatives,
                                    std::vector<ConstDoubles> outer_P,
                                    std::vector<ConstDoubles> outer_P_panel,
                                    std::vector<Offsets> outer_ptr, ConstFortranDoubles core_P,
                                    std::vector<Offsets> front_arrays, ConstDoubles front_P,
                                    std::int64_t n_remainder, Doubles P, Doubles P_panel,
                                    Doubles N_sum, Doubles B_sum) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    const std::int64_t size = static_cast<std::int64_t>(core_P.shape(0));
    const FrontsView fronts(front_arrays);
    const bool keep_panel = P_panel.size() > 0, keep_P = P.size() > 0;
    const std::size_t n_outer = outer_P.size();
    std::vector<std::int64_t> k_outer(n_outer), at_outer(n_outer);
    std::int64_t head = 0;
    for (std::size_t g = 0; g < n_outer; ++g) {
        at_outer[g] = head;
        k_outer[g] = static_cast<std::int64_t>(outer_P[g].shape(1));
        head += k_outer[g];
    }
    nb::gil_scoped_release release;
    std::int64_t widest = 0;
    std::vector<double> work(n_levels + 1, 0.0);
    for (std::int64_t i = 0; i < n_levels; ++i) {
        const std::int64_t m = ptr.data()[i + 1] - ptr.data()[i];
        widest = std::max(widest, m);
        work[i + 1] = work[i] + double(head + m) * (head + m) * (1 + k) + 10.0 * k * k * k;
    }
    const int threads = worthwhile_threads(work[n_levels]);
    std::vector<double> sums(2 * threads * k * k);
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        const SquareMatrix<K> t = ConstSquareMap<K>(T.data(), k, k);
        const SquareMatrix<K> identity = SquareMatrix<K>::Identity(k, k);
        auto range = [&](int thread, std::int64_t first, std::int64_t last) {
            std::vector<double> buffer((head + widest) * (head + widest));
            SquareMatrix<K> n_total = SquareMatrix<K>::Zero(k, k), b_total = n_total;
            SquareMatrix<K> half(k, k), E(k, k), TD(k, k), Q(k, k), rest(k, k), root(k, k),
                Li(k, k);
            Panel<K> GP;
            for (std::int64_t i = first; i < last; ++i) {
                const std::int64_t begin = ptr.data()[i];
                std::int64_t m = ptr.data()[i + 1] - begin;
                const std::int64_t stored = m;
                const std::int32_t *at = ind.data() + begin;
                while (m > 0 && at[m - 1] >= n_remainder) --m;
                const std::int64_t width = head + m;
                Eigen::Map<Eigen::MatrixXd> PJJ(buffer.data(), width, width);
                for (std::size_t g = 0; g < n_outer; ++g) {
                    const std::int64_t j = parents[g].data()[i], kg = k_outer[g], row = at_outer[g];
                    PJJ.block(row, row, kg, kg) =
                        ConstRowMajorMap(outer_P[g].data() + j * kg * kg, kg, kg);
                    const std::int64_t outer_head = head - row - kg;
                    Eigen::Map<const Eigen::MatrixXd> above(
                        outer_P_panel[g].data() + kg * (outer_head * j + outer_ptr[g].data()[j]),
                        kg, outer_head + outer_ptr[g].data()[j + 1] - outer_ptr[g].data()[j]);
                    for (std::int64_t c = 0; c < outer_head; ++c) {
                        PJJ.block(row, row + kg + c, kg, 1) = above.col(c);
                        PJJ.block(row + kg + c, row, 1, kg) = above.col(c).transpose();
                    }
                    for (std::int64_t c = 0; c < m; ++c) {
                        const std::int64_t from = outer_head + relatives[g].data()[begin + c];
                        PJJ.block(row, head + c, kg, 1) = above.col(from);
                        PJJ.block(head + c, row, 1, kg) = above.col(from).transpose();
                    }
                }
                std::int64_t c = 0;
                for (; c < m && at[c] < fronts.columns; ++c)
                    fronts.entries(at, m, c, [&](std::int64_t a, std::int64_t entry) {
                        PJJ(head + a, head + c) = PJJ(head + c, head + a) = front_P.data()[entry];
                    });
                const std::int64_t dense = c;
                auto core_column = [&](std::int64_t b) {
                    return core_P.data() + (at[b] - fronts.columns) * size - fronts.columns;
                };
                ConstPanelMap<K> G(panel.data() + k * (head * i + begin), k, width);
                if (K == 1 && head == 0 && dense == 0) {
                    // P is read once and not copied.
                    GP.setZero(1, m);
                    const double *g = G.data();
                    double *to = GP.data();
                    for (std::int64_t b = 0; b < m; ++b) {
                        const double *column = core_column(b);
                        double own = column[at[b]] * g[b];
                        for (std::int64_t a = b + 1; a < m; ++a) {
                            const double entry = column[at[a]];
                            own += entry * g[a];
                            to[a] += entry * g[b];
                        }
                        to[b] += own;
                    }
                    Q.noalias() = GP * G.transpose();
                } else {
                    for (; c < m; ++c) {
                        const double *column = core_column(c);
                        double *to = buffer.data() + (head + c) * width + head;
                        for (std::int64_t a = c; a < m; ++a) to[a] = column[at[a]];
                        for (std::int64_t a = c + 1; a < m; ++a)
                            PJJ(head + c, head + a) = to[a];
                    }
                    if (width > 0) {
                        GP.noalias() = G * PJJ;
                        Q.noalias() = GP * G.transpose();
                    } else {
                        Q.setZero();
                    }
                }
                ConstSquareMap<K> A(diag.data() + i * k * k, k, k);
                Li = ConstSquareMap<K>(L.data() + i * k * k, k, k);
                half = Li.template triangularView<Eigen::Lower>().solve(
                    SquareMatrix<K>(t.transpose()));
                E.noalias() = half.transpose() * half;
                TD = Li.transpose().template triangularView<Eigen::Upper>().solve(half).transpose();
                rest = identity - A * E;
                n_total += (A - rest * Q) * TD;
                root.noalias() = half * A;
                b_total += A - root.transpose() * root - rest * Q * rest.transpose();
                if (keep_P) SquareMap<K>(P.data() + i * k * k, k, k) = E + E * Q * E;
                if (keep_panel) {
                    PanelMap<K> out(P_panel.data() + k * (head * i + begin), k, head + stored);
                    if (width > 0) out.leftCols(width) = -(E * GP);
                    out.rightCols(stored - m).setZero();
                }
            }
            SquareMap<K>(sums.data() + 2 * thread * k * k, k, k) = n_total;
            SquareMap<K>(sums.data() + (2 * thread + 1) * k * k, k, k) = b_total;
        };
        parallel_ranges(n_levels, threads, [&](std::int64_t i) { return work[i]; }, range);
    });
    std::fill(N_sum.data(), N_sum.data() + k * k, 0.0);
    std::fill(B_sum.data(), B_sum.data() + k * k, 0.0);
    for (int thread = 0; thread < threads; ++thread)
        for (std::int64_t a = 0; a < k * k; ++a) {
            N_sum.data()[a] += sums[2 * thread * k * k + a];
            B_sum.data()[a] += sums[(2 * thread + 1) * k * k + a];
        }
}

} // namespace kernels
