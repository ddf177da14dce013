// What a generalized model needs of every row: the log-likelihood with its derivatives by the linear
// predictor, leverages, and the sums of second derivatives. One pass over the rows each.
#pragma once

#include <array>
#include <cmath>
#include <limits>

#include "arrays.hpp"
#include "parallel.hpp"

namespace kernels {

using ConstPlaces = nb::ndarray<const std::int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Rows that are worked on together: loops over them have no branches, and are vectorised.
constexpr int row_block = 256;

// Of such rows, for a trial: log-likelihood, its derivative, minus its second one, and that one's
// first and second derivatives.
using RowBlock = std::array<std::array<double, row_block>, 5>;

// log(1 + x) for 0 <= x <= 1: with c near x, log(1 + c) + log(1 + (x - c) / (1 + c)), and the latter
// is 2 atanh of less than 1/9 in size. Digits are kept where x is small.
inline double log_of_one_and(double x) {
    const double c = x < 0.25 ? 0.0 : (x < 0.75 ? 0.5 : 1.0);
    const double start = x < 0.25 ? 0.0 : (x < 0.75 ? 0.40546510810816438198 : 0.69314718055994530942);
    const double s = (x - c) / (2.0 + c + x), t = s * s;
    const double tail = 1.0 / 9 + t * (1.0 / 11 + t * (1.0 / 13 + t * (1.0 / 15 + t * (1.0 / 17))));
    const double series = 1.0 + t * (1.0 / 3 + t * (1.0 / 5 + t * (1.0 / 7 + t * tail)));
    return start + 2.0 * s * series;
}

// Calls fill(first, count, block) for blocks of rows, and writes d = -2 w value and the others times
// w; where d is not finite it is infinite and the others are zero.
template <class Fill>
void each_row(ConstDoubles weights, Doubles d, Doubles r, Doubles W, Doubles W1, Doubles W2,
              Fill &&fill) {
    const std::int64_t n = static_cast<std::int64_t>(d.shape(0));
    const double *w = weights.shape(0) > 0 ? weights.data() : nullptr;
    std::array<double *, 5> outputs{d.data(), r.data(), W.data(), W1.data(),
                                    W2.shape(0) > 0 ? W2.data() : nullptr};
    nb::gil_scoped_release release;
    parallel_ranges(
        n, worthwhile_threads(40.0 * static_cast<double>(n)), [](std::int64_t i) { return double(i); },
        [&](int, std::int64_t begin, std::int64_t end) {
            RowBlock block;
            for (std::int64_t first = begin; first < end; first += row_block) {
                const int count = static_cast<int>(std::min<std::int64_t>(row_block, end - first));
                fill(first, count, block);
                double total = 0.0;
                for (int t = 0; t < 5; ++t) {
                    if (!outputs[t]) continue;
                    const double factor = t == 0 ? -2.0 : 1.0;
                    const double *__restrict from = block[t].data();
                    double *__restrict to = outputs[t] + first;
                    if (w)
                        for (int i = 0; i < count; ++i) to[i] = factor * w[first + i] * from[i];
                    else
                        for (int i = 0; i < count; ++i) to[i] = factor * from[i];
                    if (t == 0)
                        for (int i = 0; i < count; ++i) total += to[i];
                }
                // A sum is infinite or NaN if any of its terms is.
                if (std::isfinite(total)) continue;
                for (std::int64_t i = first; i < first + count; ++i) {
                    if (std::isfinite(outputs[0][i])) continue;
                    for (double *output : outputs)
                        if (output) output[i] = 0.0;
                    outputs[0][i] = std::numeric_limits<double>::infinity();
                }
            }
        });
}

// Successes among trials with a logit link; no trials: one each. `ways` is the logarithm of the
// binomial coefficient. One exponential for everything, and differences that keep digits far out.
inline void logit_rows(ConstDoubles y, ConstDoubles trials, ConstDoubles ways, ConstDoubles weights,
                       ConstDoubles eta, Doubles d, Doubles r, Doubles W, Doubles W1, Doubles W2) {
    const bool has_trials = trials.shape(0) > 0;
    each_row(weights, d, r, W, W1, W2, [&](std::int64_t first, int count, RowBlock &block) {
        std::array<double, row_block> exponentials;
        const double *__restrict eta_ = eta.data() + first, *__restrict y_ = y.data() + first;
        double *__restrict e = exponentials.data(), *__restrict value = block[0].data();
        double *__restrict slope = block[1].data(), *__restrict weight = block[2].data();
        double *__restrict once = block[3].data(), *__restrict twice = block[4].data();
        for (int i = 0; i < count; ++i) e[i] = std::exp(-std::abs(eta_[i]));
        for (int i = 0; i < count; ++i) {
            const double at = eta_[i], share = y_[i];
            const double tail = 1.0 / (1.0 + e[i]), rest = e[i] * tail, pq = rest * tail;
            const double p = at >= 0.0 ? tail : rest, q = at >= 0.0 ? rest : tail;
            value[i] = share * at - (at >= 0.0 ? at : 0.0) - log_of_one_and(e[i]);
            slope[i] = share * q - (1.0 - share) * p;
            weight[i] = pq;
            once[i] = pq * (q - p);
            twice[i] = pq * (1.0 - 6.0 * pq);
        }
        if (!has_trials) return;
        for (auto &terms : block)
            for (int i = 0; i < count; ++i) terms[i] *= trials.data()[first + i];
        for (int i = 0; i < count; ++i) value[i] += ways.data()[first + i];
    });
}

// Counts with a log link; `factorials` are the logarithms of y!.
inline void log_rows(ConstDoubles y, ConstDoubles factorials, ConstDoubles weights, ConstDoubles eta,
                     Doubles d, Doubles r, Doubles W, Doubles W1, Doubles W2) {
    each_row(weights, d, r, W, W1, W2, [&](std::int64_t first, int count, RowBlock &block) {
        const double *eta_ = eta.data() + first, *y_ = y.data() + first;
        const double *constant = factorials.data() + first;
        for (int i = 0; i < count; ++i) block[2][i] = std::exp(eta_[i]);
        for (int i = 0; i < count; ++i) {
            const double mu = block[2][i];
            block[0][i] = y_[i] * eta_[i] - mu - constant[i];
            block[1][i] = y_[i] - mu;
            block[3][i] = block[4][i] = mu;
        }
    });
}

// h[row] += factor * left[row]' V right[row] for blocks V that start at `first` of each row, the
// right index fastest.
inline void add_block_forms(ConstDoubles values, Offsets first, ConstDoubles left, ConstDoubles right,
                            double factor, Doubles h) {
    const std::int64_t n = static_cast<std::int64_t>(first.shape(0));
    const std::int64_t a = static_cast<std::int64_t>(left.shape(1));
    const std::int64_t b = static_cast<std::int64_t>(right.shape(1));
    nb::gil_scoped_release release;
    parallel_ranges(
        n, worthwhile_threads(4.0 * static_cast<double>(n) * a * b),
        [](std::int64_t i) { return double(i); },
        [&](int, std::int64_t begin, std::int64_t end) {
            with_block_size(b, [&](auto constant) {
                constexpr int B = decltype(constant)::value;
                const std::int64_t width = B == Eigen::Dynamic ? b : B;
                for (std::int64_t i = begin; i < end; ++i) {
                    const double *V = values.data() + first.data()[i];
                    const double *x = left.data() + i * a, *y = right.data() + i * width;
                    double form = 0.0;
                    for (std::int64_t s = 0; s < a; ++s) {
                        double inner = 0.0;
                        for (std::int64_t t = 0; t < width; ++t) inner += V[s * width + t] * y[t];
                        form += x[s] * inner;
                    }
                    h.data()[i] += factor * form;
                }
            });
        });
}

// h[row] += sum_j values[places[row, j]] * weights[row, j].
inline void add_gathered(ConstDoubles values, ConstPlaces places, ConstDoubles weights, Doubles h) {
    const std::int64_t n = static_cast<std::int64_t>(places.shape(0));
    const std::int64_t m = static_cast<std::int64_t>(places.shape(1));
    nb::gil_scoped_release release;
    parallel_ranges(
        n, worthwhile_threads(4.0 * static_cast<double>(n) * m),
        [](std::int64_t i) { return double(i); },
        [&](int, std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
                double sum = 0.0;
                for (std::int64_t j = i * m; j < (i + 1) * m; ++j)
                    sum += values.data()[places.data()[j]] * weights.data()[j];
                h.data()[i] += sum;
            }
        });
}

// For one factor, with eta_j = Z b_j for j < m - p and x_j + Z b_j for the p columns of X: sums over
// the rows of every level of z W eta_j, C (l, k, m), and of z W' eta_j z', S (l, k, k, m); and over
// all rows of v eta_j eta_i, H (m, m).
inline void curvature_sums(Codes codes, ConstDoubles z, ConstDoubles X, ConstDoubles b, ConstDoubles W,
                           ConstDoubles W1, ConstDoubles v, Doubles C, Doubles S, Doubles H) {
    const std::int64_t n = static_cast<std::int64_t>(codes.shape(0));
    const std::int64_t k = static_cast<std::int64_t>(z.shape(1));
    const std::int64_t p = static_cast<std::int64_t>(X.shape(1));
    const std::int64_t m = static_cast<std::int64_t>(b.shape(2));
    nb::gil_scoped_release release;
    std::fill(C.data(), C.data() + C.size(), 0.0);
    std::fill(S.data(), S.data() + S.size(), 0.0);
    std::fill(H.data(), H.data() + m * m, 0.0);
    // Partial sums of blocks of rows keep the rounding error small.
    constexpr std::int64_t block = 512;
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        const std::int64_t size = K == Eigen::Dynamic ? k : K;
        std::vector<double> eta(m), of_v(m), partial(m * m);
        for (std::int64_t begin = 0; begin < n; begin += block) {
            std::fill(partial.begin(), partial.end(), 0.0);
            for (std::int64_t i = begin; i < std::min(begin + block, n); ++i) {
                const std::int64_t level = codes.data()[i];
                const double *zi = z.data() + i * size, *own = b.data() + level * size * m;
                std::fill(eta.begin(), eta.end() - p, 0.0);
                std::copy(X.data() + i * p, X.data() + (i + 1) * p, eta.end() - p);
                for (std::int64_t a = 0; a < size; ++a)
                    for (std::int64_t j = 0; j < m; ++j) eta[j] += zi[a] * own[a * m + j];
                double *c = C.data() + level * size * m, *s = S.data() + level * size * size * m;
                for (std::int64_t a = 0; a < size; ++a) {
                    const double once = W.data()[i] * zi[a], bent = W1.data()[i] * zi[a];
                    for (std::int64_t j = 0; j < m; ++j) c[a * m + j] += once * eta[j];
                    for (std::int64_t e = 0; e <= a; ++e) {
                        const double square = bent * zi[e];
                        for (std::int64_t j = 0; j < m; ++j)
                            s[(a * size + e) * m + j] += square * eta[j];
                    }
                }
                for (std::int64_t j = 0; j < m; ++j) of_v[j] = v.data()[i] * eta[j];
                for (std::int64_t j = 0; j < m; ++j)
                    for (std::int64_t g = 0; g <= j; ++g) partial[j * m + g] += of_v[j] * eta[g];
            }
            for (std::int64_t t = 0; t < m * m; ++t) H.data()[t] += partial[t];
        }
        const std::int64_t levels = static_cast<std::int64_t>(b.shape(0));
        for (std::int64_t level = 0; level < levels; ++level) {
            double *s = S.data() + level * size * size * m;
            for (std::int64_t a = 0; a < size; ++a)
                for (std::int64_t e = 0; e < a; ++e)
                    std::copy(s + (a * size + e) * m, s + (a * size + e + 1) * m,
                              s + (e * size + a) * m);
        }
    });
    for (std::int64_t j = 0; j < m; ++j)
        for (std::int64_t g = 0; g < j; ++g) H.data()[g * m + j] = H.data()[j * m + g];
}

} // namespace kernels
