// What a kernel sees of ONNX Runtime: tensors, a node's constants, one call. Errors are exceptions.
#pragma once

#include <atomic>
#include <cstring>
#include <functional>
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

    float* output(const std::vector<std::int64_t>& shape, std::size_t index = 0) const {
        ort::Value* value = nullptr;
        check(api_, ort::call<ort::Status*>(api_, ort::kKernelContextGetOutput, context_,
                                            index, shape.data(), shape.size(), &value),
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

}  // namespace
}  // namespace samrt::ops
