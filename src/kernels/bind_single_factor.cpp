#include "bindings.hpp"
#include "single_factor.hpp"

void kernels::bind_single_factor(nb::module_ &module) {
    module.def("evaluate_single_factor", &evaluate_single_factor);
}
