#include "bindings.hpp"
#include "callbacks.hpp"
#include "sigma_model.hpp"

void kernels::bind_trust_region(nb::module_ &module) {
    module.def("sigma_model_at", &sigma_model_at);
    module.def("minimise_sigma_model", &minimise_sigma_model);
    module.def("minimise", &minimise_array, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
               nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
    module.def("minimise_model", &minimise_model_array);
    module.def("trust_region_step", &trust_region_step_array);
    module.def("secant_update", &secant_update_array);
    module.def("symmetric_rank_one_update", &symmetric_rank_one_update_array);
}
