// Array types shared by the kernels. All arrays are C-contiguous unless a name says otherwise.
#pragma once

#include <Eigen/Core>
#include <cstdint>
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

} // namespace kernels
