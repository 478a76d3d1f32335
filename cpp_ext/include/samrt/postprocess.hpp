// Low-resolution mask logits -> the size of the original image, as Segment Anything does it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace samrt {

// PyTorch's interpolate(align_corners=False) without antialias.
enum class Upscaling {
    kBilinear,
    kBicubic,  // a = -0.75; one step alone
    kNearest,  // sample floor(i * in / out)
};

// Throws std::invalid_argument that lists the names when `name` is none of them.
Upscaling parse_upscaling(const std::string& name);

// Two steps: the low-resolution map is resized to the frame, cropped to its top left crop_height
// x crop_width, and resized to out_height x out_width. Neither intermediate map is ever built.
// kBicubic wants the frame to have the size of the low-resolution map.
struct MaskPlan {
    Upscaling interpolation = Upscaling::kBilinear;
    int count = 0;  // masks
    int low_height = 0, low_width = 0;
    int frame_height = 0, frame_width = 0;
    int crop_height = 0, crop_width = 0;
    int out_height = 0, out_width = 0;

    std::size_t low_size() const {
        return static_cast<std::size_t>(low_height) * static_cast<std::size_t>(low_width);
    }
    std::size_t out_size() const {
        return static_cast<std::size_t>(out_height) * static_cast<std::size_t>(out_width);
    }
};

// target: count * out_size() floats.
void upscale_logits(const float* logits, const MaskPlan& plan, int threads, float* target);

// target: count * out_size() bytes, 1 where upscale_logits would give more than `threshold`. With
// `probability` the logistic function is applied to the low-resolution map first.
void masks_from_logits(const float* logits, const MaskPlan& plan, float threshold,
                       bool probability, int threads, std::uint8_t* target);

// Per mask: samples above threshold + offset over samples above threshold - offset, 0 if none.
void stability(const float* logits, int count, std::size_t size, double threshold, double offset,
               float* target);

}  // namespace samrt
