// The part of ONNX Runtime's C ABI that custom operators need.
//
// ONNX Runtime's wheels carry no headers. Its C interface is a table of functions that only ever
// grows at the end, so the positions below hold for every release that knows API version 17
// (1.17 and later): onnxruntime/core/session/onnxruntime_c_api.h, struct OrtApi.
#pragma once

#include <cstddef>
#include <cstdint>

namespace samrt::ort {

constexpr std::uint32_t kApiVersion = 17;

struct Status;
struct KernelInfo;
struct KernelContext;
struct Value;
struct SessionOptions;
struct CustomOpDomain;
struct ShapeInfo;

// Entries are called through their position in the table.
struct Api;

enum Entry : std::size_t {
    kCreateStatus = 0,
    kCreateCustomOpDomain = 26,
    kCustomOpDomainAdd = 27,
    kAddCustomOpDomain = 28,
    kGetTensorMutableData = 51,
    kGetDimensionsCount = 61,
    kGetDimensions = 62,
    kGetTensorTypeAndShape = 65,
    kKernelInfoGetAttributeFloat = 85,
    kKernelInfoGetAttributeInt64 = 86,
    kKernelContextGetInputCount = 88,
    kKernelContextGetInput = 90,
    kKernelContextGetOutput = 91,
    kReleaseStatus = 93,
    kReleaseTensorTypeAndShapeInfo = 99,
    kSetCustomCreateThreadFn = 196,
    kSetCustomThreadCreationOptions = 197,
    kSetCustomJoinThreadFn = 198,
    kKernelInfoGetConstantInputTensor = 249,
    kKernelContextParallelFor = 274,
};

template <typename Result, typename... Args>
Result call(const Api* api, Entry entry, Args... args) {
    using Function = Result (*)(Args...);
    return reinterpret_cast<Function const*>(api)[entry](args...);
}

struct ApiBase {
    const Api* (*get_api)(std::uint32_t version);
    const char* (*get_version_string)();
};

constexpr int kTensorFloat = 1;       // ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
constexpr int kTensorInt8 = 3;        // ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8
constexpr int kErrorFail = 1;         // ORT_FAIL
constexpr int kErrorArgument = 2;     // ORT_INVALID_ARGUMENT
constexpr int kRequired = 0;          // INPUT_OUTPUT_REQUIRED
constexpr int kOptional = 1;          // INPUT_OUTPUT_OPTIONAL

// struct OrtCustomOp as of API version 17 and, at the end, of 18.
struct CustomOp {
    std::uint32_t version = kApiVersion;
    void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*) = nullptr;
    const char* (*name)(const CustomOp*) = nullptr;
    const char* (*execution_provider)(const CustomOp*) = nullptr;
    int (*input_type)(const CustomOp*, std::size_t) = nullptr;
    std::size_t (*input_count)(const CustomOp*) = nullptr;
    int (*output_type)(const CustomOp*, std::size_t) = nullptr;
    std::size_t (*output_count)(const CustomOp*) = nullptr;
    void (*compute)(void*, KernelContext*) = nullptr;
    void (*destroy)(void*) = nullptr;
    int (*input_characteristic)(const CustomOp*, std::size_t) = nullptr;
    int (*output_characteristic)(const CustomOp*, std::size_t) = nullptr;
    int (*input_memory)(const CustomOp*, std::size_t) = nullptr;
    int (*variadic_input_min)(const CustomOp*) = nullptr;
    int (*variadic_input_same)(const CustomOp*) = nullptr;
    int (*variadic_output_min)(const CustomOp*) = nullptr;
    int (*variadic_output_same)(const CustomOp*) = nullptr;
    Status* (*create_kernel_v2)(const CustomOp*, const Api*, const KernelInfo*, void**) = nullptr;
    Status* (*compute_v2)(void*, KernelContext*) = nullptr;
    Status* (*infer_shape)(const CustomOp*, void*) = nullptr;
    int (*start_version)(const CustomOp*) = nullptr;
    int (*end_version)(const CustomOp*) = nullptr;
    std::size_t (*may_inplace)(int**, int**) = nullptr;
    void (*release_may_inplace)(int*, int*) = nullptr;
    std::size_t (*alias_map)(int**, int**) = nullptr;
    void (*release_alias_map)(int*, int*) = nullptr;
};

}  // namespace samrt::ort
