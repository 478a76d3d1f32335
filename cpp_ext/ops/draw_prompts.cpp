#include <algorithm>
#include <cmath>
#include <vector>

#include "fine_layers.hpp"

namespace samrt::ops {
namespace {

constexpr float kSigmas[2] = {5.0f, 30.0f};
constexpr int kRowsPerUnit = 8;

float clipped(float value) { return std::min(std::max(value, -2.0f), 2.0f); }

// A box in units of half its sides, and the clicks: what one prompt's maps are made of.
struct Drawing {
    float has = 0, reach_x = 1, reach_y = 1;
    std::vector<float> u, v;  // position in the box of each column and row
    struct Click {
        int kind;                    // 0: positive, 1: negative
        std::vector<float> x[2], y[2];  // bumps of both widths across and down
    };
    std::vector<Click> clicks;

    Drawing(const float* coords, const float* labels, int points, int n) : u(size(n, 1)), v(u) {
        float low[2] = {}, high[2] = {};
        for (int i = 0; i < points; ++i)
            for (int axis = 0; axis < 2; ++axis) {
                if (labels[i] == 2.0f) low[axis] += coords[2 * i + axis];
                if (labels[i] == 3.0f) high[axis] += coords[2 * i + axis];
            }
        for (int i = 0; i < points; ++i) has = labels[i] == 2.0f ? 1.0f : has;
        reach_x = std::max((high[0] - low[0]) * 0.5f, 1.0f);
        reach_y = std::max((high[1] - low[1]) * 0.5f, 1.0f);
        for (int i = 0; i < n; ++i) {
            const float at = (static_cast<float>(i) + 0.5f) * 4.0f;
            u[size(i, 1)] = (at - (low[0] + high[0]) * 0.5f) / reach_x;
            v[size(i, 1)] = (at - (low[1] + high[1]) * 0.5f) / reach_y;
        }
        for (int i = 0; i < points; ++i) {
            if (labels[i] != 1.0f && labels[i] != 0.0f) continue;
            Click click{labels[i] == 1.0f ? 0 : 1, {}, {}};
            for (int s = 0; s < 2; ++s)
                for (int k = 0; k < n; ++k) {
                    const float at = (static_cast<float>(k) + 0.5f) * 4.0f;
                    const float factor = -0.5f / (kSigmas[s] * kSigmas[s]);
                    const float dx = at - coords[2 * i], dy = at - coords[2 * i + 1];
                    click.x[s].push_back(std::exp(dx * dx * factor));
                    click.y[s].push_back(std::exp(dy * dy * factor));
                }
            clicks.push_back(std::move(click));
        }
    }
};

void draw_row(const Drawing& drawing, int y, int n, std::ptrdiff_t plane, float* row) {
    const float v = drawing.v[size(y, 1)], has = drawing.has;
    const float across = drawing.reach_x, down = drawing.reach_y, from_y = 1.0f - std::fabs(v);
    const float* u = drawing.u.data();
    for (int i = 0; i < n; ++i) {
        const float from_x = 1.0f - std::fabs(u[i]);
        row[i] = clipped(u[i]) * has;
        row[plane + i] = clipped(v) * has;
        row[2 * plane + i] = clipped(1.0f - (u[i] * u[i] + v * v)) * has;
        row[3 * plane + i] = clipped(std::min(from_x, from_y)) * has;
        row[4 * plane + i] =
            clipped(std::min(from_x * across, from_y * down) * (1.0f / 16.0f)) * has;
        row[5 * plane + i] = has;
    }
    for (int map = 6; map < 10; ++map) std::fill_n(row + map * plane, n, 0.0f);
    for (const Drawing::Click& click : drawing.clicks)
        for (int s = 0; s < 2; ++s) {
            float* to = row + (6 + 2 * click.kind + s) * plane;
            const float height = click.y[s][size(y, 1)];
            const float* width = click.x[s].data();
            for (int i = 0; i < n; ++i) to[i] = std::max(to[i], width[i] * height);
        }
}

// The earlier mask's row: tanh of a quarter of its logits, averaged over 2 x 2.
void draw_mask(const float* mask, float has, int n, std::ptrdiff_t plane, float* row) {
    std::fill_n(row + plane, n, has);
    if (has == 0.0f) {
        std::fill_n(row, n, 0.0f);
        return;
    }
    const float* next = mask + 2 * wide(n);
    for (int i = 0; i < n; ++i) {
        const float mean =
            (mask[2 * i] + mask[2 * i + 1] + next[2 * i] + next[2 * i + 1]) * 0.25f;
        row[i] = mean * 0.5f;  // tanh(x) = 2 / (1 + e^-2x) - 1
    }
    kernels().sigmoid(row, n, row);
    for (int i = 0; i < n; ++i) row[i] = (2.0f * row[i] - 1.0f) * has;
}

}  // namespace

void draw_prompts(const Prompts& prompts, int side, float* grid, const Parallel& parallel) {
    const int n = 4 * side, units = (n + kRowsPerUnit - 1) / kRowsPerUnit;
    const std::ptrdiff_t plane = wide(n) * n;
    std::vector<Drawing> drawings;
    for (int p = 0; p < prompts.count; ++p)
        drawings.emplace_back(prompts.coords + wide(p) * prompts.points * 2,
                              prompts.labels + wide(p) * prompts.points, prompts.points, n);
    parallel(size(prompts.count, units), [&](std::size_t unit) {
        const int p = static_cast<int>(unit / size(units, 1));
        const int first = static_cast<int>(unit % size(units, 1)) * kRowsPerUnit;
        for (int y = first; y < std::min(n, first + kRowsPerUnit); ++y) {
            float* row = grid + wide(p) * kPromptMaps * plane + wide(y) * n;
            draw_row(drawings[size(p, 1)], y, n, plane, row);
            draw_mask(prompts.mask + wide(p) * 4 * plane + wide(y) * 4 * n, prompts.has_mask[p], n,
                      plane, row + 10 * plane);
        }
    });
}

void start_image(const float* embedding, const float* grid, int prompts, int side,
                 const PromptLayers& layer, float* x, const Parallel& parallel) {
    const int n = 4 * side, middle = layer.w1->n, channels = layer.w2->n;
    const std::ptrdiff_t plane = wide(n) * n, small = wide(side) * side;
    Buffer pooled(size(prompts, kPromptMaps) * static_cast<std::size_t>(small));
    parallel(size(prompts, kPromptMaps), [&](std::size_t map) {
        const float* from = grid + static_cast<std::ptrdiff_t>(map) * plane;
        float* to = pooled.data() + static_cast<std::ptrdiff_t>(map) * small;
        for (int y = 0; y < side; ++y)
            for (int i = 0; i < side; ++i) {
                const float* corner = from + wide(4 * y) * n + 4 * i;
                float sum = 0;
                for (int dy = 0; dy < 4; ++dy)
                    for (int dx = 0; dx < 4; ++dx) sum += corner[wide(dy) * n + dx];
                to[wide(y) * side + i] = sum * (1.0f / 16.0f);
            }
    });
    parallel(size(prompts, side), [&](std::size_t unit) {
        const int y = static_cast<int>(unit % size(side, 1));
        const std::ptrdiff_t p = static_cast<std::ptrdiff_t>(unit / size(side, 1));
        thread_local Buffer scratch;
        float* taps = scratch.grow(size(side, kPromptMaps * 9 + middle));
        float* hidden = taps + wide(side) * (kPromptMaps * 9);
        const float* maps = pooled.data() + p * kPromptMaps * small;
        for (int i = 0; i < side; ++i) {
            float* to = taps + wide(i) * (kPromptMaps * 9);
            for (int map = 0; map < kPromptMaps; ++map)
                for (int dy = -1; dy <= 1; ++dy)
                    for (int dx = -1; dx <= 1; ++dx) {
                        const bool in = y + dy >= 0 && y + dy < side && i + dx >= 0 && i + dx < side;
                        *to++ = in ? maps[map * small + wide(y + dy) * side + i + dx] : 0.0f;
                    }
        }
        Epilogue then;
        then.bias = layer.b1;
        layer.w1->times(taps, kPromptMaps * 9, side, hidden, middle, then);
        for (int i = 0; i < side * middle; ++i) hidden[i] = std::max(hidden[i], 0.0f);
        float* row = x + (p * small + wide(y) * side) * channels;
        then.bias = layer.b2;
        layer.w2->times(hidden, middle, side, row, channels, then);
        for (int c = 0; c < channels; ++c)
            for (int i = 0; i < side; ++i)
                row[wide(i) * channels + c] += embedding[c * small + wide(y) * side + i];
    });
}

}  // namespace samrt::ops
