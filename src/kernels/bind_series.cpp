#include "bindings.hpp"
#include "series.hpp"

void kernels::bind_series(nb::module_ &module) {
    module.def("add_neighbours_to_levels", &add_neighbours_to_levels);
    module.def("add_neighbours_to_remainder", &add_neighbours_to_remainder);
    module.def("neighbour_variates", &neighbour_variates);
}
