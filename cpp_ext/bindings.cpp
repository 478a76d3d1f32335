// The Python module samrt._native: checks arguments, lets go of the interpreter lock, calls the
// kernels. Nothing is computed here. samrt/_kernels.py documents every function.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bindings_checks.hpp"
#include "samrt/masks.hpp"
#include "samrt/postprocess.hpp"
#include "samrt/preprocess.hpp"
#include "samrt/rle.hpp"
#include "samrt/rows.hpp"

namespace {

using namespace samrt_py;
using NoGil = py::gil_scoped_release;
using Triple = std::optional<std::vector<double>>;

py::array byte_image(const py::object& value, samrt::ByteImage& image) {
    py::array array = as_array(value, "image");
    const bool grey = array.ndim() == 2;
    if (!grey && !(array.ndim() == 3 && array.shape(2) == 3))
        throw py::value_error("image must have shape (H, W) or (H, W, 3), got " +
                              shape_text(array));
    image = {samples<std::uint8_t>(array, "image"), side(array, 0), side(array, 1),
             grey ? 1 : 3};
    return array;
}

py::array windowed_image(const py::object& value, const std::pair<double, double>& window,
                         samrt::WindowedImage& image) {
    py::array array = as_array(value, "image");
    check_rank(array, "image", 2, "(H, W)");
    check_window(window);
    if (has_dtype<std::uint16_t>(array))
        image.sample = samrt::Sample::kUint16;
    else if (has_dtype<std::int16_t>(array))
        image.sample = samrt::Sample::kInt16;
    else if (has_dtype<float>(array))
        image.sample = samrt::Sample::kFloat32;
    else
        throw py::type_error("image must have dtype uint16, int16 or float32, got " +
                             dtype_text(array) + "; convert it with .astype");
    image.data = array.data();
    image.height = side(array, 0);
    image.width = side(array, 1);
    image.low = window.first;
    image.high = window.second;
    return array;
}

void set_triple(const Triple& values, const char* name, bool nonzero, float* target) {
    if (!values || values->size() != 3)
        throw py::value_error(std::string(name) + " must be 3 numbers unless min_max is set");
    for (std::size_t i = 0; i < 3; ++i) {
        target[i] = static_cast<float>(check_finite((*values)[i], name));
        if (nonzero && target[i] == 0.0f)
            throw py::value_error(std::string(name) + " must not be 0");
    }
}

samrt::PreprocessPlan make_plan(const Size& out_size, const Size& resized,
                                const std::string& interpolation, const Triple& mean,
                                const Triple& std, double scale, bool min_max, double pad_value,
                                bool pad_before, bool bgr, const std::string& out_dtype) {
    samrt::PreprocessPlan plan;
    std::tie(plan.frame_height, plan.frame_width) = check_size(out_size, "out_size");
    std::tie(plan.height, plan.width) = check_size(resized, "resized");
    check_within(resized, "resized", out_size, "out_size");
    plan.interpolation = samrt::parse_interpolation(interpolation);
    plan.min_max = min_max;
    if (!min_max) {
        set_triple(mean, "mean", false, plan.mean);
        set_triple(std, "std", true, plan.std);
    }
    plan.scale = static_cast<float>(check_finite(scale, "scale"));
    plan.pad_value = static_cast<float>(check_finite(pad_value, "pad_value"));
    plan.pad_before = pad_before;
    plan.bgr = bgr;
    if (out_dtype != "float32" && out_dtype != "float16")
        throw py::value_error("out_dtype must be float32 or float16, got '" + out_dtype + "'");
    plan.half = out_dtype == "float16";
    return plan;
}

py::array tensor(const samrt::PreprocessPlan& plan) {
    return py::array(py::dtype(plan.half ? "float16" : "float32"),
                     std::vector<py::ssize_t>{1, 3, plan.frame_height, plan.frame_width});
}

py::array resize(const py::object& value, const Size& size, const std::string& interpolation,
                 std::int64_t threads) {
    samrt::ByteImage image;
    const py::array keep = byte_image(value, image);
    const auto [height, width] = check_size(size, "size");
    const samrt::Interpolation kind = samrt::parse_interpolation(interpolation);
    const int team = check_threads(threads);
    std::vector<py::ssize_t> shape{height, width};
    if (image.channels == 3) shape.push_back(3);
    py::array_t<std::uint8_t> out(shape);
    std::uint8_t* target = out.mutable_data();
    const NoGil release;
    samrt::resize(image, height, width, kind, team, target);
    return std::move(out);
}

py::array preprocess(const py::object& value, const Size& out_size, const Size& resized,
                     const std::string& interpolation, const Triple& mean, const Triple& std,
                     double scale, bool min_max, double pad_value, bool pad_before, bool bgr,
                     const std::string& out_dtype, std::int64_t threads) {
    samrt::ByteImage image;
    const py::array keep = byte_image(value, image);
    const samrt::PreprocessPlan plan =
        make_plan(out_size, resized, interpolation, mean, std, scale, min_max, pad_value,
                  pad_before, bgr, out_dtype);
    const int team = check_threads(threads);
    py::array out = tensor(plan);
    void* target = out.mutable_data();
    const NoGil release;
    samrt::preprocess(image, plan, team, target);
    return out;
}

py::array preprocess_window(const py::object& value, const std::pair<double, double>& window,
                            const Size& out_size, const Size& resized,
                            const std::string& interpolation, const Triple& mean,
                            const Triple& std, double scale, bool min_max, double pad_value,
                            bool pad_before, const std::string& out_dtype, std::int64_t threads) {
    samrt::WindowedImage image;
    const py::array keep = windowed_image(value, window, image);
    const samrt::PreprocessPlan plan =
        make_plan(out_size, resized, interpolation, mean, std, scale, min_max, pad_value,
                  pad_before, false, out_dtype);
    const int team = check_threads(threads);
    py::array out = tensor(plan);
    void* target = out.mutable_data();
    const NoGil release;
    samrt::preprocess_window(image, plan, team, target);
    return out;
}

py::array window_to_uint8(const py::object& value, double low, double high, std::int64_t threads) {
    samrt::WindowedImage image;
    const py::array keep = windowed_image(value, {low, high}, image);
    const int team = check_threads(threads);
    py::array_t<std::uint8_t> out({image.height, image.width});
    std::uint8_t* target = out.mutable_data();
    const NoGil release;
    samrt::window_to_bytes(image, team, target);
    return std::move(out);
}

py::array logits_array(const py::object& value) {
    py::array array = as_array(value, "logits");
    check_rank(array, "logits", 3, "(M, h, w)");
    samples<float>(array, "logits");
    return array;
}

samrt::MaskPlan mask_plan(const py::array& logits, const Size& frame, const Size& crop,
                          const Size& out) {
    samrt::MaskPlan plan;
    plan.count = side(logits, 0);
    plan.low_height = side(logits, 1);
    plan.low_width = side(logits, 2);
    std::tie(plan.frame_height, plan.frame_width) = check_size(frame, "frame");
    std::tie(plan.crop_height, plan.crop_width) = check_size(crop, "crop");
    std::tie(plan.out_height, plan.out_width) = check_size(out, "out");
    check_within(crop, "crop", frame, "frame");
    return plan;
}

py::array upscale_logits(const py::object& value, const Size& frame, const Size& crop,
                         const Size& out_size, std::int64_t threads) {
    const py::array logits = logits_array(value);
    const samrt::MaskPlan plan = mask_plan(logits, frame, crop, out_size);
    const int team = check_threads(threads);
    py::array_t<float> out({plan.count, plan.out_height, plan.out_width});
    float* target = out.mutable_data();
    const float* source = static_cast<const float*>(logits.data());
    const NoGil release;
    samrt::upscale_logits(source, plan, team, target);
    return std::move(out);
}

py::array masks_from_logits(const py::object& value, const Size& frame, const Size& crop,
                            const Size& out_size, double threshold, bool probability,
                            std::int64_t threads) {
    const py::array logits = logits_array(value);
    const samrt::MaskPlan plan = mask_plan(logits, frame, crop, out_size);
    const float limit = static_cast<float>(check_finite(threshold, "threshold"));
    const int team = check_threads(threads);
    py::array_t<bool> out({plan.count, plan.out_height, plan.out_width});
    auto* target = reinterpret_cast<std::uint8_t*>(out.mutable_data());
    const float* source = static_cast<const float*>(logits.data());
    const NoGil release;
    samrt::masks_from_logits(source, plan, limit, probability, team, target);
    return std::move(out);
}

py::array stability(const py::object& value, double threshold, double offset) {
    const py::array logits = logits_array(value);
    check_finite(threshold, "threshold");
    if (check_finite(offset, "offset") < 0)
        throw py::value_error("offset must not be negative, got " + std::to_string(offset));
    py::array_t<float> out(logits.shape(0));
    float* target = out.mutable_data();
    const float* source = static_cast<const float*>(logits.data());
    const int count = side(logits, 0);
    const std::size_t size = static_cast<std::size_t>(logits.size() / logits.shape(0));
    const NoGil release;
    samrt::stability(source, count, size, threshold, offset, target);
    return std::move(out);
}

py::array mask_array(const py::object& value, py::ssize_t rank, const char* axes) {
    py::array array = as_array(value, "mask");
    check_rank(array, "mask", rank, axes);
    samples<bool>(array, "mask");
    if (array.size() > kMaxSamples)
        throw py::value_error("mask has " + std::to_string(array.size()) +
                              " samples; the limit is " + std::to_string(kMaxSamples));
    return array;
}

const std::uint8_t* bytes_of(const py::array& mask) {
    return static_cast<const std::uint8_t*>(mask.data());
}

py::tuple mask_stats(const py::object& value) {
    const py::array mask = mask_array(value, 3, "(M, H, W)");
    const py::ssize_t count = mask.shape(0);
    const samrt::MaskShape shape{side(mask, 1), side(mask, 2)};
    py::array_t<std::int64_t> areas(count);
    py::array_t<std::int64_t> boxes({count, py::ssize_t{4}});
    std::int64_t *area = areas.mutable_data(), *box = boxes.mutable_data();
    const std::uint8_t* source = bytes_of(mask);
    {
        const NoGil release;
        for (py::ssize_t m = 0; m < count; ++m, source += shape.size(), box += 4) {
            const samrt::MaskStats stats = samrt::mask_stats(source, shape);
            area[m] = stats.area;
            box[0] = stats.x0, box[1] = stats.y0, box[2] = stats.x1, box[3] = stats.y1;
        }
    }
    return py::make_tuple(areas, boxes);
}

py::array counts_array(const std::vector<std::uint32_t>& counts) {
    py::array_t<std::uint32_t> out(static_cast<py::ssize_t>(counts.size()));
    std::copy(counts.begin(), counts.end(), out.mutable_data());
    return std::move(out);
}

py::array checked_counts(const py::object& value) {
    py::array counts = as_array(value, "counts");
    check_rank(counts, "counts", 1, "(N,)");
    samples<std::uint32_t>(counts, "counts");
    return counts;
}

py::array rle_encode(const py::object& value) {
    const py::array mask = mask_array(value, 2, "(H, W)");
    const samrt::MaskShape shape{side(mask, 0), side(mask, 1)};
    std::vector<std::uint32_t> counts;
    {
        const NoGil release;
        counts = samrt::rle_encode(bytes_of(mask), shape);
    }
    return counts_array(counts);
}

py::array rle_decode(const py::object& value, const Size& size) {
    const py::array counts = checked_counts(value);
    const auto [height, width] = check_size(size, "size");
    if (size.first * size.second > kMaxSamples)
        throw py::value_error("size has more than " + std::to_string(kMaxSamples) + " samples");
    const auto n = static_cast<std::size_t>(counts.size());
    const auto* source = static_cast<const std::uint32_t*>(counts.data());
    std::uint64_t total = 0;  // checked before a large array is made
    for (std::size_t i = 0; i < n; ++i) total += source[i];
    if (total != static_cast<std::uint64_t>(size.first * size.second))
        throw py::value_error("counts sum to " + std::to_string(total) +
                              " samples; expected height * width = " +
                              std::to_string(size.first * size.second));
    py::array_t<bool> out({height, width});
    auto* target = reinterpret_cast<std::uint8_t*>(out.mutable_data());
    const samrt::MaskShape shape{height, width};
    const NoGil release;
    samrt::rle_decode(source, n, shape, target);
    return std::move(out);
}

py::bytes rle_to_string(const py::object& value) {
    const py::array counts = checked_counts(value);
    return samrt::rle_to_string(static_cast<const std::uint32_t*>(counts.data()),
                                static_cast<std::size_t>(counts.size()));
}

py::array rle_from_string(const py::bytes& text) {
    return counts_array(samrt::rle_from_string(text));
}

py::tuple connected_components(const py::object& value, int connectivity) {
    const py::array mask = mask_array(value, 2, "(H, W)");
    if (connectivity != 4 && connectivity != 8)
        throw py::value_error("connectivity must be 4 or 8, got " + std::to_string(connectivity));
    const samrt::MaskShape shape{side(mask, 0), side(mask, 1)};
    py::array_t<std::int32_t> labels({shape.height, shape.width});
    std::int32_t* target = labels.mutable_data();
    std::int32_t regions = 0;
    {
        const NoGil release;
        regions = samrt::label_regions(bytes_of(mask), shape, connectivity, false, target, nullptr);
    }
    return py::make_tuple(labels, regions);
}

py::tuple remove_small_regions(const py::object& value, double min_area, const std::string& mode) {
    const py::array mask = mask_array(value, 2, "(H, W)");
    check_finite(min_area, "min_area");
    if (mode != "holes" && mode != "islands")
        throw py::value_error("mode must be holes or islands, got '" + mode + "'");
    const samrt::MaskShape shape{side(mask, 0), side(mask, 1)};
    py::array_t<bool> out({shape.height, shape.width});
    auto* target = reinterpret_cast<std::uint8_t*>(out.mutable_data());
    bool changed = false;
    {
        const NoGil release;
        changed = samrt::remove_small_regions(bytes_of(mask), shape, min_area, mode == "holes",
                                              target);
    }
    return py::make_tuple(out, changed);
}

py::list mask_polygons(const py::object& value) {
    const py::array mask = mask_array(value, 2, "(H, W)");
    std::vector<samrt::Polygon> polygons;
    {
        const NoGil release;
        polygons = samrt::mask_polygons(bytes_of(mask), {side(mask, 0), side(mask, 1)});
    }
    py::list out;
    for (const samrt::Polygon& polygon : polygons) {
        py::list rings;
        for (const auto& ring : polygon.rings) {
            py::array_t<double> points({static_cast<py::ssize_t>(ring.size()), py::ssize_t{2}});
            double* to = points.mutable_data();
            for (const samrt::Point& point : ring) *to++ = point.x, *to++ = point.y;
            rings.append(points);
        }
        out.append(rings);
    }
    return out;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    using py::arg;
    m.doc() = "C++ kernels of samrt; use them through samrt._kernels.";
    m.def("resize", resize, arg("image"), arg("size"), arg("interpolation"), arg("threads"));
    m.def("preprocess", preprocess, arg("image"), py::kw_only(), arg("out_size"), arg("resized"),
          arg("interpolation"), arg("mean"), arg("std"), arg("scale"), arg("min_max"),
          arg("pad_value"), arg("pad_before"), arg("bgr"), arg("out_dtype"), arg("threads"));
    m.def("preprocess_window", preprocess_window, arg("image"), py::kw_only(), arg("window"),
          arg("out_size"), arg("resized"), arg("interpolation"), arg("mean"), arg("std"),
          arg("scale"), arg("min_max"), arg("pad_value"), arg("pad_before"), arg("out_dtype"),
          arg("threads"));
    m.def("window_to_uint8", window_to_uint8, arg("image"), arg("low"), arg("high"),
          arg("threads"));
    m.def("upscale_logits", upscale_logits, arg("logits"), py::kw_only(), arg("frame"),
          arg("crop"), arg("out"), arg("threads"));
    m.def("masks_from_logits", masks_from_logits, arg("logits"), py::kw_only(), arg("frame"),
          arg("crop"), arg("out"), arg("threshold"), arg("probability"), arg("threads"));
    m.def("stability", stability, arg("logits"), arg("threshold"), arg("offset"));
    m.def("mask_stats", mask_stats, arg("mask"));
    m.def("rle_encode", rle_encode, arg("mask"));
    m.def("rle_decode", rle_decode, arg("counts"), arg("size"));
    m.def("rle_to_string", rle_to_string, arg("counts"));
    m.def("rle_from_string", rle_from_string, arg("text"));
    m.def("connected_components", connected_components, arg("mask"), arg("connectivity"));
    m.def("remove_small_regions", remove_small_regions, arg("mask"), arg("min_area"),
          arg("mode"));
    m.def("mask_polygons", mask_polygons, arg("mask"));
    m.def("instruction_set", [] { return std::string(samrt::row_kernels().name); });
    m.def("select_instruction_set", samrt::select_row_kernels, arg("name"));
}
