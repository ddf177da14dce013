#include "bindings.hpp"
#include "single_factor.hpp"

void kernels::bind_single_factor(nb::module_ &module) {
    module.def("descend_single_factor", &descend_single_factor);
    module.def("descend_single_factor_from_each", &descend_single_factor_from_each);
    module.def("evaluate_single_factor", &evaluate_single_factor);
}
