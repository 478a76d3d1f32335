#include "bindings_masks.hpp"

#include <algorithm>

#include "bindings_checks.hpp"
#include "samrt/mask_runs.hpp"
#include "samrt/masks.hpp"
#include "samrt/rle.hpp"

namespace samrt_py {
namespace {

using NoGil = py::gil_scoped_release;

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

samrt::MaskShape mask_shape(const Size& size, const std::string& name) {
    const auto [height, width] = check_size(size, name);
    if (size.first * size.second > kMaxSamples)
        throw py::value_error(name + " has more than " + std::to_string(kMaxSamples) + " samples");
    return {height, width};
}

// Before a large array is made.
void check_sum(const py::array& counts, const Size& size) {
    const auto* source = static_cast<const std::uint32_t*>(counts.data());
    std::uint64_t total = 0;
    for (py::ssize_t i = 0; i < counts.size(); ++i) total += source[i];
    if (total != static_cast<std::uint64_t>(size.first * size.second))
        throw py::value_error("counts sum to " + std::to_string(total) +
                              " samples; expected height * width = " +
                              std::to_string(size.first * size.second));
}

py::array place_runs(const py::object& value, const Size& size, const Size& at,
                     const Size& whole) {
    const py::array counts = checked_counts(value);
    const samrt::MaskShape part = mask_shape(size, "size"), all = mask_shape(whole, "whole");
    check_sum(counts, size);
    if (at.first < 0 || at.second < 0 || at.first > whole.first - size.first ||
        at.second > whole.second - size.second)
        throw py::value_error("a part of size (" + std::to_string(size.first) + ", " +
                              std::to_string(size.second) + ") at (" + std::to_string(at.first) +
                              ", " + std::to_string(at.second) + ") must lie within whole (" +
                              std::to_string(whole.first) + ", " + std::to_string(whole.second) +
                              ")");
    std::vector<std::uint32_t> moved;
    {
        const NoGil release;
        moved = samrt::place_runs(static_cast<const std::uint32_t*>(counts.data()),
                                  static_cast<std::size_t>(counts.size()), part,
                                  static_cast<int>(at.first), static_cast<int>(at.second), all);
    }
    return counts_array(moved);
}

py::array box_nms(const py::object& box_value, const py::object& score_value, double threshold) {
    const py::array boxes = as_array(box_value, "boxes"), scores = as_array(score_value, "scores");
    check_rank(boxes, "boxes", 2, "(N, 4)");
    check_rank(scores, "scores", 1, "(N,)");
    const float* corners = samples<float>(boxes, "boxes");
    const float* ranks = samples<float>(scores, "scores");
    if (boxes.shape(1) != 4 || boxes.shape(0) != scores.shape(0))
        throw py::value_error("boxes must be (N, 4) and scores (N,), got " + shape_text(boxes) +
                              " and " + shape_text(scores));
    check_finite(threshold, "threshold");
    for (py::ssize_t i = 0; i < boxes.size(); ++i) check_finite(corners[i], "boxes");
    for (py::ssize_t i = 0; i < scores.size(); ++i) check_finite(ranks[i], "scores");
    std::vector<std::int64_t> kept;
    {
        const NoGil release;
        kept = samrt::box_nms(corners, ranks, static_cast<std::size_t>(scores.size()), threshold);
    }
    py::array_t<std::int64_t> out(static_cast<py::ssize_t>(kept.size()));
    std::copy(kept.begin(), kept.end(), out.mutable_data());
    return std::move(out);
}

py::array rle_decode(const py::object& value, const Size& size) {
    const py::array counts = checked_counts(value);
    const samrt::MaskShape shape = mask_shape(size, "size");
    check_sum(counts, size);
    const auto n = static_cast<std::size_t>(counts.size());
    const auto* source = static_cast<const std::uint32_t*>(counts.data());
    py::array_t<bool> out({shape.height, shape.width});
    auto* target = reinterpret_cast<std::uint8_t*>(out.mutable_data());
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

py::array counts_array(const std::vector<std::uint32_t>& counts) {
    py::array_t<std::uint32_t> out(static_cast<py::ssize_t>(counts.size()));
    std::copy(counts.begin(), counts.end(), out.mutable_data());
    return std::move(out);
}

void add_mask_functions(py::module_& m) {
    using py::arg;
    m.def("mask_stats", mask_stats, arg("mask"));
    m.def("rle_encode", rle_encode, arg("mask"));
    m.def("rle_decode", rle_decode, arg("counts"), arg("size"));
    m.def("rle_to_string", rle_to_string, arg("counts"));
    m.def("rle_from_string", rle_from_string, arg("text"));
    m.def("connected_components", connected_components, arg("mask"), arg("connectivity"));
    m.def("remove_small_regions", remove_small_regions, arg("mask"), arg("min_area"),
          arg("mode"));
    m.def("mask_polygons", mask_polygons, arg("mask"));
    m.def("place_runs", place_runs, arg("counts"), arg("size"), arg("at"), arg("whole"));
    m.def("box_nms", box_nms, arg("boxes"), arg("scores"), arg("threshold"));
}

}  // namespace samrt_py
