#include "bindings.hpp"
#include "trust_region.hpp"

void kernels::bind_trust_region(nb::module_ &module) {
    module.def("sigma_model_at", &sigma_model_at);
    module.def("minimise_sigma_model", &minimise_sigma_model);
    module.def("trust_region_step", &trust_region_step_array);
}
