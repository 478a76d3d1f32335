// Compares the kernels with the answers that make_golden.py wrote, with every instruction set of
// the machine and with one and three threads. Needs nothing but the kernels: it runs where there
// is no Python, and under an emulator.
//
//     test_kernels FILE

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "samrt/masks.hpp"
#include "samrt/postprocess.hpp"
#include "samrt/preprocess.hpp"
#include "samrt/rle.hpp"
#include "samrt/rows.hpp"

namespace {

using namespace samrt;

class Reader {
public:
    explicit Reader(const std::vector<char>& data) : data_(data) {}

    void restart() { at_ = 0; }
    int integer() { return static_cast<int>(value<std::int64_t>()); }
    double number() { return value<double>(); }
    std::string text() {
        const std::vector<char> bytes = array<char>();
        return std::string(bytes.begin(), bytes.end());
    }
    template <typename T>
    std::vector<T> array() {
        const auto size = static_cast<std::size_t>(value<std::uint64_t>());
        std::vector<T> out((size + sizeof(T) - 1) / sizeof(T));
        take(out.data(), size);
        return out;
    }

private:
    template <typename T>
    T value() {
        T out;
        take(&out, sizeof out);
        return out;
    }
    void take(void* to, std::size_t size) {
        if (size > data_.size() - at_) throw std::runtime_error("the file ends too early");
        if (size != 0) std::memcpy(to, data_.data() + at_, size);
        at_ += size;
    }

    const std::vector<char>& data_;
    std::size_t at_ = 0;
};

using Bytes = std::vector<std::uint8_t>;

template <typename A, typename B>
bool within(const std::vector<A>& got, const std::vector<B>& expected, double tolerance) {
    if (got.size() != expected.size()) return false;
    for (std::size_t i = 0; i < got.size(); ++i)
        if (!(std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i])) <=
              tolerance))
            return false;
    return true;
}

std::size_t product(int a, int b, int c = 1) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
}

bool check_resize(Reader& in, int threads, bool exact) {
    const Interpolation kind = parse_interpolation(in.text());
    ByteImage image;
    image.height = in.integer(), image.width = in.integer(), image.channels = in.integer();
    const int height = in.integer(), width = in.integer();
    const Bytes source = in.array<std::uint8_t>();
    image.data = source.data();
    Bytes got(product(height, width, image.channels));
    resize(image, height, width, kind, threads, got.data());
    if (exact) return got == in.array<std::uint8_t>();
    return within(got, in.array<double>(), 0.502);
}

bool check_preprocess(Reader& in, int threads) {
    ByteImage image;
    PreprocessPlan plan;
    image.height = in.integer(), image.width = in.integer(), image.channels = in.integer();
    plan.height = in.integer(), plan.width = in.integer();
    plan.frame_height = in.integer(), plan.frame_width = in.integer();
    for (float& mean : plan.mean) mean = static_cast<float>(in.number());
    for (float& std : plan.std) std = static_cast<float>(in.number());
    plan.scale = static_cast<float>(in.number());
    plan.min_max = in.integer() != 0;
    plan.pad_value = static_cast<float>(in.number());
    plan.pad_before = in.integer() != 0;
    plan.bgr = in.integer() != 0;
    plan.half = in.integer() != 0;
    const Bytes source = in.array<std::uint8_t>();
    image.data = source.data();
    const Bytes expected = in.array<std::uint8_t>();
    Bytes got(product(3, plan.frame_height, plan.frame_width) * (plan.half ? 2 : 4));
    preprocess(image, plan, threads, got.data());
    return got == expected;
}

bool check_window(Reader& in, int threads) {
    WindowedImage image;
    PreprocessPlan plan;
    image.sample = static_cast<Sample>(in.integer());
    image.height = in.integer(), image.width = in.integer();
    plan.height = plan.frame_height = in.integer();
    plan.width = plan.frame_width = in.integer();
    image.low = in.number(), image.high = in.number();
    const std::vector<float> storage = in.array<float>();  // of any type; aligned for all
    image.data = storage.data();
    std::vector<float> tensor(product(3, plan.height, plan.width));
    preprocess_window(image, plan, threads, tensor.data());
    Bytes bytes(product(image.height, image.width));
    window_to_bytes(image, threads, bytes.data());
    const bool right = within(tensor, in.array<float>(), 1e-3);
    return bytes == in.array<std::uint8_t>() && right;
}

bool check_logits(Reader& in, int threads) {
    MaskPlan plan;
    for (int* size : {&plan.count, &plan.low_height, &plan.low_width, &plan.frame_height,
                      &plan.frame_width, &plan.crop_height, &plan.crop_width, &plan.out_height,
                      &plan.out_width})
        *size = in.integer();
    const std::vector<float> logits = in.array<float>();
    const std::vector<float> expected = in.array<float>(), stable = in.array<float>();
    std::vector<float> got(static_cast<std::size_t>(plan.count) * plan.out_size());
    upscale_logits(logits.data(), plan, threads, got.data());
    bool right = within(got, expected, 1e-4);
    for (const float threshold : {0.0f, 0.7f, -1e3f}) {
        Bytes masks(got.size());
        masks_from_logits(logits.data(), plan, threshold, false, threads, masks.data());
        for (std::size_t i = 0; i < got.size(); ++i) right &= masks[i] == (got[i] > threshold);
    }
    std::vector<float> scores(static_cast<std::size_t>(plan.count));
    stability(logits.data(), plan.count, plan.low_size(), 0.25, 0.5, scores.data());
    return right && scores == stable;
}

bool check_mask(Reader& in) {
    const int height = in.integer(), width = in.integer();
    const MaskShape shape{height, width};
    const Bytes mask = in.array<std::uint8_t>();
    const auto areas = in.array<std::int64_t>(), box = in.array<std::int64_t>();
    const auto counts = in.array<std::uint32_t>();
    const std::string text = in.text();
    const MaskStats stats = mask_stats(mask.data(), shape);
    Bytes decoded(shape.size());
    rle_decode(counts.data(), counts.size(), shape, decoded.data());
    return stats.area == areas[0] && stats.x0 == box[0] && stats.y0 == box[1] &&
           stats.x1 == box[2] && stats.y1 == box[3] && rle_encode(mask.data(), shape) == counts &&
           decoded == mask && rle_to_string(counts.data(), counts.size()) == text &&
           rle_from_string(text) == counts;
}

bool check_components(Reader& in) {
    const int height = in.integer(), width = in.integer(), connectivity = in.integer();
    const MaskShape shape{height, width};
    const Bytes mask = in.array<std::uint8_t>();
    const auto expected = in.array<std::int32_t>();
    std::vector<std::int32_t> labels(shape.size());
    const int n = label_regions(mask.data(), shape, connectivity, false, labels.data(), nullptr);
    return n == in.integer() && labels == expected;
}

bool check_small(Reader& in) {
    const int height = in.integer(), width = in.integer();
    const MaskShape shape{height, width};
    const double min_area = in.number();
    const bool holes = in.integer() != 0;
    const Bytes mask = in.array<std::uint8_t>(), expected = in.array<std::uint8_t>();
    Bytes kept(shape.size());
    const bool changed =
        remove_small_regions(mask.data(), shape, min_area, holes, kept.data());
    return changed == (in.integer() != 0) && kept == expected;
}

bool check_polygons(Reader& in) {
    const int height = in.integer(), width = in.integer();
    const Bytes mask = in.array<std::uint8_t>();
    const auto expected_lengths = in.array<std::int64_t>();
    const auto expected_points = in.array<std::int32_t>();
    std::vector<std::int64_t> lengths;
    std::vector<std::int32_t> points;
    for (const Polygon& polygon : mask_polygons(mask.data(), {height, width})) {
        lengths.push_back(static_cast<std::int64_t>(polygon.rings.size()));
        for (const auto& ring : polygon.rings) {
            lengths.push_back(static_cast<std::int64_t>(ring.size()));
            for (const Point& point : ring) points.push_back(point.x), points.push_back(point.y);
        }
    }
    return lengths == expected_lengths && points == expected_points;
}

bool check(const std::string& name, Reader& in, int threads) {
    if (name == "resize") return check_resize(in, threads, true);
    if (name == "resize_float") return check_resize(in, threads, false);
    if (name == "preprocess") return check_preprocess(in, threads);
    if (name == "window") return check_window(in, threads);
    if (name == "logits") return check_logits(in, threads);
    if (name == "mask") return check_mask(in);
    if (name == "components") return check_components(in);
    if (name == "small") return check_small(in);
    if (name == "polygons") return check_polygons(in);
    throw std::runtime_error("unknown case '" + name + "'");
}

bool bad_input_throws() {
    int thrown = 0;
    const std::uint32_t counts[] = {3, 4};
    std::uint8_t mask[6];
    for (const auto& call : std::vector<std::function<void()>>{
             [&] { rle_decode(counts, 2, {2, 3}, mask); },
             [] { rle_from_string("P"); },
             [] { rle_from_string("\x7f"); },
             [] { parse_interpolation("lanczos"); },
             [] { select_row_kernels("mmx"); },
         }) {
        try {
            call();
        } catch (const std::invalid_argument&) {
            ++thrown;
        }
    }
    return thrown == 5;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: test_kernels FILE\n");
        return 2;
    }
    std::ifstream file(argv[1], std::ios::binary);
    const std::vector<char> data{std::istreambuf_iterator<char>(file), {}};
    Reader in(data);
    int passed = 0, failed = 0;
    const auto count = [&](bool right, const std::string& what) {
        right ? ++passed : ++failed;
        if (!right) std::printf("FAILED %s\n", what.c_str());
    };
    try {
        for (const std::string set : {"baseline", "auto"}) {
            const std::string used = select_row_kernels(set);
            if (set == "auto" && used == "baseline") break;  // there is no other
            for (const int threads : {1, 3}) {
                std::map<std::string, int> cases;
                in.restart();
                for (std::string name = in.text(); name != "end"; name = in.text()) {
                    const int number = cases[name]++;
                    count(check(name, in, threads), name + " " + std::to_string(number) + ", " +
                                                        used + ", " + std::to_string(threads) +
                                                        " threads");
                }
                std::printf("%s, %d threads:", used.c_str(), threads);
                for (const auto& [name, number] : cases)
                    std::printf(" %d %s", number, name.c_str());
                std::printf("\n");
            }
        }
        count(bad_input_throws(), "bad input throws");
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", argv[1], error.what());
        return 2;
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
