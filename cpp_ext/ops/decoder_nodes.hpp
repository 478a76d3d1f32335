// Operators of mask decoders: attributes and shapes are checked, then layers.hpp does the work.
#pragma once

#include "node.hpp"

namespace samrt::ops {
namespace {

struct UpscaleMasksNode {
    static constexpr const char* kName = "UpscaleMasks";
    static constexpr std::size_t kInputs = 8;
    static constexpr bool needed(std::size_t) { return true; }
    static constexpr bool integer(std::size_t) { return false; }
    Packed w1, w2;
    int height, width;
    float epsilon;

    explicit UpscaleMasksNode(const Node& node)
        : w1(node.matrix(2)), w2(node.matrix(6)), height(node.integer("height", -1)),
          width(node.integer("width", -1)), epsilon(node.number("epsilon", 1e-6f)) {
        expect(height > 0 && width > 0 && height <= 4096 && width <= 4096,
               "height and width must be 1 to 4096");
        expect(w1.n == 4 * w2.k && w2.n % 4 == 0, "w1 and w2 do not fit each other");
    }

    void run(const Call& call) const {
        const Tensor x = call.input(0), hyper = call.input(1);
        expect(x.shape.size() == 3 && x.shape[1] == std::int64_t{height} * width &&
                   x.shape[2] == w1.k,
               "x must be (N, height * width, C)");
        expect(hyper.shape.size() == 3 && hyper.shape[0] == x.shape[0] &&
                   hyper.shape[2] == w2.n / 4,
               "hyper must be (N, M, C)");
        const int masks = small(hyper.shape[1], "M");
        const UpscaleMasks layer{&w1, &w2,
                                 call.vector(3, w1.n, "b1", true),
                                 call.vector(7, w2.n, "b2", true),
                                 Norm{call.vector(4, w2.k, "gamma", true),
                                      call.vector(5, w2.k, "beta", true), epsilon},
                                 height, width, masks};
        float* y = call.output({x.shape[0], masks, 4 * std::int64_t{height},
                                4 * std::int64_t{width}});
        if (x.shape[0] > 0)
            upscale_masks(x.data, hyper.data, small(x.shape[0], "N"), layer, y, call.parallel());
    }
};

struct ImageUpdateNode {
    static constexpr const char* kName = "ImageUpdate";
    static constexpr std::size_t kInputs = 7, kOutputs = 2;
    static constexpr bool needed(std::size_t index) { return index < 6; }
    static constexpr bool integer(std::size_t) { return false; }
    int heads;
    float epsilon;

    explicit ImageUpdateNode(const Node& node)
        : heads(node.integer("heads", -1)), epsilon(node.number("epsilon", 1e-5f)) {
        expect(heads > 0, "heads must be 1 or more");
    }

    void run(const Call& call) const {
        const Tensor image = call.input(0), scores = call.input(1), values = call.input(2);
        const Tensor rows = call.input(6);
        expect(image.shape.size() == 3 && scores.shape.size() == 3 && values.shape.size() == 3,
               "image, scores and values must have three axes");
        const std::int64_t n = scores.shape[0], soft = scores.shape[1], p = image.shape[1];
        const std::int64_t c = image.shape[2], more = rows ? rows.shape[1] : 0;
        expect((image.shape[0] == 1 || image.shape[0] == n) && scores.shape[2] == p &&
                   soft % heads == 0 && values.shape[0] == n && values.shape[1] == soft + more &&
                   values.shape[2] == c && (!rows || rows.count() == n * more * p),
               "image, scores, values and rows do not fit each other");
        const std::vector<std::int64_t> shape = {n, p, c};
        float* y = call.output(shape);
        float* coded = call.output(shape, 1);
        if (n == 0) return;
        const ImageUpdate layer{heads, static_cast<int>(soft / heads), static_cast<int>(more),
                                small(p, "positions"), small(c, "channels"),
                                Norm{call.vector(4, c, "gamma", true),
                                     call.vector(5, c, "beta", true), epsilon},
                                call.vector(3, p * c, "codes", true)};
        image_update(image.data, image.shape[0] == 1, scores.data, rows.data, values.data,
                     small(n, "N"), layer, y, coded, call.parallel());
    }
};

}  // namespace
}  // namespace samrt::ops
