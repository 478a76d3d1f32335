// Operators of the decoder of `tiny`: attributes and shapes are checked, then fine_layers.hpp does the
// work.
#pragma once

#include "decoder_layers.hpp"
#include "fine_layers.hpp"
#include "node.hpp"

namespace samrt::ops {
namespace {

// Inputs: point_coords (N, P, 2), point_labels (N, P), mask_input (N, 1, 8 S, 8 S), has_mask (N),
// embedding (1, C, S, S), w1 (108, M), b1 (M), w2 (M, C), b2 (C). Outputs: maps (N, 12, 4 S, 4 S) and
// image (N, S * S, C).
struct DrawPromptsNode {
    static constexpr const char* kName = "DrawPrompts";
    static constexpr std::size_t kInputs = 9, kOutputs = 2;
    static constexpr bool needed(std::size_t) { return true; }
    static constexpr bool integer(std::size_t) { return false; }
    Packed w1, w2;

    explicit DrawPromptsNode(const Node& node) : w1(node.matrix(5)), w2(node.matrix(7)) {
        expect(w1.k == kPromptMaps * 9 && w1.n == w2.k, "w1 (108, M) and w2 (M, C) do not fit");
    }

    void run(const Call& call) const {
        const Tensor coords = call.input(0), labels = call.input(1), mask = call.input(2);
        const Tensor has = call.input(3), embedding = call.input(4);
        expect(embedding.shape.size() == 4 && embedding.shape[0] == 1 &&
                   embedding.shape[1] == w2.n && embedding.shape[2] == embedding.shape[3],
               "embedding must be (1, C, S, S)");
        const std::int64_t s = embedding.shape[2];
        expect(s % 4 == 0 && s <= 1024, "S must be a multiple of 4 up to 1024");
        expect(labels.shape.size() == 2 && coords.count() == 2 * labels.count(),
               "point_coords (N, P, 2) and point_labels (N, P) do not fit");
        const std::int64_t n = labels.shape[0];
        expect(has.count() == n && mask.count() == n * 64 * s * s,
               "mask_input must be (N, 1, 8 S, 8 S) and has_mask (N)");
        float* grid = call.output({n, kPromptMaps, 4 * s, 4 * s});
        float* image = call.output({n, s * s, w2.n}, 1);
        if (n == 0) return;
        const Prompts prompts{small(n, "N"),  static_cast<int>(labels.shape[1]), coords.data,
                              labels.data,    mask.data, has.data};
        const int side = small(s, "S");
        const PromptLayers layer{&w1, &w2, call.vector(6, w1.n, "b1", true),
                                 call.vector(8, w2.n, "b2", true)};
        const Parallel parallel = call.parallel();
        draw_prompts(prompts, side, grid, parallel);
        start_image(embedding.data, grid, prompts.count, side, layer, image, parallel);
    }
};

// image (N, P, C), codes (1, P, C) and queries (N, R, C) to softmax(queries (image + codes)) image.
struct ReadRowsNode {
    static constexpr const char* kName = "ReadRows";
    static constexpr std::size_t kInputs = 3;
    static constexpr bool needed(std::size_t) { return true; }
    static constexpr bool integer(std::size_t) { return false; }

    explicit ReadRowsNode(const Node&) {}

    void run(const Call& call) const {
        const Tensor image = call.input(0), codes = call.input(1), queries = call.input(2);
        expect(image.shape.size() == 3 && queries.shape.size() == 3 && codes.shape.size() == 3,
               "image, codes and queries must have three axes");
        const std::int64_t n = image.shape[0], p = image.shape[1], c = image.shape[2];
        expect(queries.shape[0] == n && queries.shape[2] == c && codes.count() == p * c,
               "image (N, P, C), codes (1, P, C) and queries (N, R, C) do not fit");
        float* seen = call.output(queries.shape);
        if (n == 0) return;
        const ImagePass layer{1, 0, small(queries.shape[1], "R"), small(p, "P"), small(c, "C"),
                              false, Norm{}, codes.data, nullptr, small(c, "C"), {}};
        image_pass({image.data, false, nullptr, nullptr, nullptr, queries.data}, small(n, "N"), layer,
                   nullptr, seen, call.parallel());
    }
};

Numbers numbers(const Node& node, std::size_t index) {
    const Tensor tensor = node.constant(index);
    return Numbers(tensor.data, tensor.data + tensor.count());
}

Tensor kernel(const Node& node, std::size_t index, int taps = 3) {
    const Tensor tensor = node.constant(index);
    expect(tensor.shape.size() == 4 && tensor.shape[2] == taps && tensor.shape[3] == taps,
           "the weight of a convolution must be (out, channels, taps, taps)");
    return tensor;
}

Conv3x3Weights conv(const Node& node, std::size_t index) {
    const Tensor w = kernel(node, index);
    return Conv3x3Weights(w.data, small(w.shape[0], "out"), small(w.shape[1], "channels"));
}

// Inputs: image (N, S * S, C), f8 (1, ., 2 S, 2 S), f4 (1, ., 4 S, 4 S), f2 (1, ., 8 S, 8 S), maps of
// DrawPrompts, hyper (N, M, channels of f2 + 1), then constants in the order of `FineWeights`.
// Outputs: masks (N, M, 8 S, 8 S), figures (N, M, 8), fit (N, M).
struct FineMasksNode {
    static constexpr const char* kName = "FineMasks";
    static constexpr std::size_t kInputs = 40, kOutputs = 3;
    static constexpr bool needed(std::size_t) { return true; }
    static constexpr bool integer(std::size_t) { return false; }
    FineWeights weights;

    explicit FineMasksNode(const Node& node) : weights(read_weights(node)) {
        const FineWeights& w = weights;
        const int f8 = w.down8.n, f4 = w.mix4a.out, f2 = w.mix2.out;
        expect(w.mix16.w1.n == w.mix16.w3.k && w.mix16.w3.n == w.mix16.w1.k &&
                   w.mix16.w2.channels == w.mix16.w1.n && w.mix16.w2.out == w.mix16.w1.n &&
                   w.down8.k == w.mix16.w1.k,
               "the weights at stride 16 do not fit each other");
        expect(w.mix8a.channels == f8 && w.mix8a.out == f8 && w.mix8b.channels == f8 &&
                   w.mix8b.out == f8 && w.like8.bias.size() == size(f8, 1) &&
                   w.dense8.size() == size(kPromptMaps, f8),
               "the weights at stride 8 do not fit each other");
        expect(w.mix4a.channels == f4 && w.mix4b.channels == f4 && w.mix4b.out == f4 &&
                   w.like4.bias.size() == size(f4, 1) && w.down4.size() == size(f4, f8) &&
                   w.dense4.size() == size(kPromptMaps, f4),
               "the weights at stride 4 do not fit each other");
        expect(w.down2.channels == f4 && w.down2.out == f2 && w.mix2.channels == f2 && f4 % 4 == 0 &&
                   f2 % 4 == 0,
               "the weights at stride 2 do not fit each other, or widths are no multiples of 4");
    }

    void run(const Call& call) const {
        const Tensor image = call.input(0), grid = call.input(4), hyper = call.input(5);
        const Tensor f8 = call.input(1), f4 = call.input(2), f2 = call.input(3);
        expect(hyper.shape.size() == 3 && hyper.shape[2] == weights.mix2.out + 1 &&
                   hyper.shape[1] % 4 == 0 && hyper.shape[1] > 0,
               "hyper must be (N, M, channels of f2 + 1), M a multiple of 4");
        const std::int64_t n = hyper.shape[0], m = hyper.shape[1];
        expect(f8.shape.size() == 4 && f8.shape[2] == f8.shape[3] && f8.shape[2] % 8 == 0 &&
                   f8.shape[2] <= 2048,
               "f8 must be (1, channels, 2 S, 2 S), S a multiple of 4 up to 1024");
        const std::int64_t s = f8.shape[2] / 2, area = s * s;
        expect(f8.count() == weights.down8.n * 4 * area &&
                   f4.count() == weights.mix4a.out * 16 * area &&
                   f2.count() == weights.mix2.out * 64 * area &&
                   grid.count() == n * kPromptMaps * 16 * area &&
                   image.count() == n * area * weights.down8.k,
               "image, maps and features do not fit each other");
        const FineOutputs out{call.output({n, m, 8 * s, 8 * s}), call.output({n, m, kFigures}, 1),
                              call.output({n, m}, 2)};
        if (n == 0) return;
        fine_masks({image.data, f8.data, f4.data, f2.data, grid.data, hyper.data}, small(n, "N"),
                   small(m, "M"), small(s, "S"), weights, out, call.parallel());
    }

private:
    static PlanarWeights planar(const Node& node, std::size_t index, int taps) {
        const Tensor w = taps == 3 ? kernel(node, index) : node.constant(index);
        const Tensor bias = node.constant(index + 1);
        expect(w.shape.size() == (taps == 3 ? 4u : 2u) && bias.count() == w.shape[0] &&
                   w.shape[0] % 4 == 0,
               "a weight must have a multiple of 4 of results, and a bias for each");
        return PlanarWeights(w.data, bias.data, small(w.shape[0], "out"),
                             small(w.shape[1], "channels"), taps);
    }
    static Likeness likeness(const Node& node, std::size_t first) {
        Likeness like{numbers(node, first), numbers(node, first + 1), numbers(node, first + 2),
                      numbers(node, first + 3)};
        const std::size_t c = like.bias.size();
        expect(like.a.size() == c * c && like.b.size() == c * c && like.weight.size() == 4 * c * c,
               "a (C, C), b (C, C), weight (4 C, C) and bias (C) do not fit");
        return like;
    }
    static FineWeights read_weights(const Node& node) {
        return FineWeights{
            Bottleneck{node.matrix(6), node.matrix(10), numbers(node, 7), numbers(node, 9),
                       numbers(node, 11), conv(node, 8)},
            node.matrix(12), numbers(node, 13), likeness(node, 14), likeness(node, 18),
            numbers(node, 22), numbers(node, 23), conv(node, 24), conv(node, 26),
            numbers(node, 25), numbers(node, 27), numbers(node, 28), numbers(node, 29),
            numbers(node, 30), numbers(node, 31), planar(node, 32, 3), planar(node, 34, 3),
            planar(node, 36, 1), planar(node, 38, 3)};
    }
};

// Inputs: image (1, 3, S, S), then weight and bias of: the stem; each stage's convolution of stride 2
// and two convolutions for each residual block; of strides 16, 8 and 4 the lateral layer, that of the
// coarser level, and the convolution behind their sum; the layers of the four results, and that of
// stride 4 for the last one. Weights are those of convolutions, (out, channels, taps, taps).
// Attributes: blocks1 to blocks4. Outputs: planes of stride 16, 8, 4 and 2.
struct FineEncoderNode {
    static constexpr const char* kName = "FineEncoder";
    static constexpr std::size_t kInputs = 128, kOutputs = 4;
    static constexpr bool needed(std::size_t index) { return index < 39; }
    static constexpr bool integer(std::size_t) { return false; }
    EncoderWeights weights;

    explicit FineEncoderNode(const Node& node) {
        std::size_t next = 1;
        const auto take = [&next] { return (next += 2) - 2; };
        weights.stem = strided(node, take(), 5, 3);
        int before = weights.stem.out;
        for (const char* name : {"blocks1", "blocks2", "blocks3", "blocks4"}) {
            EncoderWeights::Stage stage{strided(node, take(), 3, before), {}};
            before = stage.down.out;
            const int blocks = node.integer(name, -1);
            expect(blocks <= 8, "a stage has at most 8 blocks");
            for (int i = 0; i < 2 * blocks; ++i)
                stage.squares.push_back(square(node, take(), before));
            weights.stages.push_back(std::move(stage));
        }
        for (int m = 0; m < 3; ++m) {
            PointWeights lateral = point(node, take()), coarse = point(node, take());
            const std::size_t level = static_cast<std::size_t>(2 - m);
            const int width = lateral.matrix.n;
            const int below = m == 0 ? weights.stages[3].down.out
                                     : weights.merges.back().smooth.weights.out;
            expect(lateral.matrix.k == weights.stages[level].down.out && coarse.matrix.k == below &&
                       coarse.matrix.n == width,
                   "the layers of a level do not fit each other");
            EncoderWeights::Merge merge{std::move(lateral), std::move(coarse),
                                        square(node, take(), width)};
            weights.merges.push_back(std::move(merge));
        }
        for (int i = 0; i < 5; ++i) {
            const Tensor w = kernel(node, take(), 1);
            const Tensor bias = node.constant(next - 1);
            const int level = i < 3 ? i : i == 3 ? 3 : 2;
            const int channels =
                level == 3 ? weights.stem.out
                           : weights.merges[static_cast<std::size_t>(level)].smooth.weights.out;
            expect(w.shape[1] == channels && bias.count() == w.shape[0],
                   "the layer of a result does not fit");
            weights.out.push_back({channels, small(w.shape[0], "out"),
                                   Numbers(w.data, w.data + w.count()),
                                   Numbers(bias.data, bias.data + bias.count())});
        }
        expect(weights.out[3].out == weights.out[4].out, "the layers of stride 2 do not fit each other");
    }

    void run(const Call& call) const {
        const Tensor image = call.input(0);
        expect(image.shape.size() == 4 && image.shape[0] == 1 && image.shape[1] == 3 &&
                   image.shape[2] == image.shape[3] && image.shape[2] % 128 == 0 &&
                   image.shape[2] <= 4096,
               "image must be (1, 3, S, S), S a multiple of 128 up to 4096");
        const std::int64_t s = image.shape[2];
        float* maps[4];
        for (std::size_t i = 0; i < 4; ++i) {
            const std::int64_t side = s / (16 >> i);
            maps[i] = call.output({1, weights.out[i].out, side, side}, i);
        }
        encode(image.data, small(s, "S"), weights, maps, call.parallel());
    }

private:
    static StridedWeights strided(const Node& node, std::size_t index, int taps, int channels) {
        const Tensor w = kernel(node, index, taps), bias = node.constant(index + 1);
        expect(w.shape[1] == channels && bias.count() == w.shape[0], "a convolution does not fit");
        return StridedWeights(w.data, bias.data, small(w.shape[0], "out"), channels, taps);
    }
    static EncoderWeights::Square square(const Node& node, std::size_t index, int channels) {
        EncoderWeights::Square found{conv(node, index), numbers(node, index + 1)};
        expect(found.weights.channels == channels && found.weights.out == channels &&
                   found.bias.size() == size(channels, 1),
               "a convolution of stride 1 does not fit");
        return found;
    }
    static PointWeights point(const Node& node, std::size_t index) {
        const Tensor w = kernel(node, index, 1);
        const int out = small(w.shape[0], "out"), channels = small(w.shape[1], "channels");
        Numbers turned(size(channels, out));
        for (int o = 0; o < out; ++o)
            for (int c = 0; c < channels; ++c)
                turned[size(c, out) + size(o, 1)] = w.data[wide(o) * channels + c];
        PointWeights found{Packed(turned.data(), out, channels, out), numbers(node, index + 1)};
        expect(found.bias.size() == size(out, 1), "a linear layer needs its bias");
        return found;
    }
};

}  // namespace
}  // namespace samrt::ops
