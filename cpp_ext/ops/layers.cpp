#include "layers.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace samrt::ops {
namespace {

constexpr std::size_t kTileBytes = 320 * 1024;  // of what a block of rows makes: stays in cache

// Rows per unit of work: a multiple of 12 (all register tiles divide it) that fits the cache.
int rows_per_unit(int width, int most) {
    const std::size_t fitting = kTileBytes / (sizeof(float) * static_cast<std::size_t>(width));
    return std::clamp(static_cast<int>(fitting) / 12 * 12, 24, most);
}

}  // namespace

Packed::Packed(const float* rows, std::ptrdiff_t stride, int k_, int n_) : k(k_), n(n_) {
    const Kernels& by = kernels();
    std::vector<const float*> row(static_cast<std::size_t>(k));
    for (int i = 0; i < k; ++i) row[static_cast<std::size_t>(i)] = rows + i * stride;
    by.pack(row.data(), k, n, data_.grow(packed_size(by, k, n)));
}

Packed::Packed(const std::int8_t* rows, const float* scale, std::ptrdiff_t stride, int k_, int n_)
    : k(k_), n(n_), sums_(static_cast<std::size_t>(n_), 0), integers_(true) {
    const Kernels& by = kernels();
    std::vector<const std::int8_t*> row(static_cast<std::size_t>(k));
    for (int i = 0; i < k; ++i) {
        row[static_cast<std::size_t>(i)] = rows + i * stride;
        for (int j = 0; j < n; ++j) sums_[static_cast<std::size_t>(j)] += 128 * rows[i * stride + j];
    }
    float* space = data_.grow((packed8_size(by, k, n) + 3) / 4);
    by.pack8(row.data(), k, n, reinterpret_cast<std::int8_t*>(space));
    std::memcpy(scale_.grow(size(n, 1)), scale, size(n, 1) * sizeof(float));
}

void Packed::times(const float* a, std::ptrdiff_t a_stride, int rows, float* c,
                   std::ptrdiff_t c_stride, const Epilogue& then) const {
    const Kernels& by = kernels();
    if (!integers_) return by.multiply(a, a_stride, rows, data_.data(), k, n, c, c_stride, then);
    const std::ptrdiff_t stride = (wide(k) + 63) / 64 * 64;
    thread_local Buffer scratch;
    float* scales = scratch.grow(size(rows, static_cast<int>(stride / 4) + 1));
    auto* bytes = reinterpret_cast<std::uint8_t*>(scales + rows);
    for (int r = 0; r < rows; ++r)
        scales[r] = by.quantize(a + r * a_stride, k, bytes + r * stride);
    by.multiply8(bytes, stride, rows, reinterpret_cast<const std::int8_t*>(data_.data()), k, n,
                 scales, scale_.data(), sums_.data(), c, c_stride, then);
}

void linear(const float* x, std::int64_t rows, const Packed& w, const Norm& norm,
            const Epilogue& then, float* y, const Parallel& parallel) {
    const Kernels& by = kernels();
    const int block = rows_per_unit(w.k, 96);
    const auto units = static_cast<std::size_t>((rows + block - 1) / block);
    parallel(units, [&](std::size_t unit) {
        const std::int64_t from = static_cast<std::int64_t>(unit) * block;
        const int count = static_cast<int>(std::min<std::int64_t>(block, rows - from));
        const float* a = x + from * w.k;
        thread_local Buffer scratch;
        if (norm.gamma != nullptr) {
            float* normed = scratch.grow(size(block, w.k));
            for (int r = 0; r < count; ++r)
                by.normalize(a + wide(r) * w.k, w.k, norm.gamma, norm.beta, norm.epsilon,
                             false, normed + wide(r) * w.k);
            a = normed;
        }
        Epilogue here = then;
        if (then.residual != nullptr) here.residual += from * then.residual_stride;
        w.times(a, w.k, count, y + from * w.n, w.n, here);
    });
}

namespace {

constexpr int kHiddenPart = 768;

}  // namespace

MlpWeights::MlpWeights(const float* w1, const float* w2, int channels_, int hidden_)
    : channels(channels_), hidden(hidden_) {
    for (int from = 0; from < hidden; from += kHiddenPart) {
        const int n = std::min(kHiddenPart, hidden - from);
        parts_.push_back({from, n, Packed(w1 + from, hidden, channels, n),
                          Packed(w2 + wide(from) * channels, channels, n, channels)});
    }
}

MlpWeights::MlpWeights(const std::int8_t* w1, const float* scale1, const std::int8_t* w2,
                       const float* scale2, int channels_, int hidden_)
    : channels(channels_), hidden(hidden_) {
    for (int from = 0; from < hidden; from += kHiddenPart) {
        const int n = std::min(kHiddenPart, hidden - from);
        parts_.push_back({from, n, Packed(w1 + from, scale1 + from, hidden, channels, n),
                          Packed(w2 + wide(from) * channels, scale2, channels, n, channels)});
    }
}

void mlp(const float* x, std::int64_t rows, const Norm& norm, const MlpWeights& weights,
         const float* b1, const float* b2, float* y, const Parallel& parallel) {
    const Kernels& by = kernels();
    const int k = weights.channels, widest = weights.parts().front().n;
    const int block = rows_per_unit((k + widest) / 2, 96);
    const auto units = static_cast<std::size_t>((rows + block - 1) / block);
    parallel(units, [&](std::size_t unit) {
        const std::int64_t from = static_cast<std::int64_t>(unit) * block;
        const int count = static_cast<int>(std::min<std::int64_t>(block, rows - from));
        const float* a = x + from * k;
        float* to = y + from * k;
        thread_local Buffer scratch;
        float* normed = scratch.grow(size(block, k + widest));
        float* hidden = normed + size(block, k);
        for (int r = 0; r < count; ++r)
            by.normalize(a + wide(r) * k, k, norm.gamma, norm.beta, norm.epsilon, false,
                         normed + wide(r) * k);
        for (const MlpWeights::Part& part : weights.parts()) {
            Epilogue first;
            first.bias = b1 + part.from;
            first.gelu = true;
            part.w1.times(normed, k, count, hidden, part.n, first);
            Epilogue second;
            second.accumulate = part.from > 0;
            if (part.from == 0) {
                second.bias = b2;
                second.residual = a;
                second.residual_stride = k;
            }
            part.w2.times(hidden, part.n, count, to, k, second);
        }
    });
}

void depthwise(const float* x, int height, int width, int channels, const float* weight,
               const float* bias, float* y, const Parallel& parallel) {
    const Kernels& by = kernels();
    const std::size_t line = size(width, channels), padded = size(width + 2, channels);
    constexpr int kBlock = 4;
    parallel(static_cast<std::size_t>((height + kBlock - 1) / kBlock), [&](std::size_t unit) {
        const int from = static_cast<int>(unit) * kBlock, to = std::min(height, from + kBlock);
        thread_local Buffer scratch;
        float* ring = scratch.grow(3 * padded);
        const auto bring = [&](int row) {  // into its place, with a pixel of zeros at each end
            float* place = ring + static_cast<std::size_t>(row % 3) * padded;
            std::memset(place, 0, size(channels, 1) * sizeof(float));
            std::memcpy(place + channels, x + static_cast<std::size_t>(row) * line,
                        line * sizeof(float));
            std::memset(place + channels + line, 0, size(channels, 1) * sizeof(float));
        };
        for (int row = std::max(from - 1, 0); row < std::min(from + 1, height); ++row) bring(row);
        for (int row = from; row < to; ++row) {
            if (row + 1 < height) bring(row + 1);
            const float* lines[3];
            for (int r = 0; r < 3; ++r) {
                const int source = row + r - 1;
                lines[r] = source < 0 || source >= height
                               ? nullptr
                               : ring + static_cast<std::size_t>(source % 3) * padded;
            }
            by.depthwise(lines, weight, bias, channels, width, 1, false,
                         y + static_cast<std::size_t>(row) * line);
        }
    });
}

void mbconv(const float* x, int height, int width, const MbConv& layer, float* y,
            const Parallel& parallel) {
    const Kernels& by = kernels();
    const int stride = layer.stride, in = layer.w1->k, mid = layer.w1->n, out = layer.w3->n;
    const int out_h = (height - 1) / stride + 1, out_w = (width - 1) / stride + 1;
    // Tiles of columns whose three rows in the middle fit the cache, and bands of rows.
    const int fitting = static_cast<int>(kTileBytes / (4 * sizeof(float)) /
                                         static_cast<std::size_t>(mid * stride));
    const int tile_w = std::min(out_w, std::clamp(fitting / 12 * 12, 12, 96));
    const int tile_h = std::min(out_h, 32);
    const int across = (out_w + tile_w - 1) / tile_w, down = (out_h + tile_h - 1) / tile_h;
    const int line = (tile_w - 1) * stride + 3;  // pixels of a row that a tile reads
    parallel(size(across, down), [&](std::size_t unit) {
        const int x0 = static_cast<int>(unit) % across * tile_w;
        const int y0 = static_cast<int>(unit) / across * tile_h;
        const int columns = std::min(tile_w, out_w - x0), y1 = std::min(out_h, y0 + tile_h);
        const int first = x0 * stride - 1, last = first + (columns - 1) * stride + 3;
        const int begin = std::max(first, 0), end = std::min(last, width);
        thread_local Buffer scratch;
        float* ring = scratch.grow(3 * size(line, mid) + size(tile_w, mid));
        float* filtered = ring + 3 * size(line, mid);
        Epilogue expand;
        expand.bias = layer.b1;
        expand.gelu = true;
        const auto place = [&](int row) { return ring + size(row % 3, 1) * size(line, mid); };
        const auto bring = [&](int row) {
            float* to = place(row);
            std::memset(to, 0, size(begin - first, mid) * sizeof(float));
            layer.w1->times(x + (wide(row) * width + begin) * in, in, end - begin,
                            to + wide(begin - first) * mid, mid, expand);
            std::memset(to + wide(end - first) * mid, 0, size(last - end, mid) * sizeof(float));
        };
        int done = std::max(y0 * stride - 1, 0);  // rows before this one are in the ring
        for (int row = y0; row < y1; ++row) {
            const int top = row * stride - 1;
            for (done = std::max(done, top); done < std::min(top + 3, height); ++done) bring(done);
            const float* lines[3];
            for (int r = 0; r < 3; ++r)
                lines[r] = top + r < 0 || top + r >= height ? nullptr : place(top + r);
            by.depthwise(lines, layer.wd, layer.bd, mid, columns, stride, true, filtered);
            Epilogue project;
            project.bias = layer.b3;
            if (layer.residual) {
                project.residual = x + (wide(row) * width + x0) * in;
                project.residual_stride = in;
                project.gelu_last = true;
            }
            layer.w3->times(filtered, mid, columns, y + (wide(row) * out_w + x0) * out, out,
                            project);
        }
    });
}

}  // namespace samrt::ops
