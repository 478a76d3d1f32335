// The part of the Python module that works on binary masks.
#pragma once

#include <pybind11/pybind11.h>

namespace samrt_py {

void add_mask_functions(pybind11::module_& m);

}  // namespace samrt_py
