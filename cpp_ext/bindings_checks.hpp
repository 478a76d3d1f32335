// What the bindings ask of their arguments. Every message is one line: what, got, expected, fix.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace samrt_py {

namespace py = pybind11;

using Size = std::pair<std::int64_t, std::int64_t>;

constexpr std::int64_t kMaxSide = 1 << 24;  // sample positions stay exact in float32
constexpr std::int64_t kMaxSamples = std::numeric_limits<std::uint32_t>::max();

inline std::string shape_text(const py::array& array) {
    std::string text = "(";
    for (py::ssize_t i = 0; i < array.ndim(); ++i)
        text += (i ? ", " : "") + std::to_string(array.shape(i));
    return text + (array.ndim() == 1 ? ",)" : ")");
}

inline std::string dtype_text(const py::array& array) {
    return py::str(static_cast<py::object>(array.dtype())).cast<std::string>();
}

// `value` as an array that can be read through a plain pointer, without a copy.
inline py::array as_array(const py::object& value, const std::string& name) {
    if (!py::isinstance<py::array>(value))
        throw py::type_error(name + " must be a numpy array, got " +
                             py::type::of(value).attr("__name__").cast<std::string>() +
                             "; convert it with numpy.asarray");
    py::array array = py::reinterpret_borrow<py::array>(value);
    if (!(array.flags() & py::array::c_style))
        throw py::value_error(name + " must be C-contiguous, got strides that are not; "
                              "copy it with numpy.ascontiguousarray");
    if (array.size() == 0)
        throw py::value_error(name + " must not be empty, got shape " + shape_text(array));
    for (py::ssize_t i = 0; i < array.ndim(); ++i)
        if (array.shape(i) > kMaxSide)
            throw py::value_error(name + " has a side of " + std::to_string(array.shape(i)) +
                                  "; the limit is " + std::to_string(kMaxSide));
    return array;
}

template <typename T>
bool has_dtype(const py::array& array) {
    // By kind and size: numpy has several C names for one and the same type.
    const py::dtype want = py::dtype::of<T>(), got = array.dtype();
    const char order = got.byteorder();
    return want.kind() == got.kind() && want.itemsize() == got.itemsize() &&
           (order == '=' || order == '|' || order == want.byteorder());
}

template <typename T>
const T* samples(const py::array& array, const std::string& name) {
    if (!has_dtype<T>(array))
        throw py::type_error(name + " must have dtype " +
                             py::str(static_cast<py::object>(py::dtype::of<T>()))
                                 .cast<std::string>() +
                             ", got " + dtype_text(array) + "; convert it with .astype");
    return static_cast<const T*>(array.data());
}

inline void check_rank(const py::array& array, const std::string& name, py::ssize_t rank,
                       const char* axes) {
    if (array.ndim() != rank)
        throw py::value_error(name + " must have shape " + axes + ", got " + shape_text(array));
}

inline int side(const py::array& array, int axis) { return static_cast<int>(array.shape(axis)); }

inline int check_threads(std::int64_t threads) {
    if (threads < 1)
        throw py::value_error("threads must be at least 1, got " + std::to_string(threads));
    return static_cast<int>(std::min<std::int64_t>(threads, 1 << 16));
}

inline std::pair<int, int> check_size(const Size& size, const std::string& name) {
    if (size.first < 1 || size.second < 1 || size.first > kMaxSide || size.second > kMaxSide)
        throw py::value_error(name + " must be (height, width) with sides from 1 to " +
                              std::to_string(kMaxSide) + ", got (" + std::to_string(size.first) +
                              ", " + std::to_string(size.second) + ")");
    return {static_cast<int>(size.first), static_cast<int>(size.second)};
}

inline void check_within(const Size& inner, const std::string& inner_name, const Size& outer,
                         const std::string& outer_name) {
    if (inner.first > outer.first || inner.second > outer.second)
        throw py::value_error(inner_name + " (" + std::to_string(inner.first) + ", " +
                              std::to_string(inner.second) + ") must fit into " + outer_name +
                              " (" + std::to_string(outer.first) + ", " +
                              std::to_string(outer.second) + ")");
}

inline double check_finite(double value, const std::string& name) {
    if (!std::isfinite(value))
        throw py::value_error(name + " must be a finite number, got " +
                              py::str(py::float_(value)).cast<std::string>());
    return value;
}

inline void check_window(const std::pair<double, double>& window) {
    check_finite(window.first, "window low");
    check_finite(window.second, "window high");
    if (!(window.first < window.second))
        throw py::value_error("window must be (low, high) with low < high, got (" +
                              py::str(py::float_(window.first)).cast<std::string>() + ", " +
                              py::str(py::float_(window.second)).cast<std::string>() + ")");
}

}  // namespace samrt_py
