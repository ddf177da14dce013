// Array types shared by the kernels. All arrays are C-contiguous unless a name says otherwise.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>
#include <type_traits>
#include <utility>
#include <vector>

namespace nb = nanobind;

namespace kernels {

using Doubles = nb::ndarray<double, nb::c_contig, nb::device::cpu>;
using ConstDoubles = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
using FortranDoubles = nb::ndarray<double, nb::ndim<2>, nb::f_contig, nb::device::cpu>;
using ConstFortranDoubles = nb::ndarray<const double, nb::ndim<2>, nb::f_contig, nb::device::cpu>;
using Codes = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Offsets = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <int K> using SquareMatrix = Eigen::Matrix<double, K, K, Eigen::RowMajor>;
// A K x M panel whose columns are contiguous (a single row is stored as a row).
template <int K>
using Panel = Eigen::Matrix<double, K, Eigen::Dynamic, K == 1 ? Eigen::RowMajor : Eigen::ColMajor>;
template <int K> using PanelMap = Eigen::Map<Panel<K>>;
template <int K> using ConstPanelMap = Eigen::Map<const Panel<K>>;
template <int K> using SquareMap = Eigen::Map<SquareMatrix<K>>;
template <int K> using ConstSquareMap = Eigen::Map<const SquareMatrix<K>>;
using RowMajorMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowMajorMap = Eigen::Map<RowMajorMatrix>;
using ConstRowMajorMap = Eigen::Map<const RowMajorMatrix>;
using Vector = Eigen::VectorXd;
using Matrix = Eigen::MatrixXd;

// Calls body(std::integral_constant<int, K>) with K known at compile time for the usual block
// sizes.
template <class Body> void with_block_size(std::int64_t k, Body &&body) {
    switch (k) {
    case 1: body(std::integral_constant<int, 1>{}); break;
    case 2: body(std::integral_constant<int, 2>{}); break;
    case 3: body(std::integral_constant<int, 3>{}); break;
    case 4: body(std::integral_constant<int, 4>{}); break;
    default: body(std::integral_constant<int, Eigen::Dynamic>{}); break;
    }
}

template <class T> auto owned_array(std::vector<T> &&values) {
    auto *owner = new std::vector<T>(std::move(values));
    nb::capsule deleter(owner, [](void *p) noexcept { delete static_cast<std::vector<T> *>(p); });
    return nb::ndarray<nb::numpy, T, nb::ndim<1>>(owner->data(), {owner->size()}, deleter);
}

inline Eigen::Map<const Vector> as_vector(const ConstDoubles &a) {
    return {a.data(), static_cast<Eigen::Index>(a.size())};
}

inline Eigen::Map<const Matrix> as_symmetric(const ConstDoubles &a) {
    const auto n = static_cast<Eigen::Index>(a.shape(0));
    return {a.data(), n, n};
}

inline auto copied_array(const double *values, std::initializer_list<std::size_t> shape) {
    std::size_t size = 1;
    for (std::size_t length : shape) size *= length;
    auto *data = new double[size + 1];
    std::copy(values, values + size, data);
    nb::capsule owner(data, [](void *p) noexcept { delete[] static_cast<double *>(p); });
    return nb::ndarray<nb::numpy, double>(data, shape, owner);
}

inline auto as_array(const Vector &v) {
    return copied_array(v.data(), {static_cast<std::size_t>(v.size())});
}

// Of a symmetric matrix.
inline auto as_array(const Matrix &m) {
    const auto n = static_cast<std::size_t>(m.rows());
    return copied_array(m.data(), {n, n});
}

} // namespace kernels
