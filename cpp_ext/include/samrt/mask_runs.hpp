// From low-resolution logits straight to run lengths and figures, one mask at a time: no stack of
// full-size masks, be it of floats or of bytes, is ever built.
#pragma once

#include <cstdint>
#include <vector>

#include "samrt/masks.hpp"
#include "samrt/postprocess.hpp"

namespace samrt {

// A mask is where a full-size sample is above `threshold`. Its stability is Segment Anything's:
// full-size samples above `inner` over those above `outer`; inner >= threshold >= outer.
struct MaskLevels {
    float threshold = 0.0f, inner = 0.0f, outer = 0.0f;
};

struct MaskRuns {
    float stability = 0.0f;             // 0 where no sample is above `outer`
    MaskStats stats;                    // of the full-size mask
    std::vector<std::uint32_t> counts;  // as rle_encode gives them
};

// target: plan.count records. Masks less stable than `min_stability` get their stability only:
// their stats are zero and their counts empty. With `probability` the logistic function is applied
// to the low-resolution map first. Memory: out_size() bytes for each thread that works.
void mask_runs(const float* logits, const MaskPlan& plan, const MaskLevels& levels,
               bool probability, float min_stability, int threads, MaskRuns* target);

// Run lengths of a mask of `part` pixels, moved to (row, column) in a mask of `whole` pixels that
// is otherwise outside. The part must lie within the whole.
std::vector<std::uint32_t> place_runs(const std::uint32_t* counts, std::size_t n, MaskShape part,
                                      int row, int column, MaskShape whole);

// Greedy non-maximum suppression by box IoU in float32. boxes: n times x0, y0, x1, y1. Returns the
// indices kept, by falling score, of equal scores the earlier first. A box goes if its IoU with a
// kept one is above `threshold`; where both have no area the IoU is no number, and it stays.
std::vector<std::int64_t> box_nms(const float* boxes, const float* scores, std::size_t n,
                                  double threshold);

}  // namespace samrt
