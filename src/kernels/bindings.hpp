// Each file of bindings is compiled on its own, so that a build uses every core.
#pragma once

#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace kernels {
void bind_assembly(nb::module_ &module);
void bind_dense_model(nb::module_ &module);
void bind_elimination(nb::module_ &module);
void bind_rows(nb::module_ &module);
void bind_selected_inverse(nb::module_ &module);
void bind_fronts(nb::module_ &module);
void bind_series(nb::module_ &module);
void bind_single_factor(nb::module_ &module);
void bind_trust_region(nb::module_ &module);
} // namespace kernels
