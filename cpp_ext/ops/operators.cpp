// The operators as ONNX Runtime sees them: shapes are checked, constants packed once.
#include <atomic>
#include <cstring>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "layers.hpp"
#include "ort_abi.hpp"

namespace samrt::ops {
namespace {

using ort::Api;

void check(const Api* api, ort::Status* status, const char* what) {
    if (status == nullptr) return;
    ort::call<void>(api, ort::kReleaseStatus, status);
    throw std::runtime_error(std::string("ONNX Runtime refused ") + what);
}

ort::Status* failure(const Api* api, const char* message) {
    return ort::call<ort::Status*>(api, ort::kCreateStatus, ort::kErrorArgument, message);
}

struct Tensor {
    float* data = nullptr;
    std::vector<std::int64_t> shape;

    explicit operator bool() const { return data != nullptr; }
    const std::int8_t* integers() const { return reinterpret_cast<const std::int8_t*>(data); }
    std::int64_t count() const {
        std::int64_t n = 1;
        for (const std::int64_t size : shape) n *= size;
        return n;
    }
    std::int64_t last() const { return shape.empty() ? 0 : shape.back(); }
};

Tensor read(const Api* api, ort::Value* value) {
    Tensor out;
    if (value == nullptr) return out;
    ort::ShapeInfo* info = nullptr;
    check(api, ort::call<ort::Status*>(api, ort::kGetTensorTypeAndShape,
                                       static_cast<const ort::Value*>(value), &info),
          "the shape of a tensor");
    std::size_t rank = 0;
    ort::Status* status = ort::call<ort::Status*>(
        api, ort::kGetDimensionsCount, static_cast<const ort::ShapeInfo*>(info), &rank);
    if (status == nullptr) {
        out.shape.resize(rank);
        status = ort::call<ort::Status*>(api, ort::kGetDimensions,
                                         static_cast<const ort::ShapeInfo*>(info),
                                         out.shape.data(), rank);
    }
    ort::call<void>(api, ort::kReleaseTensorTypeAndShapeInfo, info);
    check(api, status, "the sizes of a tensor");
    void* data = nullptr;
    check(api, ort::call<ort::Status*>(api, ort::kGetTensorMutableData, value, &data),
          "the data of a tensor");
    out.data = static_cast<float*>(data);
    return out;
}

int small(std::int64_t value, const char* what) {
    if (value < 1 || value > (1 << 24))
        throw std::invalid_argument(std::string(what) + " is " + std::to_string(value) +
                                    ", expected 1 to 16777216");
    return static_cast<int>(value);
}

void expect(bool right, const std::string& what) {
    if (!right) throw std::invalid_argument(what);
}

// A node's attributes and constant inputs.
class Node {
public:
    Node(const Api* api, const ort::KernelInfo* info) : api_(api), info_(info) {}

    int integer(const char* name, int otherwise) const {
        std::int64_t value = 0;
        ort::Status* status = ort::call<ort::Status*>(
            api_, ort::kKernelInfoGetAttributeInt64, info_, name, &value);
        if (status == nullptr) return small(value + 1, name) - 1;
        ort::call<void>(api_, ort::kReleaseStatus, status);
        expect(otherwise >= 0, std::string("the attribute ") + name + " is missing");
        return otherwise;
    }

    float number(const char* name, float otherwise) const {
        float value = 0;
        ort::Status* status = ort::call<ort::Status*>(
            api_, ort::kKernelInfoGetAttributeFloat, info_, name, &value);
        if (status == nullptr) return value;
        ort::call<void>(api_, ort::kReleaseStatus, status);
        return otherwise;
    }

    Tensor constant(std::size_t index) const {
        int constant = 0;
        const ort::Value* value = nullptr;
        check(api_, ort::call<ort::Status*>(api_, ort::kKernelInfoGetConstantInputTensor, info_,
                                            index, &constant, &value),
              "a constant input");
        expect(constant != 0 && value != nullptr,
               "input " + std::to_string(index) + " must be a constant");
        return read(api_, const_cast<ort::Value*>(value));
    }

    // A matrix; of integers if there is an input of scales.
    Packed matrix(std::size_t index, std::size_t scales = 0) const {
        const Tensor tensor = constant(index);
        expect(tensor.shape.size() == 2, "a weight must be a matrix (K, N)");
        if (scales != 0)
            return Packed(tensor.integers(), this->scales(scales, tensor.shape[1]),
                          tensor.shape[1], small(tensor.shape[0], "K"),
                          small(tensor.shape[1], "N"));
        return Packed(tensor.data, tensor.shape[1], small(tensor.shape[0], "K"),
                      small(tensor.shape[1], "N"));
    }

    const float* scales(std::size_t index, std::int64_t n) const {
        const Tensor tensor = constant(index);
        expect(tensor.count() == n, "there must be a scale for every column of a weight");
        return tensor.data;
    }

private:
    const Api* api_;
    const ort::KernelInfo* info_;
};

// One call of a kernel.
class Call {
public:
    Call(const Api* api, ort::KernelContext* context) : api_(api), context_(context) {}

    Tensor input(std::size_t index) const {
        std::size_t count = 0;
        check(api_, ort::call<ort::Status*>(api_, ort::kKernelContextGetInputCount,
                                            static_cast<const ort::KernelContext*>(context_),
                                            &count),
              "the number of inputs");
        if (index >= count) return {};
        const ort::Value* value = nullptr;
        check(api_, ort::call<ort::Status*>(api_, ort::kKernelContextGetInput,
                                            static_cast<const ort::KernelContext*>(context_),
                                            index, &value),
              "an input");
        return read(api_, const_cast<ort::Value*>(value));
    }

    // A vector of n numbers; null if it is absent and may be.
    const float* vector(std::size_t index, std::int64_t n, const char* name, bool needed) const {
        const Tensor tensor = input(index);
        if (!tensor) {
            expect(!needed, std::string(name) + " is missing");
            return nullptr;
        }
        expect(tensor.count() == n, std::string(name) + " has " + std::to_string(tensor.count()) +
                                        " numbers, expected " + std::to_string(n));
        return tensor.data;
    }

    float* output(const std::vector<std::int64_t>& shape) const {
        ort::Value* value = nullptr;
        check(api_, ort::call<ort::Status*>(api_, ort::kKernelContextGetOutput, context_,
                                            std::size_t{0}, shape.data(), shape.size(), &value),
              "the output");
        return read(api_, value).data;
    }

    Parallel parallel() const {
        return [this](std::size_t units, const std::function<void(std::size_t)>& body) {
            if (units <= 1) {
                if (units == 1) body(0);
                return;
            }
            struct Work {
                const std::function<void(std::size_t)>* body;
                std::atomic<bool> failed{false};
                static void run(void* work, std::size_t unit) {  // on threads that are not ours
                    auto* self = static_cast<Work*>(work);
                    try {
                        if (!self->failed) (*self->body)(unit);
                    } catch (...) {
                        self->failed = true;
                    }
                }
            } work{&body};
            check(api_, ort::call<ort::Status*>(
                            api_, ort::kKernelContextParallelFor,
                            static_cast<const ort::KernelContext*>(context_), &Work::run, units,
                            std::size_t{0}, static_cast<void*>(&work)),
                  "to run in parallel");
            if (work.failed) throw std::runtime_error("there is not enough memory");
        };
    }

private:
    const Api* api_;
    ort::KernelContext* context_;
};

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

template <typename Operator>
struct Kernel {
    const Api* api;
    Operator op;
};

template <typename Operator>
class Entry : public ort::CustomOp {
public:
    Entry() {
        name = [](const CustomOp*) { return Operator::kName; };
        execution_provider = [](const CustomOp*) -> const char* { return "CPUExecutionProvider"; };
        input_type = [](const CustomOp*, std::size_t index) {
            return Operator::integer(index) ? ort::kTensorInt8 : ort::kTensorFloat;
        };
        input_count = [](const CustomOp*) { return Operator::kInputs; };
        output_type = [](const CustomOp*, std::size_t) { return ort::kTensorFloat; };
        output_count = [](const CustomOp*) { return std::size_t{1}; };
        input_characteristic = [](const CustomOp*, std::size_t index) {
            return Operator::needed(index) ? ort::kRequired : ort::kOptional;
        };
        output_characteristic = [](const CustomOp*, std::size_t) { return ort::kRequired; };
        input_memory = [](const CustomOp*, std::size_t) { return 0; };
        variadic_input_min = [](const CustomOp*) { return 1; };
        variadic_input_same = [](const CustomOp*) { return 1; };
        variadic_output_min = [](const CustomOp*) { return 1; };
        variadic_output_same = [](const CustomOp*) { return 1; };
        start_version = [](const CustomOp*) { return 1; };
        end_version = [](const CustomOp*) { return std::numeric_limits<int>::max(); };
        create_kernel_v2 = [](const CustomOp*, const Api* api, const ort::KernelInfo* info,
                              void** kernel) -> ort::Status* {
            try {
                *kernel = new Kernel<Operator>{api, Operator(Node(api, info))};
                return nullptr;
            } catch (const std::exception& error) {
                return failure(api, (std::string("samrt::") + Operator::kName + ": " +
                                     error.what()).c_str());
            }
        };
        compute_v2 = [](void* kernel, ort::KernelContext* context) -> ort::Status* {
            const auto* self = static_cast<const Kernel<Operator>*>(kernel);
            try {
                self->op.run(Call(self->api, context));
                return nullptr;
            } catch (const std::exception& error) {
                return failure(self->api, (std::string("samrt::") + Operator::kName + ": " +
                                           error.what()).c_str());
            }
        };
        destroy = [](void* kernel) { delete static_cast<Kernel<Operator>*>(kernel); };
    }
};

}  // namespace
}  // namespace samrt::ops

extern "C" __attribute__((visibility("default"))) samrt::ort::Status* RegisterCustomOps(
    samrt::ort::SessionOptions* options, const samrt::ort::ApiBase* base) {
    using namespace samrt;
    static const ops::Entry<ops::Linear<false>> linear;
    static const ops::Entry<ops::Linear<true>> linear8;
    static const ops::Entry<ops::Mlp<false>> mlp;
    static const ops::Entry<ops::Mlp<true>> mlp8;
    static const ops::Entry<ops::MbConvNode<false>> mbconv;
    static const ops::Entry<ops::MbConvNode<true>> mbconv8;
    static const ops::Entry<ops::DepthwiseConv> depthwise;
    static const ops::Entry<ops::Attention> attention;
    static const ops::Entry<ops::UpscaleMasksNode> upscale;
    const ort::Api* api = base->get_api(ort::kApiVersion);
    if (api == nullptr) return nullptr;  // too old: its sessions will say that they lack the domain
    // The domain must outlive all sessions: it is never released.
    static ort::CustomOpDomain* domain = nullptr;
    if (domain == nullptr) {
        ort::CustomOpDomain* made = nullptr;
        if (auto* status = ort::call<ort::Status*>(api, ort::kCreateCustomOpDomain,
                                                   static_cast<const char*>("samrt"), &made))
            return status;
        const ort::CustomOp* const all[] = {&linear,  &linear8, &mlp,       &mlp8,
                                            &mbconv, &mbconv8, &depthwise, &attention,
                                            &upscale};
        for (const ort::CustomOp* op : all)
            if (auto* status = ort::call<ort::Status*>(api, ort::kCustomOpDomainAdd, made, op))
                return status;
        domain = made;
    }
    return ort::call<ort::Status*>(api, ort::kAddCustomOpDomain, options, domain);
}

// 1 where 8-bit products are faster than those of floats on this processor.
extern "C" __attribute__((visibility("default"))) int samrt_ops_fast8() {
    return samrt::ops::kernels().fast8 ? 1 : 0;
}

// The name of the instruction set in use.
extern "C" __attribute__((visibility("default"))) const char* samrt_ops_kernels() {
    return samrt::ops::kernels().name;
}
