// The Python module samrt._native: checks arguments, lets go of the interpreter lock, calls the
// kernels. Nothing is computed here. samrt/_kernels.py documents every function.
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "bindings_checks.hpp"
#include "bindings_masks.hpp"
#include "samrt/mask_runs.hpp"
#include "samrt/pool.hpp"
#include "samrt/postprocess.hpp"
#include "samrt/preprocess.hpp"
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

// What the two ways into the tensor have in common, as the keywords come in.
struct Rules {
    Size out_size, resized;
    std::string interpolation, rounding;
    std::vector<Size> via;
    double divisor;
    Triple mean, std;
    double scale;
    bool min_max;
    double pad_value;
    bool pad_before;
    std::string out_dtype;
};

samrt::PreprocessPlan make_plan(const Rules& rules, bool bgr) {
    samrt::PreprocessPlan plan;
    std::tie(plan.frame_height, plan.frame_width) = check_size(rules.out_size, "out_size");
    std::tie(plan.height, plan.width) = check_size(rules.resized, "resized");
    check_within(rules.resized, "resized", rules.out_size, "out_size");
    plan.interpolation = samrt::parse_interpolation(rules.interpolation);
    plan.rounding = samrt::parse_rounding(rules.rounding);
    for (const Size& size : rules.via) plan.via.push_back(check_size(size, "via"));
    plan.divisor = static_cast<float>(check_finite(rules.divisor, "divisor"));
    if (!(plan.divisor > 0.0f))
        throw py::value_error("divisor must be more than 0, got " + std::to_string(rules.divisor));
    plan.min_max = rules.min_max;
    if (!rules.min_max) {
        set_triple(rules.mean, "mean", false, plan.mean);
        set_triple(rules.std, "std", true, plan.std);
    }
    plan.scale = static_cast<float>(check_finite(rules.scale, "scale"));
    plan.pad_value = static_cast<float>(check_finite(rules.pad_value, "pad_value"));
    plan.pad_before = rules.pad_before;
    plan.bgr = bgr;
    if (rules.out_dtype != "float32" && rules.out_dtype != "float16")
        throw py::value_error("out_dtype must be float32 or float16, got '" + rules.out_dtype +
                              "'");
    plan.half = rules.out_dtype == "float16";
    return plan;
}

// Never destroyed: arrays may outlive everything else.
samrt::BlockPool& pool() {
    static auto* const blocks = new samrt::BlockPool;
    return *blocks;
}

// An array whose memory goes back to the pool when the array, and all views of it, are gone.
py::array tensor(const samrt::PreprocessPlan& plan) {
    struct Loan {
        void* data;
        std::size_t bytes;
    };
    const std::size_t bytes = (plan.half ? 2 : 4) * 3 * static_cast<std::size_t>(plan.frame_height) *
                              static_cast<std::size_t>(plan.frame_width);
    auto loan = std::make_unique<Loan>(Loan{pool().take(bytes), bytes});
    const auto give_back = [](void* value) {
        const std::unique_ptr<Loan> back(static_cast<Loan*>(value));
        pool().give(back->data, back->bytes);
    };
    void* const data = loan->data;
    const py::capsule owner(loan.release(), give_back);
    return py::array(py::dtype(plan.half ? "float16" : "float32"),
                     std::vector<py::ssize_t>{1, 3, plan.frame_height, plan.frame_width}, data,
                     owner);
}

py::array resize(const py::object& value, const Size& size, const std::string& interpolation,
                 const std::string& rounding, std::int64_t threads) {
    samrt::ByteImage image;
    const py::array keep = byte_image(value, image);
    const auto [height, width] = check_size(size, "size");
    const samrt::Interpolation kind = samrt::parse_interpolation(interpolation);
    const samrt::Rounding rounded = samrt::parse_rounding(rounding);
    const int team = check_threads(threads);
    std::vector<py::ssize_t> shape{height, width};
    if (image.channels == 3) shape.push_back(3);
    py::array_t<std::uint8_t> out(shape);
    std::uint8_t* target = out.mutable_data();
    const NoGil release;
    samrt::resize(image, height, width, kind, rounded, team, target);
    return std::move(out);
}

py::array preprocess(const py::object& value, const Rules& rules, bool bgr,
                     std::int64_t threads) {
    samrt::ByteImage image;
    const py::array keep = byte_image(value, image);
    const samrt::PreprocessPlan plan = make_plan(rules, bgr);
    const int team = check_threads(threads);
    py::array out = tensor(plan);
    void* target = out.mutable_data();
    const NoGil release;
    samrt::preprocess(image, plan, team, target);
    return out;
}

py::array preprocess_window(const py::object& value, const std::pair<double, double>& window,
                            const Rules& rules, std::int64_t threads) {
    samrt::WindowedImage image;
    const py::array keep = windowed_image(value, window, image);
    const samrt::PreprocessPlan plan = make_plan(rules, false);
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
                          const Size& out, const std::string& interpolation) {
    samrt::MaskPlan plan;
    plan.interpolation = samrt::parse_upscaling(interpolation);
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
                         const Size& out_size, const std::string& interpolation,
                         std::int64_t threads) {
    const py::array logits = logits_array(value);
    const samrt::MaskPlan plan = mask_plan(logits, frame, crop, out_size, interpolation);
    const int team = check_threads(threads);
    py::array_t<float> out({plan.count, plan.out_height, plan.out_width});
    float* target = out.mutable_data();
    const float* source = static_cast<const float*>(logits.data());
    const NoGil release;
    samrt::upscale_logits(source, plan, team, target);
    return std::move(out);
}

py::array masks_from_logits(const py::object& value, const Size& frame, const Size& crop,
                            const Size& out_size, const std::string& interpolation,
                            double threshold, bool probability, std::int64_t threads) {
    const py::array logits = logits_array(value);
    const samrt::MaskPlan plan = mask_plan(logits, frame, crop, out_size, interpolation);
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

// Stability, areas, boxes and run lengths; None where a mask is not stable enough.
py::tuple mask_runs(const py::object& value, const Size& frame, const Size& crop,
                    const Size& out_size, const std::string& interpolation, double threshold,
                    double inner, double outer, bool probability, double min_stability,
                    std::int64_t threads) {
    const py::array logits = logits_array(value);
    const samrt::MaskPlan plan = mask_plan(logits, frame, crop, out_size, interpolation);
    if (out_size.first * out_size.second > kMaxSamples)
        throw py::value_error("out has more than " + std::to_string(kMaxSamples) + " samples");
    check_finite(threshold, "threshold");
    if (!(check_finite(outer, "outer") <= threshold && threshold <= check_finite(inner, "inner")))
        throw py::value_error("outer <= threshold <= inner must hold, got " +
                              std::to_string(outer) + ", " + std::to_string(threshold) + ", " +
                              std::to_string(inner));
    check_finite(min_stability, "min_stability");
    const int team = check_threads(threads);
    const float* source = static_cast<const float*>(logits.data());
    std::vector<samrt::MaskRuns> found(static_cast<std::size_t>(plan.count));
    {
        const NoGil release;
        const samrt::MaskLevels levels{static_cast<float>(threshold), static_cast<float>(inner),
                                       static_cast<float>(outer)};
        samrt::mask_runs(source, plan, levels, probability, static_cast<float>(min_stability),
                         team, found.data());
    }
    py::array_t<float> stabilities(plan.count);
    py::array_t<std::int64_t> areas(plan.count);
    py::array_t<std::int64_t> boxes({py::ssize_t{plan.count}, py::ssize_t{4}});
    float* stability = stabilities.mutable_data();
    std::int64_t *area = areas.mutable_data(), *box = boxes.mutable_data();
    py::list runs;
    for (const samrt::MaskRuns& mask : found) {
        *stability++ = mask.stability;
        *area++ = mask.stats.area;
        *box++ = mask.stats.x0, *box++ = mask.stats.y0;
        *box++ = mask.stats.x1, *box++ = mask.stats.y1;
        if (mask.counts.empty())
            runs.append(py::none());
        else
            runs.append(counts_array(mask.counts));
    }
    return py::make_tuple(stabilities, areas, boxes, runs);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    using py::arg;
    m.doc() = "C++ kernels of samrt; use them through samrt._kernels.";
    m.def("resize", resize, arg("image"), arg("size"), arg("interpolation"), arg("rounding"),
          arg("threads"));
    m.def(
        "preprocess",
        [](const py::object& image, const Size& out_size, const Size& resized,
           const std::string& interpolation, const std::string& rounding,
           const std::vector<Size>& via, double divisor, const Triple& mean, const Triple& std,
           double scale, bool min_max, double pad_value, bool pad_before, bool bgr,
           const std::string& out_dtype, std::int64_t threads) {
            return preprocess(image,
                              {out_size, resized, interpolation, rounding, via, divisor, mean, std,
                               scale, min_max, pad_value, pad_before, out_dtype},
                              bgr, threads);
        },
        arg("image"), py::kw_only(), arg("out_size"), arg("resized"), arg("interpolation"),
        arg("rounding"), arg("via"), arg("divisor"), arg("mean"), arg("std"), arg("scale"),
        arg("min_max"), arg("pad_value"), arg("pad_before"), arg("bgr"), arg("out_dtype"),
        arg("threads"));
    m.def(
        "preprocess_window",
        [](const py::object& image, const std::pair<double, double>& window, const Size& out_size,
           const Size& resized, const std::string& interpolation, const std::string& rounding,
           const std::vector<Size>& via, double divisor, const Triple& mean, const Triple& std,
           double scale, bool min_max, double pad_value, bool pad_before,
           const std::string& out_dtype, std::int64_t threads) {
            return preprocess_window(image, window,
                                     {out_size, resized, interpolation, rounding, via, divisor,
                                      mean, std, scale, min_max, pad_value, pad_before, out_dtype},
                                     threads);
        },
        arg("image"), py::kw_only(), arg("window"), arg("out_size"), arg("resized"),
        arg("interpolation"), arg("rounding"), arg("via"), arg("divisor"), arg("mean"), arg("std"),
        arg("scale"), arg("min_max"), arg("pad_value"), arg("pad_before"), arg("out_dtype"),
        arg("threads"));
    m.def("window_to_uint8", window_to_uint8, arg("image"), arg("low"), arg("high"),
          arg("threads"));
    m.def("upscale_logits", upscale_logits, arg("logits"), py::kw_only(), arg("frame"),
          arg("crop"), arg("out"), arg("interpolation"), arg("threads"));
    m.def("masks_from_logits", masks_from_logits, arg("logits"), py::kw_only(), arg("frame"),
          arg("crop"), arg("out"), arg("interpolation"), arg("threshold"), arg("probability"),
          arg("threads"));
    m.def("stability", stability, arg("logits"), arg("threshold"), arg("offset"));
    m.def("mask_runs", mask_runs, arg("logits"), py::kw_only(), arg("frame"), arg("crop"),
          arg("out"), arg("interpolation"), arg("threshold"), arg("inner"), arg("outer"),
          arg("probability"), arg("min_stability"), arg("threads"));
    add_mask_functions(m);
    m.def("instruction_set", [] { return std::string(samrt::row_kernels().name); });
    m.def("select_instruction_set", samrt::select_row_kernels, arg("name"));
    m.def("release_memory", [] { pool().clear(); });
    m.def("kept_memory", [] { return pool().kept_bytes(); });
}
