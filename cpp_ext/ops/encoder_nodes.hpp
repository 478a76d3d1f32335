// Operators of image encoders: attributes and shapes are checked, then layers.hpp does the work.
#pragma once

#include "node.hpp"

namespace samrt::ops {
namespace {

// With `Integers` the weights are int8 and their scales are the last inputs.
template <bool Integers>
struct Linear {
    static constexpr const char* kName = Integers ? "LinearInt8" : "Linear";
    static constexpr std::size_t kInputs = Integers ? 7 : 6;
    static constexpr bool needed(std::size_t index) { return index < 2 || index == 6; }
    static constexpr bool integer(std::size_t index) { return Integers && index == 1; }
    Packed w;
    bool gelu, norm;
    float epsilon;

    explicit Linear(const Node& node)
        : w(node.matrix(1, Integers ? 6 : 0)), gelu(node.integer("gelu", 0) != 0),
          norm(node.integer("norm", 0) != 0), epsilon(node.number("epsilon", 1e-5f)) {}

    void run(const Call& call) const {
        const Tensor x = call.input(0);
        expect(x.last() == w.k, "x does not have as many channels as the weight has rows");
        const std::int64_t rows = x.count() / w.k;
        Norm by;
        by.epsilon = epsilon;
        if (norm) {
            by.gamma = call.vector(3, w.k, "gamma", true);
            by.beta = call.vector(4, w.k, "beta", false);
        }
        Epilogue then;
        then.bias = call.vector(2, w.n, "bias", false);
        then.gelu = gelu;
        then.residual = call.vector(5, rows * w.n, "residual", false);
        then.residual_stride = w.n;
        std::vector<std::int64_t> shape = x.shape;
        shape.back() = w.n;
        linear(x.data, rows, w, by, then, call.output(shape), call.parallel());
    }
};

template <bool Integers>
struct Mlp {
    static constexpr const char* kName = Integers ? "MlpInt8" : "Mlp";
    static constexpr std::size_t kInputs = Integers ? 9 : 7;
    static constexpr bool needed(std::size_t) { return true; }
    static constexpr bool integer(std::size_t index) {
        return Integers && (index == 3 || index == 5);
    }
    MlpWeights weights;
    float epsilon;

    explicit Mlp(const Node& node)
        : weights(made(node, node.constant(3), node.constant(5))),
          epsilon(node.number("epsilon", 1e-5f)) {}

    static MlpWeights made(const Node& node, const Tensor& w1, const Tensor& w2) {
        expect(w1.shape.size() == 2 && w2.shape.size() == 2 && w1.shape[0] == w2.shape[1] &&
                   w1.shape[1] == w2.shape[0],
               "w1 must be a matrix (K, H) and w2 one (H, K)");
        const int k = small(w1.shape[0], "K"), hidden = small(w1.shape[1], "H");
        if constexpr (Integers)
            return MlpWeights(w1.integers(), node.scales(7, hidden), w2.integers(),
                              node.scales(8, k), k, hidden);
        static_cast<void>(node);
        return MlpWeights(w1.data, w2.data, k, hidden);
    }

    void run(const Call& call) const {
        const Tensor x = call.input(0);
        const std::int64_t k = weights.channels;
        expect(x.last() == k, "x does not have as many channels as w1 has rows");
        const Norm norm{call.vector(1, k, "gamma", true), call.vector(2, k, "beta", true), epsilon};
        mlp(x.data, x.count() / k, norm, weights, call.vector(4, weights.hidden, "b1", true),
            call.vector(6, k, "b2", true), call.output(x.shape), call.parallel());
    }
};

struct Image {
    int height, width, channels;
    explicit Image(const Tensor& x) {
        expect(x.shape.size() == 4 && x.shape[0] == 1, "x must be (1, H, W, C)");
        height = small(x.shape[1], "H");
        width = small(x.shape[2], "W");
        channels = small(x.shape[3], "C");
    }
};

struct DepthwiseConv {
    static constexpr const char* kName = "DepthwiseConv";
    static constexpr std::size_t kInputs = 3;
    static constexpr bool needed(std::size_t) { return true; }
    static constexpr bool integer(std::size_t) { return false; }

    explicit DepthwiseConv(const Node&) {}

    void run(const Call& call) const {
        const Tensor x = call.input(0);
        const Image size(x);
        depthwise(x.data, size.height, size.width, size.channels,
                  call.vector(1, 9 * std::int64_t{size.channels}, "weight", true),
                  call.vector(2, size.channels, "bias", true), call.output(x.shape),
                  call.parallel());
    }
};

template <bool Integers>
struct MbConvNode {
    static constexpr const char* kName = Integers ? "MbConvInt8" : "MbConv";
    static constexpr std::size_t kInputs = Integers ? 9 : 7;
    static constexpr bool needed(std::size_t) { return true; }
    static constexpr bool integer(std::size_t index) {
        return Integers && (index == 1 || index == 5);
    }
    Packed w1, w3;
    int stride;
    bool residual;

    explicit MbConvNode(const Node& node)
        : w1(node.matrix(1, Integers ? 7 : 0)), w3(node.matrix(5, Integers ? 8 : 0)),
          stride(node.integer("stride", 1)),
          residual(node.integer("residual", 0) != 0) {
        expect(stride == 1 || stride == 2, "stride must be 1 or 2");
        expect(w1.n == w3.k, "w1 and w3 do not fit each other");
        expect(!residual || (stride == 1 && w1.k == w3.n), "no residual with other sizes");
    }

    void run(const Call& call) const {
        const Tensor x = call.input(0);
        const Image size(x);
        expect(size.channels == w1.k, "x does not have as many channels as w1 has rows");
        const std::int64_t mid = w1.n;
        MbConv layer{&w1, &w3,
                     call.vector(2, mid, "b1", true),
                     call.vector(3, 9 * mid, "wd", true),
                     call.vector(4, mid, "bd", true),
                     call.vector(6, w3.n, "b3", true),
                     stride, residual};
        const std::vector<std::int64_t> shape = {1, (size.height - 1) / stride + 1,
                                                 (size.width - 1) / stride + 1, w3.n};
        mbconv(x.data, size.height, size.width, layer, call.output(shape), call.parallel());
    }
};

struct Stem {
    static constexpr const char* kName = "Stem";
    static constexpr std::size_t kInputs = 5;
    static constexpr bool needed(std::size_t) { return true; }
    static constexpr bool integer(std::size_t) { return false; }
    StemWeights weights;

    explicit Stem(const Node& node) : weights(made(node.constant(1), node.constant(3))) {}

    static StemWeights made(const Tensor& w1, const Tensor& w2) {
        expect(w1.shape.size() == 3 && w2.shape.size() == 3 && w1.shape[0] == 9 &&
                   w2.shape[0] == 9 && w2.shape[1] == w1.shape[2],
               "w1 must be (9, C, M) and w2 (9, M, N)");
        return StemWeights(w1.data, w2.data, small(w1.shape[1], "C"), small(w1.shape[2], "M"),
                           small(w2.shape[2], "N"));
    }

    void run(const Call& call) const {
        const Tensor image = call.input(0);
        expect(image.shape.size() == 4 && image.shape[0] == 1 && image.shape[1] == weights.channels,
               "image must be (1, C, H, W)");
        const int height = small(image.shape[2], "H"), width = small(image.shape[3], "W");
        const std::vector<std::int64_t> shape = {1, (height + 3) / 4, (width + 3) / 4, weights.out};
        stem(image.data, height, width, weights, call.vector(2, weights.middle, "b1", true),
             call.vector(4, weights.out, "b2", true), call.output(shape), call.parallel());
    }
};

struct Conv3x3 {
    static constexpr const char* kName = "Conv3x3";
    static constexpr std::size_t kInputs = 2;
    static constexpr bool needed(std::size_t) { return true; }
    static constexpr bool integer(std::size_t) { return false; }
    Conv3x3Weights weights;

    explicit Conv3x3(const Node& node) : weights(made(node.constant(1))) {}

    static Conv3x3Weights made(const Tensor& weight) {
        expect(weight.shape.size() == 4 && weight.shape[2] == 3 && weight.shape[3] == 3,
               "weight must be (N, C, 3, 3)");
        return Conv3x3Weights(weight.data, small(weight.shape[0], "N"),
                              small(weight.shape[1], "C"));
    }

    void run(const Call& call) const {
        const Tensor x = call.input(0);
        const Image size(x);
        expect(size.channels == weights.channels, "x does not have as many channels as the weight");
        conv3x3(x.data, size.height, size.width, weights,
                call.output({1, size.height, size.width, weights.out}), call.parallel());
    }
};

struct Attention {
    static constexpr const char* kName = "Attention";
    static constexpr std::size_t kInputs = 5;
    static constexpr bool needed(std::size_t index) { return index == 0; }
    static constexpr bool integer(std::size_t) { return false; }
    AttentionShape shape;

    explicit Attention(const Node& node)
        : shape{node.integer("heads", -1), 0, node.integer("grid_h", -1),
                node.integer("grid_w", -1), node.integer("window_h", -1),
                node.integer("window_w", -1)} {
        for (const int size : {shape.heads, shape.grid_h, shape.grid_w, shape.window_h,
                               shape.window_w})
            expect(size > 0 && size <= 4096, "heads, grid and window must be 1 to 4096");
        expect(shape.window_h <= shape.grid_h && shape.window_w <= shape.grid_w,
               "the window is larger than the grid");
    }

    void run(const Call& call) const {
        const Tensor qkv = call.input(0);
        const std::int64_t channels = qkv.last() / 3;
        expect(channels > 0 && qkv.last() % 3 == 0 && channels % shape.heads == 0 &&
                   qkv.count() == qkv.last() * shape.grid_h * shape.grid_w,
               "qkv must be (1, grid_h * grid_w, 3 * heads * d)");
        AttentionShape full = shape;
        full.d = static_cast<int>(channels / shape.heads);
        const std::int64_t keys = full.keys(), d = full.d, h = full.window_h, w = full.window_w;
        AttentionInputs in{};
        in.qkv = qkv.data;
        in.query_bias = call.vector(1, channels, "query_bias", false);
        in.rows = call.vector(2, h * h * d, "rows", false);
        in.columns = call.vector(3, w * w * d, "columns", false);
        in.bias = call.vector(4, keys * keys * full.heads, "bias", false);
        expect((in.rows == nullptr) == (in.columns == nullptr), "rows and columns come together");
        std::vector<std::int64_t> out = qkv.shape;
        out.back() = channels;
        attention(full, in, call.output(out), call.parallel());
    }
};

}  // namespace
}  // namespace samrt::ops
