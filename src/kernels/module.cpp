// The Python face of the kernels: arrays in, arrays out, nothing statistical.
#include "bindings.hpp"

NB_MODULE(_kernels, module) {
    module.doc() = "Small-block linear algebra over the levels of grouping factors.";
    kernels::bind_assembly(module);
    kernels::bind_dense_model(module);
    kernels::bind_elimination(module);
    kernels::bind_rows(module);
    kernels::bind_selected_inverse(module);
    kernels::bind_fronts(module);
    kernels::bind_series(module);
    kernels::bind_single_factor(module);
    kernels::bind_trust_region(module);
}
