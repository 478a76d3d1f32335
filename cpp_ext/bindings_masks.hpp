// The part of the Python module that works on binary masks.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

namespace samrt_py {

void add_mask_functions(pybind11::module_& m);

// Run lengths as an array (N,) uint32.
pybind11::array counts_array(const std::vector<std::uint32_t>& counts);

}  // namespace samrt_py
