// Image -> the normalised, padded tensor that an encoder takes.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "samrt/resample.hpp"

namespace samrt {

struct PreprocessPlan {
    int frame_height = 0, frame_width = 0;  // of the tensor
    int height = 0, width = 0;              // of the resized image, at the frame's top left
    Interpolation interpolation = Interpolation::kBilinearAntialias;
    Rounding rounding = Rounding::kNearest;
    std::vector<std::pair<int, int>> via;  // sizes on the way to that one; splines alone
    float divisor = 1;                     // of all samples, before anything else is done
    bool min_max = false;  // normalise with the smallest and largest resized sample instead
    float mean[3] = {0, 0, 0};  // in the order of the tensor's planes
    float std[3] = {1, 1, 1};
    float scale = 1;
    float pad_value = 0;
    bool pad_before = false;  // pad_value is an image value, normalised as the image is
    bool bgr = false;         // plane 0 is blue
    bool half = false;        // IEEE half instead of float
};

// `target`: 3 * frame_height * frame_width floats or halves. Where samples are rounded they are
// divided after the resize, otherwise before it. kBsplineAntialias takes a grey image as three
// equal channels. Throws std::invalid_argument for combinations that do not exist.
void preprocess(const ByteImage& image, const PreprocessPlan& plan, int threads, void* target);

enum class Sample { kUint16, kInt16, kFloat32 };

// One channel of samples that are mapped from [low, high] to [0, 255], clipped. NaN counts as low.
struct WindowedImage {
    const void* data = nullptr;
    Sample sample = Sample::kUint16;
    int height = 0, width = 0;
    double low = 0, high = 1;
};

// The same without rounding to 8 bits anywhere: window, divide, resize in float, normalise.
// plan.rounding decides on nothing but the arithmetic: see FloatResizer.
void preprocess_window(const WindowedImage& image, const PreprocessPlan& plan, int threads,
                       void* target);

// floor(clip((x - low) / (high - low), 0, 1) * 255 + 0.5), height * width bytes.
void window_to_bytes(const WindowedImage& image, int threads, std::uint8_t* target);

}  // namespace samrt
