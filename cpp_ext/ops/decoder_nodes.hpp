// Operators of mask decoders: attributes and shapes are checked, then decoder_layers.hpp does the work.
#pragma once

#include "decoder_layers.hpp"
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

// Inputs `first` to `first + 3` of a node: has_mask (N), rows (N, M, P), wide (N, K, M), weight; all
// or none. `weights`: numbers of `weight` for each row.
MaskRows mask_of(const Call& call, std::size_t first, std::int64_t n, std::int64_t positions,
                 std::int64_t keys, std::int64_t weights) {
    const Tensor has = call.input(first), rows = call.input(first + 1);
    const Tensor wide = call.input(first + 2), weight = call.input(first + 3);
    if (!has && !rows && !wide && !weight) return {};
    expect(has && rows && wide && weight, "has_mask, rows, wide and mask_weight belong together");
    expect(rows.shape.size() == 3, "rows must be (N, M, P)");
    const std::int64_t m = rows.shape[1];
    expect(has.count() == n && rows.shape[0] == n && rows.shape[2] == positions &&
               wide.count() == n * keys * m && weight.count() == m * weights,
           "has_mask, rows, wide and mask_weight do not fit each other");
    return MaskRows{small(m, "M"), has.data, rows.data, wide.data, weight.data};
}

struct ReadImageNode {
    static constexpr const char* kName = "ReadImage";
    static constexpr std::size_t kInputs = 7;
    static constexpr bool needed(std::size_t index) { return index < 3; }
    static constexpr bool integer(std::size_t) { return false; }

    explicit ReadImageNode(const Node&) {}

    void run(const Call& call) const {
        const Tensor queries = call.input(0), keys = call.input(1), values = call.input(2);
        expect(queries.shape.size() == 4 && keys.shape.size() == 4 && values.shape.size() == 4,
               "queries, keys and values must have four axes");
        const std::int64_t n = queries.shape[0], h = queries.shape[1], t = queries.shape[2];
        const std::int64_t d = queries.shape[3], p = keys.shape[3];
        expect(keys.count() == h * d * p && keys.shape[1] == h && values.count() == h * p * d &&
                   values.shape[1] == h && values.shape[2] == p,
               "queries (N, H, T, D), keys (1, H, D, P) and values (1, H, P, D) do not fit");
        float* y = call.output(queries.shape);
        if (n == 0) return;
        const ReadImage layer{small(h, "heads"), small(t, "tokens"), small(d, "width"),
                              small(p, "positions"), keys.data, values.data,
                              mask_of(call, 3, n, p, h * t, h * d)};
        read_image(queries.data, small(n, "N"), layer, y, call.parallel());
    }
};

struct ImagePassNode {
    static constexpr const char* kName = "ImagePass";
    static constexpr std::size_t kInputs = 13, kOutputs = 2;
    static constexpr bool needed(std::size_t index) { return index < 7; }
    static constexpr bool integer(std::size_t) { return false; }
    int heads;
    float epsilon;

    explicit ImagePassNode(const Node& node)
        : heads(node.integer("heads", -1)), epsilon(node.number("epsilon", 1e-5f)) {
        expect(heads > 0, "heads must be 1 or more");
    }

    void run(const Call& call) const {
        const Tensor image = call.input(0), codes = call.input(1), values = call.input(4);
        const Tensor queries = call.input(5), keys = call.input(6), offset = call.input(7);
        const Tensor side = call.input(8);
        expect(codes.shape.size() == 3 && values.shape.size() == 3 && queries.shape.size() == 3,
               "codes, values and queries must have three axes");
        const std::int64_t p = codes.shape[1], c = codes.shape[2], n = values.shape[0];
        const std::int64_t all = values.shape[1];
        const bool channels_first = image.shape.size() == 4;  // as encoders write it
        expect((channels_first || image.shape.size() == 3) && image.shape[0] > 0 &&
                   image.count() == image.shape[0] * p * c &&
                   image.shape[channels_first ? 1 : 2] == c &&
                   (image.shape[0] == 1 || image.shape[0] == n),
               "image must be (1 or N, P, C) or (1 or N, C, height, width)");
        expect(queries.shape[0] == n && queries.shape[2] == c && values.shape[2] == c &&
                   all % heads == 0,
               "values (N, heads * T, C) and queries (N, R, C) do not fit");
        expect(bool(offset) != bool(side), "either offset or side is needed");
        const std::int64_t width = side ? side.count() / (heads * p) : c;
        expect(keys.count() == n * all * width && (!offset || offset.count() == n * all) &&
                   (!side || side.count() == width * heads * p),
               "keys, offset and side do not fit");
        float* y = call.output({n, p, c});
        float* seen = call.output(queries.shape, 1);
        if (n == 0) return;
        const ImagePass layer{heads, small(all / heads, "T"), small(queries.shape[1], "R"),
                              small(p, "P"), small(c, "C"), channels_first,
                              Norm{call.vector(2, c, "gamma", true),
                                   call.vector(3, c, "beta", true), epsilon},
                              codes.data, side.data, small(width, "width"),
                              mask_of(call, 9, n, p, all, c)};
        image_pass({image.data, image.shape[0] == 1, keys.data, offset.data, values.data,
                    queries.data},
                   small(n, "N"), layer, y, seen, call.parallel());
    }
};

struct MaskRowsNode {
    static constexpr const char* kName = "MaskRows";
    static constexpr std::size_t kInputs = 10;
    static constexpr bool needed(std::size_t) { return true; }
    static constexpr bool integer(std::size_t) { return false; }
    Packed w1, w2;
    float epsilon;

    explicit MaskRowsNode(const Node& node)
        : w1(node.matrix(2)), w2(node.matrix(6)), epsilon(node.number("epsilon", 1e-6f)) {
        expect(w1.k == 4 && w2.k == 4 * w1.n, "w1 and w2 do not fit each other");
    }

    void run(const Call& call) const {
        const Tensor masks = call.input(0), has = call.input(1);
        expect(masks.shape.size() == 4 && masks.shape[1] == 1 && masks.shape[2] % 4 == 0 &&
                   masks.shape[3] % 4 == 0 && has.count() == masks.shape[0],
               "masks must be (N, 1, 4 h, 4 w) and has_mask (N)");
        const std::int64_t n = masks.shape[0], h = masks.shape[2] / 4, w = masks.shape[3] / 4;
        float* rows = call.output({n, w2.n + 1, h * w});
        if (n == 0) return;
        const MaskDownscaling layer{
            &w1, &w2, call.vector(3, w1.n, "b1", true), call.vector(7, w2.n, "b2", true),
            Norm{call.vector(4, w1.n, "gamma1", true), call.vector(5, w1.n, "beta1", true), epsilon},
            Norm{call.vector(8, w2.n, "gamma2", true), call.vector(9, w2.n, "beta2", true), epsilon},
            small(h, "h"), small(w, "w")};
        mask_rows(masks.data, has.data, small(n, "N"), layer, rows, call.parallel());
    }
};

}  // namespace
}  // namespace samrt::ops
