#include "bindings.hpp"
#include "dense.hpp"
#include "fronts.hpp"
#include "symbolic.hpp"

void kernels::bind_fronts(nb::module_ &module) {
    module.def("use_blas", &blas::use_functions);
    module.def("solve_lower", &blas::solve_lower_array);
    module.def("dense_cholesky", &dense_cholesky);
    module.def("dense_inverse", &dense_inverse);
    module.def("clique_graph", &clique_graph);
    module.def("elimination_plan", &elimination_plan);
    module.def("front_entries", &front_entries);
    module.def("subtract_from_fronts", &subtract_from_fronts);
    module.def("eliminate_fronts", &eliminate_fronts);
    module.def("forward_fronts", &forward_fronts);
    module.def("backward_fronts", &backward_fronts);
    module.def("multiply_front_rows", &multiply_front_rows);
    module.def("selected_inverse_fronts", &selected_inverse_fronts);
}
