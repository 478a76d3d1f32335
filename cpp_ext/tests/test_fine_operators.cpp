// The operators of the decoder of `tiny`: their loops against plain ones in double precision, and a
// whole way, for the sanitizers. What it computes is compared in tests/cpp_ext/test_fine_operators.py.
#include <array>
#include <memory>

#include "../ops/fine_layers.hpp"
#include "operators.hpp"

namespace samrt::ops::tests {
namespace {

using Doubles = std::vector<double>;

void planes(int out, int channels, int taps, int width, bool add, bool relu) {
    const int height = taps == 3 ? 3 : 1, step = width + 2;
    const Floats x = noise(size(channels, height) * at(step)), kernel = noise(size(out, channels) * size(taps, taps));
    const Floats bias = noise(at(out)), added = noise(size(out, width));
    const PlanarWeights weights(kernel.data(), bias.data(), out, channels, taps);
    Floats y(size(out, width));
    std::vector<const float*> rows, more;
    std::vector<float*> to;
    for (int i = 0; i < channels * height; ++i) rows.push_back(x.data() + size(i, step) + 1);
    for (int o = 0; o < out; ++o) {
        more.push_back(added.data() + size(o, width));
        to.push_back(y.data() + size(o, width));
    }
    kernels().planar({rows.data(), channels, taps, weights.weight.data(), weights.bias.data(),
                      add ? more.data() : nullptr, relu, width, out, to.data()});
    Doubles expected(y.size());
    for (int o = 0; o < out; ++o)
        for (int i = 0; i < width; ++i) {
            double sum = double(bias[at(o)]) + (add ? double(added[size(o, width) + at(i)]) : 0.0);
            for (int c = 0; c < channels; ++c)
                for (int dy = 0; dy < taps; ++dy)
                    for (int dx = 0; dx < taps; ++dx)
                        sum += double(kernel[((size(o, channels) + at(c)) * at(taps) + at(dy)) * at(taps) + at(dx)]) *
                               double(x[size(c * height + dy, step) + at(1 + i + dx - taps / 2)]);
            expected[size(o, width) + at(i)] = relu && sum < 0 ? 0.0 : sum;
        }
    compare("planes", y, expected, 2e-6);
}

void doubled(int n) {
    const Floats near = noise(at(n)), far = noise(at(n));
    Floats space(at(n + 2)), y(at(2 * n));
    kernels().double_row(near.data(), far.data(), n, space.data(), y.data());
    Doubles between, expected;
    for (int i = 0; i < n; ++i)
        between.push_back(0.75 * double(near[at(i)]) + 0.25 * double(far[at(i)]));
    for (int i = 0; i < n; ++i) {
        expected.push_back(0.75 * between[at(i)] + 0.25 * between[at(std::max(i - 1, 0))]);
        expected.push_back(0.75 * between[at(i)] + 0.25 * between[at(std::min(i + 1, n - 1))]);
    }
    compare("doubled rows", y, expected, 1e-6);
}

void probabilities(int n) {
    const Floats x = noise(at(n), 20.0f), positive = noise(at(n)), negative = noise(at(n));
    Floats y(at(n)), columns(at(n), 0.5f);
    kernels().sigmoid(x.data(), n, y.data());
    Doubles expected, most;
    std::array<double, 6> sums{};
    for (int i = 0; i < n; ++i) {
        const double p = 1 / (1 + std::exp(-double(x[at(i)]))), hard = x[at(i)] > 0 ? 1 : 0;
        expected.push_back(p);
        most.push_back(std::max(p, 0.5));
        const double adds[] = {p, hard, p * hard, p * double(positive[at(i)]),
                               p * double(negative[at(i)])};
        for (std::size_t k = 0; k < 5; ++k) sums[k] += adds[k];
        sums[5] = std::max(sums[5], p);
    }
    compare("probabilities", y, expected, 1e-6);
    MaskSums found;
    const float top = kernels().mask_figures(x.data(), n, positive.data(), negative.data(),
                                             columns.data(), &found);
    compare("columns of a mask", columns, most, 1e-6);
    compare("figures of a mask",
            {found.probability, found.area, found.both, found.positive, found.negative, top},
            {sums.begin(), sums.end()}, 1e-5);
}

// One and two prompts, in any order of units, and the same twice.
void whole_way(int side) {
    const int channels = 24, middle = 16, f8 = 12, f4 = 8, f2 = 4, masks = 4, prompts = 2;
    const auto kernel = [](int out, int in) {
        const Floats w = noise(size(out, in) * 9, 0.1f);
        return Conv3x3Weights(w.data(), out, in);
    };
    const auto matrix = [](int k, int n) {
        const Floats w = noise(size(k, n), 0.2f);
        return Packed(w.data(), n, k, n);
    };
    const auto planar = [](int out, int in, int taps) {
        const Floats w = noise(size(out, in) * size(taps, taps), 0.2f), b = noise(at(out));
        return PlanarWeights(w.data(), b.data(), out, in, taps);
    };
    const auto like = [](int c) {
        return Likeness{noise(size(c, c)), noise(size(c, c)), noise(size(4 * c, c)), noise(at(c))};
    };
    const FineWeights weights{
        Bottleneck{matrix(channels, middle), matrix(middle, channels), noise(at(middle)),
                   noise(at(middle)), noise(at(channels)), kernel(middle, middle)},
        matrix(channels, f8), noise(at(f8)), like(f8), like(f4), noise(size(12, f8)), noise(at(f8)),
        kernel(f8, f8), kernel(f8, f8), noise(at(f8)), noise(at(f8)), noise(size(f4, f8)),
        noise(at(f4)), noise(size(f4, 12)), noise(at(f4)), planar(f4, f4, 3), planar(f4, f4, 3),
        planar(f2, f4, 1), planar(f2, f2, 3)};
    const std::size_t area = size(side, side);
    const Floats a8 = noise(4 * area * at(f8)), a4 = noise(16 * area * at(f4)), a2 = noise(64 * area * at(f2));
    const Floats embedding = noise(area * at(channels)), hyper = noise(size(prompts, masks) * at(f2 + 1));
    const Floats coords = noise(size(prompts, 3) * 2, 8.0f * static_cast<float>(side));
    const Floats labels = {2, 3, 1, 0, 1, -1}, mask = noise(size(prompts, 64) * area, 5.0f), has = {0, 1};
    Packed w1 = matrix(12 * 9, middle), w2 = matrix(middle, channels);
    const Floats b1 = noise(at(middle)), b2 = noise(at(channels));
    Floats results[2];
    for (Floats& result : results) {
        Floats grid(size(prompts, 12) * 16 * area), image(size(prompts, channels) * area);
        draw_prompts({prompts, 3, coords.data(), labels.data(), mask.data(), has.data()}, side,
                     grid.data(), serial);
        start_image(embedding.data(), grid.data(), prompts, side,
                    {&w1, &w2, b1.data(), b2.data()}, image.data(), serial);
        result.resize(size(prompts, masks) * (64 * area + kFigures + 1));
        float* figures = result.data() + size(prompts, masks) * 64 * area;
        fine_masks({image.data(), a8.data(), a4.data(), a2.data(), grid.data(), hyper.data()},
                   prompts, masks, side, weights,
                   {result.data(), figures, figures + size(prompts, masks) * kFigures}, serial);
    }
    compare("a whole way, twice", results[0], doubles(results[1]), 0.0);
}

struct Plane {
    int channels, side;
    Doubles data;
    double at_or_zero(int c, int y, int x) const {
        return y < 0 || x < 0 || y >= side || x >= side
                   ? 0.0
                   : data[size(c * side + y, side) + at(x)];
    }
};

struct Weight {
    int out, channels, taps;
    Floats weight, bias;
    Weight(int out_, int channels_, int taps_)
        : out(out_), channels(channels_), taps(taps_),
          weight(noise(size(out_, channels_) * size(taps_, taps_), 0.5f / static_cast<float>(taps_))),
          bias(noise(at(out_))) {}
    Plane of(const Plane& x, int stride, bool relu) const {
        Plane y{out, x.side / stride, {}};
        for (int o = 0; o < out; ++o)
            for (int i = 0; i < y.side; ++i)
                for (int j = 0; j < y.side; ++j) {
                    double sum = double(bias[at(o)]);
                    for (int c = 0; c < channels; ++c)
                        for (int dy = 0; dy < taps; ++dy)
                            for (int dx = 0; dx < taps; ++dx)
                                sum += x.at_or_zero(c, i * stride + dy - taps / 2,
                                                    j * stride + dx - taps / 2) *
                                       double(weight[size((o * channels + c) * taps + dy, taps) + at(dx)]);
                    y.data.push_back(relu && sum < 0 ? 0.0 : sum);
                }
        return y;
    }
    StridedWeights strided() const {
        return StridedWeights(weight.data(), bias.data(), out, channels, taps);
    }
    EncoderWeights::Square square() const {
        return {Conv3x3Weights(weight.data(), out, channels), bias};
    }
    PointWeights point() const {
        Floats turned(weight.size());
        for (int o = 0; o < out; ++o)
            for (int c = 0; c < channels; ++c)
                turned[size(c, out) + at(o)] = weight[size(o, channels) + at(c)];
        return {Packed(turned.data(), out, channels, out), bias};
    }
    PlaneWeights planes() const { return {channels, out, weight, bias}; }
};

// a + b doubled, perhaps with relu.
Plane with_doubled(Plane a, const Plane& b, bool relu) {
    const auto cut = [&b](int i) { return std::min(std::max(i, 0), b.side - 1); };
    for (int c = 0; c < a.channels; ++c)
        for (int i = 0; i < a.side; ++i)
            for (int j = 0; j < a.side; ++j) {
                const int y = i / 2, x = j / 2, y2 = cut(y + (i % 2 ? 1 : -1)), x2 = cut(x + (j % 2 ? 1 : -1));
                double& value = a.data[size(c * a.side + i, a.side) + at(j)];
                value += 0.75 * (0.75 * b.at_or_zero(c, y, x) + 0.25 * b.at_or_zero(c, y, x2)) +
                         0.25 * (0.75 * b.at_or_zero(c, y2, x) + 0.25 * b.at_or_zero(c, y2, x2));
                if (relu) value = std::max(value, 0.0);
            }
    return a;
}

void encoding() {
    const int side = 128;
    const Weight stem(4, 3, 5), a(4, 4, 3), a1(4, 4, 3), a2(4, 4, 3), b(8, 4, 3), c(8, 8, 3), d(12, 8, 3);
    const Weight laterals[] = {{8, 8, 1}, {8, 8, 1}, {4, 4, 1}};
    const Weight coarser[] = {{8, 12, 1}, {8, 8, 1}, {4, 8, 1}};
    const Weight smooth[] = {{8, 8, 3}, {8, 8, 3}, {4, 4, 3}};
    const Weight results[] = {{4, 8, 1}, {4, 8, 1}, {4, 4, 1}, {4, 4, 1}, {4, 4, 1}};
    EncoderWeights weights;
    weights.stem = stem.strided();
    weights.stages.push_back({a.strided(), {}});
    weights.stages.back().squares.push_back(a1.square());
    weights.stages.back().squares.push_back(a2.square());
    for (const Weight* w : {&b, &c, &d}) weights.stages.push_back({w->strided(), {}});
    for (std::size_t m = 0; m < 3; ++m)
        weights.merges.push_back({laterals[m].point(), coarser[m].point(), smooth[m].square()});
    for (const Weight& w : results) weights.out.push_back(w.planes());
    const Floats image = noise(size(3 * side, side));
    Floats found[4];
    float* maps[4];
    for (std::size_t i = 0; i < 4; ++i) {
        found[i].resize(size(4 * side / (16 >> i), side / (16 >> i)));
        maps[i] = found[i].data();
    }
    encode(image.data(), side, weights, maps, serial);
    Plane x2 = stem.of({3, side, doubles(image)}, 2, true), x4 = a.of(x2, 2, true);
    const Plane inner = a2.of(a1.of(x4, 1, true), 1, false);
    for (std::size_t i = 0; i < x4.data.size(); ++i)
        x4.data[i] = std::max(x4.data[i] + inner.data[i], 0.0);
    const Plane x8 = b.of(x4, 2, true), x16 = c.of(x8, 2, true), x32 = d.of(x16, 2, true);
    const Plane* fine[] = {&x16, &x8, &x4};
    Plane coarse = x32;
    for (std::size_t m = 0; m < 3; ++m) {
        coarse = smooth[m].of(with_doubled(laterals[m].of(*fine[m], 1, false),
                                           coarser[m].of(coarse, 1, false), true),
                              1, true);
        compare("an encoder's map", found[m], results[m].of(coarse, 1, false).data, 1e-5);
    }
    const Plane last = with_doubled(results[3].of(x2, 1, false), results[4].of(coarse, 1, false), false);
    compare("an encoder's finest map", found[3], last.data, 1e-5);
}

}  // namespace

void fine_operators() {
    encoding();
    for (const int taps : {1, 3})
        for (const int width : {16, 32, 48, 64, 80, 128}) {
            planes(4, 1, taps, width, false, false);
            planes(8, 5, taps, width, true, true);
            planes(12, 3, taps, width, false, true);
        }
    for (const int n : {1, 2, 15, 64}) doubled(n);
    for (const int n : {16, 48, 128}) probabilities(n);
    for (const int side : {4, 8}) whole_way(side);
}

}  // namespace samrt::ops::tests
