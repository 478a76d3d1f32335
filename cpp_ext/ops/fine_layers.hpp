// The mathematics of the mask decoder of `tiny`, see export/samrt_export/tiny/model.py; knows nothing
// of ONNX Runtime. Grids are square: `side` positions of stride 16 across, 4 * side of stride 4.
#pragma once

#include <vector>

#include "layers.hpp"

namespace samrt::ops {

constexpr int kPromptMaps = 12;  // `PromptMaps` in export/samrt_export/tiny/prompt_parts.py
constexpr int kFigures = 8;      // `ScoreHead` there

struct Prompts {
    int count, points;
    const float* coords;    // (count, points, 2), pixels of the frame
    const float* labels;    // (count, points)
    const float* mask;      // (count, 8 side, 8 side) logits
    const float* has_mask;  // (count)
};

// grid (prompts, 12, 4 side, 4 side).
void draw_prompts(const Prompts& prompts, int side, float* grid, const Parallel& parallel);

// A 3 x 3 convolution of the maps at stride 16, relu, and a linear layer.
struct PromptLayers {
    const Packed *w1, *w2;  // (12 * 9, middle), rows (map, down, across); (middle, channels)
    const float *b1, *b2;
};

// embedding (channels, side, side) and the drawn prompts to x (prompts, side * side, channels).
void start_image(const float* embedding, const float* grid, int prompts, int side,
                 const PromptLayers& layer, float* x, const Parallel& parallel);

using Numbers = std::vector<float>;

// How `Prototypes` changes the features of one map.
struct Likeness {
    Numbers a, b;     // (width, width)
    Numbers weight;   // (4 width, width)
    Numbers bias;     // (width)
};

// A convolution of planes: weights as PlanarRow has them.
struct PlanarWeights {
    PlanarWeights() = default;
    // weight (out, channels, taps, taps); an absent bias is zero.
    PlanarWeights(const float* weight, const float* bias, int out, int channels, int taps);
    int out = 0, channels = 0, taps = 1;
    Numbers weight, bias;
};

struct Bottleneck {
    Packed w1, w3;  // (channels, middle), (middle, channels)
    Numbers b1, b2, b3;
    Conv3x3Weights w2;
};

// The light convolutions from the image at stride 16 to masks at stride 2.
struct FineWeights {
    Bottleneck mix16;
    Packed down8;             // (channels, f8)
    Numbers down8_bias;
    Likeness like8, like4;
    Numbers dense8;           // (12, f8)
    Numbers dense8_bias;
    Conv3x3Weights mix8a, mix8b;
    Numbers mix8a_bias, mix8b_bias;
    Numbers down4, down4_bias;    // (f4, f8)
    Numbers dense4, dense4_bias;  // (f4, 12)
    PlanarWeights mix4a, mix4b, down2, mix2;
};

struct FineInputs {
    const float* image;             // (prompts, side * side, channels)
    const float *f8, *f4, *f2;      // planes of stride 8, 4 and 2, for all prompts
    const float* grid;              // of draw_prompts
    const float* hyper;             // (prompts, masks, channels of f2 + 1)
};

struct FineOutputs {
    float* masks;    // (prompts, masks, 8 side, 8 side)
    float* figures;  // (prompts, masks, kFigures)
    float* fit;      // (prompts, masks): 1 without a box, else how a mask's extent fits it
};

void fine_masks(const FineInputs& in, int prompts, int masks, int side, const FineWeights& weights,
                const FineOutputs& out, const Parallel& parallel);

// A convolution of stride 2 and three or five taps: a matrix (taps * channels, out) for each row of
// taps, pixels before channels.
struct StridedWeights {
    StridedWeights() = default;
    // weight (out, channels, taps, taps).
    StridedWeights(const float* weight, const float* bias, int out, int channels, int taps);
    int taps = 3, channels = 0, out = 0;
    std::vector<Packed> rows;
    Numbers bias;
};

struct PointWeights {
    Packed matrix;  // (channels, out)
    Numbers bias;
};

// A linear layer whose result is planes.
struct PlaneWeights {
    int channels = 0, out = 0;
    Numbers weight, bias;  // (out, channels), (out)
};

// The image encoder of `tiny`: a stem of stride 2, four stages that begin with stride 2, and the way
// back from the coarsest to the finest.
struct EncoderWeights {
    struct Square {
        Conv3x3Weights weights;
        Numbers bias;
    };
    struct Stage {
        StridedWeights down;
        std::vector<Square> squares;  // two of each residual block
    };
    struct Merge {  // relu(lateral(fine) + coarse doubled), then a convolution with relu
        PointWeights lateral, coarse;
        Square smooth;
    };
    StridedWeights stem;
    std::vector<Stage> stages;      // 4
    std::vector<Merge> merges;      // at strides 16, 8 and 4
    std::vector<PlaneWeights> out;  // of strides 16, 8, 4, of the stem, and of stride 4 for stride 2
};

// image (3, side, side), side a multiple of 64, to planes of stride 16, 8, 4 and 2.
void encode(const float* image, int side, const EncoderWeights& weights, float* const* maps,
            const Parallel& parallel);

}  // namespace samrt::ops
