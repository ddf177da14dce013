#include "bindings.hpp"
#include "selected_inverse.hpp"

void kernels::bind_selected_inverse(nb::module_ &module) {
    module.def("selected_inverse_levels", &selected_inverse_levels);
}
