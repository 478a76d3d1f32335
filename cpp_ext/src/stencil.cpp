#include "stencil.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace samrt {
namespace {

struct Pair {
    std::int32_t left, right;
    float fraction;  // weight of `right`
};

// Bilinear positions of the first `count` of `out` samples, as PyTorch finds them
// (align_corners=False): a float32 scale, then a fused multiply-add. In double precision the
// product is exact, so rounding the sum gives the fused result on every machine.
std::vector<Pair> bilinear(int in, int out, int count) {
    const double scale = static_cast<float>(in) / static_cast<float>(out);
    std::vector<Pair> pairs(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
        const double centre = scale * (static_cast<float>(i) + 0.5f) - 0.5;
        const float position = centre > 0.0 ? static_cast<float>(centre) : 0.0f;
        const int left = std::min(static_cast<int>(position), in - 1);
        const float fraction = std::min(position - static_cast<float>(left), 1.0f);
        pairs[static_cast<std::size_t>(i)] = {left, std::min(left + 1, in - 1), fraction};
    }
    return pairs;
}

// Sample floor(i * in / out), the product in float32.
std::vector<Pair> nearest(int in, int out, int count) {
    const float scale = static_cast<float>(in) / static_cast<float>(out);
    std::vector<Pair> pairs(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
        const int sample = static_cast<int>(std::floor(static_cast<float>(i) * scale));
        const int left = std::min(sample, in - 1);
        pairs[static_cast<std::size_t>(i)] = {left, left, 0.0f};
    }
    return pairs;
}

// Keys' cubic with a = -0.75 at the distances 1 + x, x, 1 - x and 2 - x.
void cubic_weights(float x, float* weight) {
    constexpr float a = -0.75f;
    const auto near = [](float d) { return ((a + 2.0f) * d - (a + 3.0f)) * d * d + 1.0f; };
    const auto far = [](float d) { return ((a * d - 5.0f * a) * d + 8.0f * a) * d - 4.0f * a; };
    weight[0] = far(x + 1.0f);
    weight[1] = near(x);
    weight[2] = near(1.0f - x);
    weight[3] = far(2.0f - x);
}

}  // namespace

// One output sample: the sources so far and their weights.
struct Stencil::Sums {
    std::int32_t* index;
    float* weight;
    int used = 0;

    void add(std::int32_t sample, float share) {
        if (share == 0.0f) return;
        int k = 0;
        while (k < used && index[k] != sample) ++k;
        if (k == used) index[used++] = sample, weight[k] = 0.0f;
        weight[k] += share;
    }
    void add_both(const Pair& from, float share) {
        add(from.left, share * (1.0f - from.fraction));
        add(from.right, share * from.fraction);
    }
    void finish() {
        for (int k = used; k < kStencil; ++k) index[k] = index[0], weight[k] = 0.0f;
    }
};

Stencil::Stencil(Upscaling kind, int low, int frame, int crop, int out) {
    const std::size_t n = static_cast<std::size_t>(out);
    index_.resize(n * kStencil);
    weight_.resize(n * kStencil);
    const auto finish = [&](Sums& sums) {
        sums.finish();
        taps_ = std::max(taps_, sums.used);
        float negative = 0.0f;
        for (int k = 0; k < kStencil; ++k) negative -= std::min(sums.weight[k], 0.0f);
        negative_ = std::max(negative_, negative);
    };
    if (kind == Upscaling::kBicubic) {
        if (low != frame)
            throw std::invalid_argument("bicubic takes one step: frame must be the size of the logits");
        const double scale = static_cast<float>(crop) / static_cast<float>(out);
        for (std::size_t i = 0; i < n; ++i) {
            const float place = static_cast<float>(scale * (static_cast<float>(i) + 0.5f) - 0.5);
            const float left = std::floor(place);
            float weight[kStencil];
            cubic_weights(place - left, weight);
            Sums sums{index_.data() + i * kStencil, weight_.data() + i * kStencil};
            for (int k = 0; k < kStencil; ++k)
                sums.add(std::clamp(static_cast<int>(left) - 1 + k, 0, crop - 1), weight[k]);
            finish(sums);
        }
        return;
    }
    const auto positions = kind == Upscaling::kNearest ? nearest : bilinear;
    const std::vector<Pair> inner = positions(low, frame, crop), outer = positions(crop, out, out);
    for (std::size_t i = 0; i < n; ++i) {
        const Pair& pair = outer[i];
        Sums sums{index_.data() + i * kStencil, weight_.data() + i * kStencil};
        sums.add_both(inner[static_cast<std::size_t>(pair.left)], 1.0f - pair.fraction);
        if (pair.fraction != 0.0f)
            sums.add_both(inner[static_cast<std::size_t>(pair.right)], pair.fraction);
        finish(sums);
    }
}

Upscaling parse_upscaling(const std::string& name) {
    if (name == "bilinear") return Upscaling::kBilinear;
    if (name == "bicubic") return Upscaling::kBicubic;
    if (name == "nearest") return Upscaling::kNearest;
    throw std::invalid_argument("unknown interpolation '" + name +
                                "'; expected bilinear, bicubic or nearest");
}

int Stencil::lowest(int from, int to) const {
    return *std::min_element(index(from), index(from) + kStencil * (to - from));
}

int Stencil::highest(int from, int to) const {
    return *std::max_element(index(from), index(from) + kStencil * (to - from));
}

}  // namespace samrt
