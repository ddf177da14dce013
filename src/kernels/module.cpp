// The Python face of the kernels: arrays in, arrays out, nothing statistical.
#include "assembly.hpp"
#include "elimination.hpp"
#include "selected_inverse.hpp"

NB_MODULE(_kernels, module) {
    using namespace kernels;
    module.doc() = "Small-block linear algebra over the levels of grouping factors.";
    module.def("rows_by_level", &rows_by_level);
    module.def("nesting_parents", &nesting_parents);
    module.def("remainder_pattern", &remainder_pattern);
    module.def("relative_positions", &relative_positions);
    module.def("assemble_levels", &assemble_levels);
    module.def("assemble_remainder", &assemble_remainder);
    module.def("group_sums", &group_sums);
    module.def("expand_levels", &expand_levels);
    module.def("eliminate_levels", &eliminate_levels);
    module.def("subtract_from_remainder", &subtract_from_remainder);
    module.def("subtract_from_outer", &subtract_from_outer);
    module.def("forward_levels", &forward_levels);
    module.def("backward_levels", &backward_levels);
    module.def("multiply_levels", &multiply_levels);
    module.def("scale_columns", &scale_columns);
    module.def("scale_rows", &scale_rows);
    module.def("mirror_lower", &mirror_lower);
    module.def("selected_inverse_levels", &selected_inverse_levels);
}
