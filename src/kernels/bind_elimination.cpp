#include "bindings.hpp"
#include "elimination.hpp"
#include "scaling.hpp"
#include "substitution.hpp"

void kernels::bind_elimination(nb::module_ &module) {
    module.def("eliminate_levels", &eliminate_levels);
    module.def("subtract_from_remainder", &subtract_from_remainder);
    module.def("subtract_from_outer", &subtract_from_outer);
    module.def("forward_levels", &forward_levels);
    module.def("backward_levels", &backward_levels);
    module.def("multiply_levels", &multiply_levels);
    module.def("scale_columns", &scale_columns);
    module.def("scale_rows", &scale_rows);
    module.def("mirror_lower", &mirror_lower);
}
