// The operators' entries in ONNX Runtime, and what the library exports.
#include <exception>
#include <limits>

#include "crew.hpp"
#include "decoder_nodes.hpp"
#include "encoder_nodes.hpp"
#include "fine_nodes.hpp"

namespace samrt::ops {
namespace {

template <typename Operator>
struct Kernel {
    const Api* api;
    Operator op;
};

template <typename Operator>
constexpr auto outputs(int) -> decltype(Operator::kOutputs + std::size_t{0}) {
    return Operator::kOutputs;
}
template <typename>
constexpr std::size_t outputs(long) {
    return 1;
}

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
        output_count = [](const CustomOp*) { return outputs<Operator>(0); };
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

// The crew of the options that were registered last, on this thread.
thread_local int hired = 0;

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
    static const ops::Entry<ops::Stem> stem;
    static const ops::Entry<ops::Conv3x3> conv3x3;
    static const ops::Entry<ops::Attention> attention;
    static const ops::Entry<ops::UpscaleMasksNode> upscale;
    static const ops::Entry<ops::MaskRowsNode> mask_rows;
    static const ops::Entry<ops::ReadImageNode> read_image;
    static const ops::Entry<ops::ImagePassNode> image_pass;
    static const ops::Entry<ops::DrawPromptsNode> draw_prompts;
    static const ops::Entry<ops::ReadRowsNode> read_rows;
    static const ops::Entry<ops::FineMasksNode> fine_masks;
    static const ops::Entry<ops::FineEncoderNode> fine_encoder;
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
                                            &mbconv, &mbconv8, &depthwise, &stem, &conv3x3,
                                            &attention, &upscale, &mask_rows, &read_image, &image_pass,
                                            &draw_prompts, &read_rows, &fine_masks, &fine_encoder};
        for (const ort::CustomOp* op : all)
            if (auto* status = ort::call<ort::Status*>(api, ort::kCustomOpDomainAdd, made, op))
                return status;
        domain = made;
    }
    if (auto* status = ort::call<ort::Status*>(api, ort::kAddCustomOpDomain, options, domain))
        return status;
    return ops::hire(options, api, ops::hired);
}

// The crew of the session options that this thread registered last, and what can be said to it:
// see crew.hpp.
extern "C" __attribute__((visibility("default"))) int samrt_ops_crew() { return samrt::ops::hired; }

extern "C" __attribute__((visibility("default"))) void samrt_ops_step_aside(int crew) {
    samrt::ops::step_aside(crew);
}

extern "C" __attribute__((visibility("default"))) void samrt_ops_dismiss(int crew) {
    samrt::ops::dismiss(crew);
}

// 1 where 8-bit products are faster than those of floats on this processor.
extern "C" __attribute__((visibility("default"))) int samrt_ops_fast8() {
    return samrt::ops::kernels().fast8 ? 1 : 0;
}

// The name of the instruction set in use.
extern "C" __attribute__((visibility("default"))) const char* samrt_ops_kernels() {
    return samrt::ops::kernels().name;
}
