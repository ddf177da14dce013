// The sparse part of the remainder. A front is a run of s columns with the same m rows beyond them
// (J); its block, s x (s + m) column-major, holds its rows of the matrix over its own columns and
// over J. The arithmetic is that of a chain level with s columns, see elimination.hpp and
// selected_inverse.hpp: with Lambda = blockdiag of the nodes' T,
//     D = I + Lambda'K Lambda = L L',   U = L^-1 Lambda' G,   and K[J, J] loses U'U,
// so nothing beyond a front is scaled before its own turn and a singular T is no special case.
#pragma once

#include "arrays.hpp"
#include "blas.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace kernels {

// What Python hands over as one list: see mixedeffects.engine.fronts.Fronts.arrays.
struct FrontsView {
    const std::int64_t *first = nullptr, *ptr = nullptr, *at = nullptr, *below = nullptr;
    const std::int64_t *front_of = nullptr, *front_node = nullptr;
    const std::int64_t *node_first = nullptr, *node_factor = nullptr;
    std::int64_t count = 0, columns = 0;

    // No arrays: no fronts.
    explicit FrontsView(const std::vector<Offsets> &arrays) {
        if (arrays.size() != 8) return;
        first = arrays[0].data();
        ptr = arrays[1].data();
        at = arrays[2].data();
        below = arrays[3].data();
        front_of = arrays[4].data();
        front_node = arrays[5].data();
        node_first = arrays[6].data();
        node_factor = arrays[7].data();
        count = static_cast<std::int64_t>(arrays[0].shape(0)) - 1;
        columns = first[count];
    }
    std::int64_t width(std::int64_t f) const { return first[f + 1] - first[f]; }
    std::int64_t rows(std::int64_t f) const { return ptr[f + 1] - ptr[f]; }
    const std::int64_t *J(std::int64_t f) const { return below + ptr[f]; }

    // Column of front f's block where `row`, its own or one of J, stands; `hint` is a place in J to
    // look from, moved along, for rows asked for in increasing order.
    std::int64_t place(std::int64_t f, std::int64_t row, std::int64_t &hint) const {
        if (row < first[f + 1]) return row - first[f];
        const std::int64_t *list = J(f), m = rows(f);
        std::int64_t step = 1, low = hint;
        while (low + step < m && list[low + step] < row) {
            low += step;
            step *= 2;
        }
        hint = std::lower_bound(list + low, list + std::min(low + step + 1, m), row) - list;
        return width(f) + hint;
    }

    // Calls visit(a, offset) for a = b..m-1 with the offset of entry (J[b], J[a]) among the blocks;
    // J[b] must be a column of a front.
    template <class Index, class Visit>
    void entries(const Index *columns_of, std::int64_t m, std::int64_t b, Visit &&visit) const {
        const std::int64_t row = columns_of[b], f = front_of[row], s = width(f);
        std::int64_t hint = 0;
        for (std::int64_t a = b; a < m; ++a)
            visit(a, at[f] + place(f, columns_of[a], hint) * s + row - first[f]);
    }
};

// Relative covariance factors of the remainder's factors, one per node.
class NodeFactors {
  public:
    NodeFactors(const FrontsView &fronts, const std::vector<ConstDoubles> &T)
        : fronts_(fronts), T_(T) {}

    // rows of A (s x n, leading dimension s) <- Lambda' A, or Lambda A.
    void scale_rows(std::int64_t f, double *A, std::int64_t n, bool transposed) const {
        const std::int64_t s = fronts_.width(f);
        for_nodes(f, [&](std::int64_t, std::int64_t row, std::int64_t k, const double *t) {
            for (std::int64_t c = 0; c < n; ++c) multiply(t, k, A + c * s + row, 1, transposed);
        });
    }

    // columns of A (s x s) <- A Lambda.
    void scale_columns(std::int64_t f, double *A) const {
        const std::int64_t s = fronts_.width(f);
        for_nodes(f, [&](std::int64_t, std::int64_t column, std::int64_t k, const double *t) {
            for (std::int64_t r = 0; r < s; ++r) multiply(t, k, A + column * s + r, s, true);
        });
    }

    // Calls visit(factor, first own row, k, T) for the nodes of front f.
    template <class Visit> void for_nodes(std::int64_t f, Visit &&visit) const {
        for (std::int64_t v = fronts_.front_node[f]; v < fronts_.front_node[f + 1]; ++v) {
            const std::int64_t factor = fronts_.node_factor[v];
            visit(factor, fronts_.node_first[v] - fronts_.first[f],
                  static_cast<std::int64_t>(T_[factor].shape(0)), T_[factor].data());
        }
    }

  private:
    // x (k values, `stride` apart) <- T'x if transposed, else T x; T is row-major.
    void multiply(const double *t, std::int64_t k, double *x, std::int64_t stride,
                  bool transposed) const {
        if (k == 1) {
            *x *= *t;
            return;
        }
        scratch_.resize(k);
        for (std::int64_t a = 0; a < k; ++a) {
            double sum = 0.0;
            for (std::int64_t b = 0; b < k; ++b)
                sum += (transposed ? t[b * k + a] : t[a * k + b]) * x[b * stride];
            scratch_[a] = sum;
        }
        for (std::int64_t a = 0; a < k; ++a) x[a * stride] = scratch_[a];
    }

    const FrontsView &fronts_;
    const std::vector<ConstDoubles> &T_;
    mutable std::vector<double> scratch_;
};

// Walks the rows J of front f in runs that belong to one front, then, in chunks, those of the dense
// core: in_front(a, x, w, places) has rows J[x .. x + w) in front a and the block columns of
// J[x .. m) there; in_core(x, w) has J[x .. x + w) in the core.
template <class InFront, class InCore>
void for_runs(const FrontsView &fronts, std::int64_t f, std::int64_t m, InFront &&in_front,
              InCore &&in_core) {
    constexpr std::int64_t chunk = 256;
    const std::int64_t *J = fronts.J(f);
    std::vector<std::int64_t> places;
    std::int64_t x = 0;
    while (x < m && J[x] < fronts.columns) {
        const std::int64_t a = fronts.front_of[J[x]];
        std::int64_t end = x, hint = 0;
        while (end < m && J[end] < fronts.first[a + 1]) ++end;
        places.clear();
        for (std::int64_t e = x; e < m; ++e) places.push_back(fronts.place(a, J[e], hint));
        in_front(a, x, end - x, places);
        x = end;
    }
    for (; x < m; x += chunk) in_core(x, std::min(chunk, m - x));
}

// What the levels of a chain factor take off the remainder's sparse rows: entries U_b'U_a.
inline void subtract_from_fronts(ConstDoubles U, Offsets ptr, Codes ind, std::int64_t head,
                                 std::int64_t k, std::vector<Offsets> arrays, Doubles values) {
    const FrontsView fronts(arrays);
    const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    nb::gil_scoped_release release;
    double *to = values.data();
    for (std::int64_t i = 0; i < n_levels; ++i) {
        const std::int64_t begin = ptr.data()[i], m = ptr.data()[i + 1] - begin;
        const double *u = U.data() + k * (head * (i + 1) + begin);
        const std::int32_t *J = ind.data() + begin;
        for (std::int64_t b = 0; b < m && J[b] < fronts.columns; ++b)
            fronts.entries(J, m, b, [&](std::int64_t a, std::int64_t entry) {
                double product = 0.0;
                for (std::int64_t j = 0; j < k; ++j) product += u[b * k + j] * u[a * k + j];
                to[entry] -= product;
            });
    }
}

// Where the entries (row[t], column[t]) of the remainder lie among the blocks; row <= column.
inline auto front_entries(std::vector<Offsets> arrays, Codes rows, Codes columns) {
    const FrontsView fronts(arrays);
    std::vector<std::int64_t> offsets(rows.shape(0));
    for (std::size_t t = 0; t < rows.shape(0); ++t) {
        const std::int64_t row = rows.data()[t], f = fronts.front_of[row];
        std::int64_t hint = 0;
        offsets[t] = fronts.at[f] + fronts.place(f, columns.data()[t], hint) * fronts.width(f) +
                     row - fronts.first[f];
    }
    return owned_array(std::move(offsets));
}

// Eliminates all fronts. `values` holds their rows of K on entry (upper triangle of their own
// columns) and what was left of them at their turn on return; L and U go to `factors`; what they
// take off the core comes off its lower triangle. Returns the sum of log det D.
inline double eliminate_fronts(std::vector<ConstDoubles> T, std::vector<Offsets> arrays,
                               Doubles values, Doubles factors, FortranDoubles core) {
    const FrontsView fronts(arrays);
    const NodeFactors lambda(fronts, T);
    const std::int64_t core_rows = static_cast<std::int64_t>(core.shape(0));
    double logdet = 0.0;
    bool definite = true;
    {
        nb::gil_scoped_release release;
        std::vector<double> buffer;
        for (std::int64_t f = 0; f < fronts.count && definite; ++f) {
            const std::int64_t s = fronts.width(f), m = fronts.rows(f), *J = fronts.J(f);
            double *K = values.data() + fronts.at[f], *L = factors.data() + fronts.at[f];
            for (std::int64_t c = 0; c < s; ++c)
                for (std::int64_t r = 0; r < c; ++r) K[r * s + c] = K[c * s + r];
            std::copy(K, K + s * (s + m), L);
            lambda.scale_rows(f, L, s + m, true);
            lambda.scale_columns(f, L);
            for (std::int64_t c = 0; c < s; ++c) L[c * s + c] += 1.0;
            definite = blas::cholesky(s, L, s);
            if (!definite) break;
            for (std::int64_t c = 0; c < s; ++c) logdet += 2.0 * std::log(L[c * s + c]);
            double *U = L + s * s;
            blas::solve_lower(false, s, m, L, s, U, s);
            for_runs(
                fronts, f, m,
                [&](std::int64_t a, std::int64_t x, std::int64_t w,
                    const std::vector<std::int64_t> &places) {
                    const std::int64_t rest = m - x, sa = fronts.width(a);
                    buffer.resize(w * rest);
                    blas::gemm(true, false, w, rest, s, 1.0, U + x * s, s, U + x * s, s, 0.0,
                               buffer.data(), w);
                    double *to = values.data() + fronts.at[a];
                    for (std::int64_t e = 0; e < rest; ++e)
                        for (std::int64_t r = 0; r < w; ++r)
                            to[places[e] * sa + J[x + r] - fronts.first[a]] -= buffer[e * w + r];
                },
                [&](std::int64_t x, std::int64_t w) {
                    const std::int64_t rest = m - x;
                    buffer.resize(rest * w);
                    blas::gemm(true, false, rest, w, s, 1.0, U + x * s, s, U + x * s, s, 0.0,
                               buffer.data(), rest);
                    for (std::int64_t c = 0; c < w; ++c) {
                        double *to = core.data() + (J[x + c] - fronts.columns) * core_rows;
                        for (std::int64_t e = c; e < rest; ++e)
                            to[J[x + e] - fronts.columns] -= buffer[c * rest + e];
                    }
                });
        }
    }
    if (!definite || !std::isfinite(logdet))
        throw std::runtime_error("a front of the remainder is not positive definite");
    return logdet;
}

// Forward substitution: rows of the fronts become L^-1 Lambda' rhs, and what follows from them is
// taken off the later rows that `rhs` (rows x columns) has.
inline void forward_fronts(std::vector<ConstDoubles> T, std::vector<Offsets> arrays,
                           ConstDoubles factors, Doubles rhs) {
    const FrontsView fronts(arrays);
    const NodeFactors lambda(fronts, T);
    const std::int64_t n_rows = static_cast<std::int64_t>(rhs.shape(0));
    const std::int64_t columns = static_cast<std::int64_t>(rhs.shape(1));
    nb::gil_scoped_release release;
    Eigen::MatrixXd own;
    for (std::int64_t f = 0; f < fronts.count; ++f) {
        const std::int64_t s = fronts.width(f), m = fronts.rows(f), *J = fronts.J(f);
        const double *L = factors.data() + fronts.at[f], *U = L + s * s;
        RowMajorMap rows(rhs.data() + fronts.first[f] * columns, s, columns);
        own = rows;
        lambda.scale_rows(f, own.data(), columns, true);
        blas::solve_lower(false, s, columns, L, s, own.data(), s);
        rows = own;
        for (std::int64_t e = 0; e < m && J[e] < n_rows; ++e) {
            Eigen::Map<const Eigen::VectorXd> u(U + e * s, s);
            Eigen::Map<Eigen::RowVectorXd> to(rhs.data() + J[e] * columns, columns);
            to.noalias() -= u.transpose() * own;
        }
    }
}

// Back substitution: rows of the fronts become Lambda L^-T (solved - U b[J]), from the last front to
// the first; b[J] is already there.
inline void backward_fronts(std::vector<ConstDoubles> T, std::vector<Offsets> arrays,
                            ConstDoubles factors, Doubles values) {
    const FrontsView fronts(arrays);
    const NodeFactors lambda(fronts, T);
    const std::int64_t n_rows = static_cast<std::int64_t>(values.shape(0));
    const std::int64_t columns = static_cast<std::int64_t>(values.shape(1));
    nb::gil_scoped_release release;
    Eigen::MatrixXd own;
    for (std::int64_t f = fronts.count - 1; f >= 0; --f) {
        const std::int64_t s = fronts.width(f), m = fronts.rows(f), *J = fronts.J(f);
        const double *L = factors.data() + fronts.at[f], *U = L + s * s;
        RowMajorMap rows(values.data() + fronts.first[f] * columns, s, columns);
        own = rows;
        for (std::int64_t e = 0; e < m && J[e] < n_rows; ++e) {
            Eigen::Map<const Eigen::VectorXd> u(U + e * s, s);
            Eigen::Map<const Eigen::RowVectorXd> b(values.data() + J[e] * columns, columns);
            own.noalias() -= u * b;
        }
        blas::solve_lower(true, s, columns, L, s, own.data(), s);
        lambda.scale_rows(f, own.data(), columns, false);
        rows = own;
    }
}

// Rows of the fronts, as they were at their turn, times v over their own columns and what lies
// beyond them.
inline void multiply_front_rows(std::vector<Offsets> arrays, ConstDoubles values, ConstDoubles v,
                                Doubles product) {
    const FrontsView fronts(arrays);
    nb::gil_scoped_release release;
    for (std::int64_t f = 0; f < fronts.count; ++f) {
        const std::int64_t s = fronts.width(f), m = fronts.rows(f), *J = fronts.J(f);
        Eigen::Map<const Eigen::MatrixXd> block(values.data() + fronts.at[f], s, s + m);
        Eigen::Map<Eigen::VectorXd> out(product.data() + fronts.first[f], s);
        out.noalias() =
            block.leftCols(s) * Eigen::Map<const Eigen::VectorXd>(v.data() + fronts.first[f], s);
        for (std::int64_t e = 0; e < m; ++e) out += block.col(s + e) * v.data()[J[e]];
    }
}

// The selected inverse of the fronts, from the last to the first: P gets their blocks of
// L~ M^-1 L~'; N_sums and B_sums (one k x k matrix per factor) gain the sums over their nodes.
// core_P is P on the core's columns that count (those before n_remainder).
inline void selected_inverse_fronts(std::vector<ConstDoubles> T, std::vector<Offsets> arrays,
                                    ConstDoubles values, ConstDoubles factors,
                                    ConstFortranDoubles core_P, std::int64_t n_remainder, Doubles P,
                                    std::vector<Doubles> N_sums, std::vector<Doubles> B_sums) {
    using Map = Eigen::Map<Eigen::MatrixXd>;
    const FrontsView fronts(arrays);
    const NodeFactors lambda(fronts, T);
    const std::int64_t core_rows = static_cast<std::int64_t>(core_P.shape(0));
    nb::gil_scoped_release release;
    std::vector<double> buffer, GP, work;
    for (std::int64_t f = fronts.count - 1; f >= 0; --f) {
        const std::int64_t s = fronts.width(f), *J = fronts.J(f), ss = s * s;
        std::int64_t m = fronts.rows(f);
        const std::int64_t stored = m;
        while (m > 0 && J[m - 1] >= n_remainder) --m;
        const double *K = values.data() + fronts.at[f], *G = K + ss;
        const double *L = factors.data() + fronts.at[f];
        GP.assign(s * m, 0.0);
        for_runs(
            fronts, f, m,
            [&](std::int64_t a, std::int64_t x, std::int64_t w,
                const std::vector<std::int64_t> &places) {
                const std::int64_t rest = m - x, sa = fronts.width(a);
                buffer.resize(w * rest);
                const double *from = P.data() + fronts.at[a];
                for (std::int64_t e = 0; e < rest; ++e)
                    for (std::int64_t r = 0; r < w; ++r)
                        buffer[e * w + r] = from[places[e] * sa + J[x + r] - fronts.first[a]];
                blas::gemm(false, true, s, w, rest, 1.0, G + x * s, s, buffer.data(), w, 1.0,
                           GP.data() + x * s, s);
                blas::gemm(false, false, s, rest - w, w, 1.0, G + x * s, s, buffer.data() + w * w,
                           w, 1.0, GP.data() + (x + w) * s, s);
            },
            [&](std::int64_t x, std::int64_t w) {
                const std::int64_t rest = m - x;
                buffer.resize(rest * w);
                for (std::int64_t c = 0; c < w; ++c) {
                    const double *from = core_P.data() + (J[x + c] - fronts.columns) * core_rows;
                    for (std::int64_t e = 0; e < rest; ++e)
                        buffer[c * rest + e] = from[J[x + e] - fronts.columns];
                }
                blas::gemm(false, false, s, w, rest, 1.0, G + x * s, s, buffer.data(), rest, 1.0,
                           GP.data() + x * s, s);
                blas::gemm(false, true, s, rest - w, w, 1.0, G + x * s, s, buffer.data() + w, rest,
                           1.0, GP.data() + (x + w) * s, s);
            });
        work.resize(8 * ss);
        double *Q = work.data(), *half = Q + ss, *DT = half + ss, *E = DT + ss, *KE = E + ss;
        double *RQ = KE + ss, *EQ = RQ + ss, *R = EQ + ss;
        blas::gemm(false, true, s, s, m, 1.0, GP.data(), s, G, s, 0.0, Q, s);
        if (m == 0) std::fill(Q, Q + ss, 0.0);
        // half = L^-1 Lambda', DT = D^-1 Lambda', E = Lambda D^-1 Lambda'
        std::fill(half, half + ss, 0.0);
        for (std::int64_t c = 0; c < s; ++c) half[c * s + c] = 1.0;
        lambda.scale_rows(f, half, s, true);
        blas::solve_lower(false, s, s, L, s, half, s);
        std::copy(half, half + ss, DT);
        blas::solve_lower(true, s, s, L, s, DT, s);
        blas::gemm(true, false, s, s, s, 1.0, half, s, half, s, 0.0, E, s);
        blas::gemm(false, false, s, s, s, 1.0, K, s, E, s, 0.0, KE, s);
        // R = I - K E
        for (std::int64_t c = 0; c < ss; ++c) R[c] = -KE[c];
        for (std::int64_t c = 0; c < s; ++c) R[c * s + c] += 1.0;
        blas::gemm(false, false, s, s, s, 1.0, R, s, Q, s, 0.0, RQ, s);
        Map k_map(const_cast<double *>(K), s, s), rq(RQ, s, s), dt(DT, s, s), ke(KE, s, s);
        Map r_map(R, s, s);
        lambda.for_nodes(f, [&](std::int64_t factor, std::int64_t row, std::int64_t k,
                                const double *) {
            RowMajorMap n_sum(N_sums[factor].data(), k, k), b_sum(B_sums[factor].data(), k, k);
            n_sum += (k_map.middleRows(row, k) - rq.middleRows(row, k)) *
                     dt.middleRows(row, k).transpose();
            b_sum += k_map.block(row, row, k, k) -
                     ke.middleRows(row, k) * k_map.middleCols(row, k) -
                     rq.middleRows(row, k) * r_map.middleRows(row, k).transpose();
        });
        double *out = P.data() + fronts.at[f];
        blas::gemm(false, false, s, s, s, 1.0, E, s, Q, s, 0.0, EQ, s);
        std::copy(E, E + ss, out);
        blas::gemm(false, false, s, s, s, 1.0, EQ, s, E, s, 1.0, out, s);
        blas::gemm(false, false, s, m, s, -1.0, E, s, GP.data(), s, 0.0, out + ss, s);
        std::fill(out + ss + m * s, out + ss + stored * s, 0.0);
    }
}

} // namespace kernels
