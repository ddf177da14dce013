#include "bindings.hpp"
#include "dense_model.hpp"

void kernels::bind_dense_model(nb::module_ &module) {
    module.def("descend_dense_from_each", &descend_dense_from_each);
}
