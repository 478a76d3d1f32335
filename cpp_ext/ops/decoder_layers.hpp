// The mathematics of SAM's mask decoder; knows nothing of ONNX Runtime.
#pragma once

#include "layers.hpp"

namespace samrt::ops {

// The end of SAM's mask decoder: transposed convolution by two, norm, gelu, transposed convolution by
// two, gelu, product with the weights of each mask. Columns of a convolution's matrix: (row of the
// 2 x 2 block, column, channel).
struct UpscaleMasks {
    const Packed *w1, *w2;  // (channels, 4 middle), (middle, 4 fine)
    const float *b1, *b2;
    Norm norm;  // over the middle channels
    int height, width, masks;
};

// x (prompts, height * width, channels), hyper (prompts, masks, fine) to
// y (prompts, masks, 4 height, 4 width).
void upscale_masks(const float* x, const float* hyper, int prompts, const UpscaleMasks& layer,
                   float* y, const Parallel& parallel);

// A mask prompt's part in attention over the image: `count` rows of numbers over the positions, each
// with a weight in every channel. Prompts whose `given` is zero have none.
struct MaskRows {
    int count = 0;
    const float* given = nullptr;  // (prompts)
    const float* rows = nullptr;   // (prompts, count, positions)
    const float* wide = nullptr;   // (prompts, heads * tokens, count): what a row adds to scores
    const float* weight = nullptr; // what a row adds to values

    bool of(std::size_t prompt) const { return count > 0 && given[prompt] != 0.0f; }
};

// Tokens attend to the image as it comes from the encoder, whose keys and values are at hand.
struct ReadImage {
    int heads, tokens, width, positions;
    const float* keys;    // (heads, width, positions)
    const float* values;  // (heads, positions, width)
    MaskRows mask;        // weight (heads, count, width)
};

// queries (prompts, heads, tokens, width), scaled, to y of the same shape.
void read_image(const float* queries, int prompts, const ReadImage& layer, float* y,
                const Parallel& parallel);

// The image attends to tokens and is normalised, then tokens attend to the image: a block's "image
// to token" attention and the next "token to image" attention behind their projections of tokens.
struct ImagePass {
    int heads, tokens;   // that the image attends to; no tokens: it is only read
    int reads;           // rows of queries
    int positions, channels;
    bool channels_first;   // of the image
    Norm norm;
    const float* codes;    // (positions, channels)
    const float* side;     // (heads, width, positions): the image's own queries at hand; or null
    int width;             // of them
    MaskRows mask;         // weight (count, channels)
};

struct ImagePassInputs {
    const float* image;    // (1 or prompts, positions, channels), or channels first
    bool shared;           // one for all prompts
    const float* keys;     // (prompts, heads, tokens, width), without `side` (..., channels)
    const float* offset;   // (prompts, heads, tokens), added to the scores; null with `side`
    const float* values;   // (prompts, heads * tokens, channels)
    const float* queries;  // (prompts, reads, channels)
};

// Without tokens y is not written, and what is read is the image itself. Otherwise
// y (prompts, positions, channels) = norm(image + sum over heads of softmax(keys (image + codes))
// values), seen (prompts, reads, channels) = softmax(queries (y + codes)) y.
void image_pass(const ImagePassInputs& in, int prompts, const ImagePass& layer, float* y,
                float* seen, const Parallel& parallel);

// SAM's `mask_downscaling` up to its last, linear layer: twice a 2 x 2 convolution with stride 2,
// norm and gelu. Rows of a matrix: (row, column, channel).
struct MaskDownscaling {
    const Packed *w1, *w2;  // (4, middle), (4 middle, channels)
    const float *b1, *b2;
    Norm norm1, norm2;
    int height, width;  // of the result
};

// masks (prompts, 4 height, 4 width) to rows (prompts, channels + 1, height * width), the last one
// of ones; all zero where `given` is.
void mask_rows(const float* masks, const float* given, int prompts, const MaskDownscaling& layer,
               float* rows, const Parallel& parallel);

}  // namespace samrt::ops
