// Compares the kernels with the answers that make_golden.py wrote, with every instruction set of
// the machine and with one and three threads. Needs nothing but the kernels: it runs where there
// is no Python, and under an emulator.
//
//     test_kernels FILE

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "samrt/mask_runs.hpp"
#include "samrt/masks.hpp"
#include "samrt/parallel.hpp"
#include "samrt/placement.hpp"
#include "samrt/pool.hpp"
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
    const Rounding rounding = parse_rounding(in.text());
    ByteImage image;
    image.height = in.integer(), image.width = in.integer(), image.channels = in.integer();
    const int height = in.integer(), width = in.integer();
    const Bytes source = in.array<std::uint8_t>();
    image.data = source.data();
    Bytes got(product(height, width, image.channels));
    resize(image, height, width, kind, rounding, threads, got.data());
    if (exact) return got == in.array<std::uint8_t>();
    return within(got, in.array<double>(), 0.502);
}

bool check_preprocess(Reader& in, int threads) {
    ByteImage image;
    PreprocessPlan plan;
    plan.interpolation = parse_interpolation(in.text());
    plan.rounding = parse_rounding(in.text());
    if (const int via = in.integer(); via != 0) plan.via.emplace_back(via, via);
    plan.divisor = static_cast<float>(in.number());
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

// Run lengths, figures and stability straight from the logits, against the upscaled floats.
bool runs_agree(const float* logits, const MaskPlan& plan, int threads,
                const std::vector<float>& full) {
    const MaskLevels levels{0.2f, 1.3f, -0.9f};
    const MaskShape shape{plan.out_height, plan.out_width};
    std::vector<MaskRuns> found(static_cast<std::size_t>(plan.count));
    mask_runs(logits, plan, levels, false, -1.0f, threads, found.data());
    bool right = true;
    for (std::size_t m = 0; m < found.size(); ++m) {
        const float* values = full.data() + m * plan.out_size();
        Bytes mask(plan.out_size());
        double inner = 0.0, outer = 0.0;
        for (std::size_t i = 0; i < mask.size(); ++i) {
            mask[i] = values[i] > levels.threshold;
            inner += values[i] > levels.inner;
            outer += values[i] > levels.outer;
        }
        const float expected = outer == 0.0 ? 0.0f : static_cast<float>(inner / outer);
        right &= found[m].stability == expected;
        right &= found[m].counts == rle_encode(mask.data(), shape);
        right &= found[m].stats.area == mask_stats(mask.data(), shape).area;
    }
    mask_runs(logits, plan, levels, false, 2.0f, threads, found.data());
    for (const MaskRuns& none : found) right &= none.counts.empty() || none.stability >= 2.0f;
    return right;
}

bool check_logits(Reader& in, int threads) {
    MaskPlan plan;
    plan.interpolation = parse_upscaling(in.text());
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
    right &= runs_agree(logits.data(), plan, threads, got);
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

bool check_placed(Reader& in) {
    const int height = in.integer(), width = in.integer();
    const int row = in.integer(), column = in.integer();
    const int whole_height = in.integer(), whole_width = in.integer();
    const auto counts = in.array<std::uint32_t>(), expected = in.array<std::uint32_t>();
    return place_runs(counts.data(), counts.size(), {height, width}, row, column,
                      {whole_height, whole_width}) == expected;
}

bool check_nms(Reader& in) {
    const double threshold = in.number();
    const auto boxes = in.array<float>(), scores = in.array<float>();
    return box_nms(boxes.data(), scores.data(), scores.size(), threshold) ==
           in.array<std::int64_t>();
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
    if (name == "placed") return check_placed(in);
    if (name == "nms") return check_nms(in);
    throw std::runtime_error("unknown case '" + name + "'");
}

// Blocks come back, at most two and 64 MiB of them, and none is ever given away twice.
bool pool_keeps_its_word() {
    constexpr std::size_t mib = std::size_t{1} << 20;
    BlockPool pool;
    void* a = pool.take(3 * mib);
    std::memset(a, 1, 3 * mib);
    bool right = pool.kept_bytes() == 0;
    pool.give(a, 3 * mib);
    void* other = pool.take(2 * mib);
    void* again = pool.take(3 * mib);
    void* more = pool.take(3 * mib);
    right &= again == a && more != a && other != a && pool.kept_bytes() == 0;
    pool.give(again, 3 * mib);
    pool.give(more, 3 * mib);
    pool.give(other, 2 * mib);
    right &= pool.kept_bytes() == 5 * mib;
    void* large = pool.take(63 * mib);
    pool.give(large, 63 * mib);
    right &= pool.kept_bytes() == 63 * mib;
    pool.give(pool.take(65 * mib), 65 * mib);
    pool.give(pool.take(100), 100);
    right &= pool.kept_bytes() == 63 * mib;
    pool.clear();
    right &= pool.kept_bytes() == 0;
    parallel_for(4, 200, [&](int worker, std::int64_t unit) {
        const std::size_t size = (1 + static_cast<std::size_t>(unit) % 3) * mib;
        auto* block = static_cast<unsigned char*>(pool.take(size));
        block[0] = block[size - 1] = static_cast<unsigned char>(worker);
        if (block[0] != worker || block[size - 1] != worker) std::abort();
        pool.give(block, size);
    });
    return right && pool.kept_bytes() <= BlockPool::kMostBytes;
}

#ifdef __linux__
// Helpers that end before their maker has looked after them must not change where it may run.
bool the_caller_stays_free() {
    cpu_set_t before, after;
    sched_getaffinity(0, sizeof before, &before);
    for (int i = 0; i < 3000; ++i) parallel_for(3, 3, [](int, std::int64_t) {});
    sched_getaffinity(0, sizeof after, &after);
    return CPU_EQUAL(&before, &after);
}
#else
bool the_caller_stays_free() { return true; }
#endif

bool bad_input_throws() {
    int thrown = 0;
    const std::uint32_t counts[] = {3, 4};
    std::uint8_t mask[6] = {};
    const ByteImage image{mask, 2, 3, 1};
    PreprocessPlan truncated;
    truncated.rounding = Rounding::kTruncate;
    for (const auto& call : std::vector<std::function<void()>>{
             [&] { rle_decode(counts, 2, {2, 3}, mask); },
             [] { rle_from_string("P"); },
             [] { rle_from_string("\x7f"); },
             [] { parse_interpolation("lanczos"); },
             [] { parse_rounding("up"); },
             [] { parse_upscaling("area"); },
             [&] { resize(image, 2, 2, Interpolation::kArea, Rounding::kTruncate, 1, mask); },
             [&] { preprocess(image, truncated, 1, mask); },
             [] { select_row_kernels("mmx"); },
         }) {
        try {
            call();
        } catch (const std::invalid_argument&) {
            ++thrown;
        }
    }
    return thrown == 9;
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
        count(pool_keeps_its_word(), "pool of memory");
        count(the_caller_stays_free(), "the caller may run where it could");
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", argv[1], error.what());
        return 2;
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
