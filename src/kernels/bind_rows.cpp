#include "bindings.hpp"
#include "rows.hpp"

void kernels::bind_rows(nb::module_ &module) {
    module.def("logit_rows", &logit_rows);
    module.def("log_rows", &log_rows);
    module.def("add_block_forms", &add_block_forms);
    module.def("add_gathered", &add_gathered);
    module.def("curvature_sums", &curvature_sums);
}
