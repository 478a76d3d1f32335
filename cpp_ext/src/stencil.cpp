#include "stencil.hpp"

#include <algorithm>

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

}  // namespace

Stencil::Stencil(int low, int frame, int crop, int out) {
    const std::vector<Pair> inner = bilinear(low, frame, crop), outer = bilinear(crop, out, out);
    index_.resize(outer.size() * kStencil);
    weight_.resize(index_.size());
    std::int32_t* index = index_.data();
    float* weight = weight_.data();
    for (const Pair& pair : outer) {
        int used = 0;
        const auto add = [&](std::int32_t sample, float share) {
            if (share == 0.0f) return;
            int k = 0;
            while (k < used && index[k] != sample) ++k;
            if (k == used) index[used++] = sample, weight[k] = 0.0f;
            weight[k] += share;
        };
        const auto add_both = [&](const Pair& from, float share) {
            add(from.left, share * (1.0f - from.fraction));
            add(from.right, share * from.fraction);
        };
        add_both(inner[static_cast<std::size_t>(pair.left)], 1.0f - pair.fraction);
        if (pair.fraction != 0.0f)
            add_both(inner[static_cast<std::size_t>(pair.right)], pair.fraction);
        taps_ = std::max(taps_, used);
        for (; used < kStencil; ++used) index[used] = index[0], weight[used] = 0.0f;
        index += kStencil;
        weight += kStencil;
    }
}

int Stencil::lowest(int from, int to) const {
    return *std::min_element(index(from), index(from) + kStencil * (to - from));
}

int Stencil::highest(int from, int to) const {
    return *std::max_element(index(from), index(from) + kStencil * (to - from));
}

}  // namespace samrt
