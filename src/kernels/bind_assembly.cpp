#include "assembly.hpp"
#include "bindings.hpp"
#include "thin.hpp"

void kernels::bind_assembly(nb::module_ &module) {
    module.def("rows_by_level", &rows_by_level);
    module.def("nesting_parents", &nesting_parents);
    module.def("remainder_pattern", &remainder_pattern);
    module.def("relative_positions", &relative_positions);
    module.def("assemble_levels", &assemble_levels);
    module.def("assemble_remainder", &assemble_remainder);
    module.def("group_sums", &group_sums);
    module.def("expand_levels", &expand_levels);
    module.def("thin_cross", &thin_cross);
    module.def("thin_times", &thin_times);
}
