// The dense part of the remainder, scaled by the relative covariance factors and mirrored.
#pragma once

#include "arrays.hpp"

#include <algorithm>

namespace kernels {

// A[:, columns] <- A[:, columns] (I (x) T) for one factor of the remainder, in place; T' if
// transposed.
inline void scale_columns(FortranDoubles A, std::int64_t offset, std::int64_t n_levels,
                          ConstDoubles T, bool transposed) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const std::int64_t rows = static_cast<std::int64_t>(A.shape(0));
    nb::gil_scoped_release release;
    ConstRowMajorMap t(T.data(), k, k);
    const Eigen::MatrixXd factor = transposed ? Eigen::MatrixXd(t.transpose()) : Eigen::MatrixXd(t);
    Eigen::MatrixXd scaled(rows, k);
    for (std::int64_t level = 0; level < n_levels; ++level) {
        Eigen::Map<Eigen::MatrixXd> block(A.data() + (offset + level * k) * rows, rows, k);
        if (k == 1) {
            block *= factor(0, 0);
        } else {
            scaled.noalias() = block.lazyProduct(factor);
            block = scaled;
        }
    }
}

// A[rows, :] <- (I (x) T)' A[rows, :] for one factor of the remainder, in place; T if transposed.
inline void scale_rows(FortranDoubles A, std::int64_t offset, std::int64_t n_levels, ConstDoubles T,
                       bool transposed) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const std::int64_t rows = static_cast<std::int64_t>(A.shape(0));
    const std::int64_t columns = static_cast<std::int64_t>(A.shape(1));
    nb::gil_scoped_release release;
    ConstRowMajorMap t(T.data(), k, k);
    const Eigen::MatrixXd factor = transposed ? Eigen::MatrixXd(t) : Eigen::MatrixXd(t.transpose());
    Eigen::MatrixXd scaled(k, n_levels);
    for (std::int64_t column = 0; column < columns; ++column) {
        Eigen::Map<Eigen::MatrixXd> block(A.data() + column * rows + offset, k, n_levels);
        if (k == 1) {
            block *= factor(0, 0);
        } else {
            scaled.noalias() = factor.lazyProduct(block);
            block = scaled;
        }
    }
}

// Copies the lower triangle of a square matrix onto its upper triangle, tile by tile.
inline void mirror_lower(FortranDoubles A) {
    const std::int64_t n = static_cast<std::int64_t>(A.shape(0));
    constexpr std::int64_t tile = 64;
    double *a = A.data();
    nb::gil_scoped_release release;
    for (std::int64_t c0 = 0; c0 < n; c0 += tile)
        for (std::int64_t r0 = c0; r0 < n; r0 += tile)
            for (std::int64_t c = c0; c < std::min(c0 + tile, n); ++c)
                for (std::int64_t r = std::max(r0, c + 1); r < std::min(r0 + tile, n); ++r)
                    a[r * n + c] = a[c * n + r];
}

} // namespace kernels
