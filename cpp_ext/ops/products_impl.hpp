// Packed matrix products for one instruction set; see kernels.hpp and kernels_impl.hpp.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace samrt::ops {
namespace {

constexpr int kPanel = 2 * kLanes;
constexpr int kRows = SAMRT_ROWS;

SAMRT_INLINE std::size_t at(int value) { return static_cast<std::size_t>(value); }

void pack_panels(const float* const* rows, int k, int n, float* packed) {
    for (int from = 0; from < n; from += kPanel) {
        const int width = n - from < kPanel ? n - from : kPanel;
        for (int i = 0; i < k; ++i, packed += kPanel) {
            const float* row = rows[i] + from;
            if (width == kPanel) {
                store(packed, load(row));
                store(packed + kLanes, load(row + kLanes));
            } else {
                for (int j = 0; j < kPanel; ++j) packed[j] = j < width ? row[j] : 0.0f;
            }
        }
    }
}

// kLanes rows of kLanes floats, transposed by interleaving halves log2(kLanes) times.
SAMRT_INLINE void transpose(Vec* rows) {
    IntVec low{}, high{};
    for (int i = 0; i < kLanes; ++i) {
        low[i] = i / 2 + (i % 2) * kLanes;
        high[i] = i / 2 + (i % 2) * kLanes + kLanes / 2;
    }
    for (int step = 1; step < kLanes; step *= 2) {
        Vec next[kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes / 2; ++i) {
            next[2 * i] = __builtin_shuffle(rows[i], rows[i + kLanes / 2], low);
            next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + kLanes / 2], high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
    }
}

void pack_transposed_panels(const float* const* rows, int k, int n, float* packed) {
    for (int from = 0; from < n;
         from += kPanel, packed += static_cast<std::ptrdiff_t>(k) * kPanel) {
        for (int part = 0; part < kPanel; part += kLanes) {
            const int left = n - from - part;
            const int whole = k / kLanes * kLanes;
            for (int d = 0; d < whole; d += kLanes) {
                Vec lanes[kLanes];
                for (int i = 0; i < kLanes; ++i)
                    lanes[i] = i < left ? load(rows[from + part + i] + d) : Vec{};
                transpose(lanes);
                for (int i = 0; i < kLanes; ++i)
                    store(packed + static_cast<std::ptrdiff_t>(d + i) * kPanel + part, lanes[i]);
            }
            for (int d = whole; d < k; ++d)
                for (int i = 0; i < kLanes; ++i)
                    packed[static_cast<std::ptrdiff_t>(d) * kPanel + part + i] =
                        i < left ? rows[from + part + i][d] : 0.0f;
        }
    }
}

template <int Rows, int Vecs>
SAMRT_INLINE void finish(Vec (&sum)[Rows][Vecs], float* c, std::ptrdiff_t c_stride, int columns,
                         int column, const Epilogue& then) {
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v) {
        const int left = columns - v * kLanes;
        if (left <= 0) return;
        const bool whole = left >= kLanes;
        Vec bias{};
        if (then.bias)
            bias = whole ? load(then.bias + column + v * kLanes)
                         : load_part(then.bias + column + v * kLanes, at(left));
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
            float* to = c + r * c_stride + v * kLanes;
            Vec value = sum[r][v];
            if (then.accumulate) value += whole ? load(to) : load_part(to, at(left));
            value += bias;
            if (then.gelu) value = gelu_of(value);
            if (then.residual) {
                const float* more =
                    then.residual + r * then.residual_stride + column + v * kLanes;
                value += whole ? load(more) : load_part(more, at(left));
            }
            if (then.gelu_last) value = gelu_of(value);
            if (whole)
                store(to, value);
            else
                store_part(to, value, at(left));
        }
    }
}

// Rows x Vecs vectors of the result stay in registers while k goes by.
template <int Rows, int Vecs>
void tile(const float* a, std::ptrdiff_t stride, const float* packed, int k, float* c,
          std::ptrdiff_t c_stride, int columns, int column, const Epilogue& then) {
    Vec sum[Rows][Vecs];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < Vecs; ++v) sum[r][v] = Vec{};  // in registers, not as one block
    // Three rows share a pointer: base, base + stride and base + 2 stride are one address each.
    constexpr int kGroups = (Rows + 2) / 3;
    const float* base[kGroups];
    for (int g = 0; g < kGroups; ++g) base[g] = a + 3 * g * stride;
    for (int i = 0; i < k; ++i, packed += kPanel) {
        Vec b[Vecs];
#pragma GCC unroll 4
        for (int v = 0; v < Vecs; ++v) b[v] = load(packed + v * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
            const Vec value = spread(base[r / 3][(r % 3) * stride]);
#pragma GCC unroll 4
            for (int v = 0; v < Vecs; ++v) sum[r][v] += value * b[v];
        }
#pragma GCC unroll 16
        for (int g = 0; g < kGroups; ++g) ++base[g];
    }
    finish<Rows, Vecs>(sum, c, c_stride, columns, column, then);
}

using Tile = void (*)(const float*, std::ptrdiff_t, const float*, int, float*, std::ptrdiff_t, int,
                      int, const Epilogue&);

template <int Vecs>
Tile tile_of(int rows) {
    switch (rows) {
        case 1: return tile<1, Vecs>;
        case 2: return tile<2, Vecs>;
        case 3: return tile<3, Vecs>;
        case 4: return tile<4, Vecs>;
        case 5: return tile<5, Vecs>;
#if SAMRT_ROWS > 6
        case 6: return tile<6, Vecs>;
        case 7: return tile<7, Vecs>;
        case 8: return tile<8, Vecs>;
        case 9: return tile<9, Vecs>;
        case 10: return tile<10, Vecs>;
        case 11: return tile<11, Vecs>;
#endif
        default: return tile<kRows, Vecs>;
    }
}

void multiply_packed(const float* a, std::ptrdiff_t stride, int rows, const float* packed, int k,
                     int n, float* c, std::ptrdiff_t c_stride, const Epilogue& then) {
    for (int column = 0; column < n; column += kPanel) {
        const int columns = n - column < kPanel ? n - column : kPanel;
        for (int row = 0; row < rows; row += kRows) {
            const int count = rows - row < kRows ? rows - row : kRows;
            const Tile run = columns > kLanes ? tile_of<2>(count) : tile_of<1>(count);
            Epilogue here = then;
            if (then.residual) here.residual += row * then.residual_stride;
            run(a + row * stride, stride, packed, k, c + row * c_stride + column, c_stride,
                columns, column, here);
        }
        packed += static_cast<std::ptrdiff_t>(k) * kPanel;
    }
}

void pack8_panels(const std::int8_t* const* rows, int k, int n, std::int8_t* packed) {
    for (int from = 0; from < n; from += kPanel)
        for (int i = 0; i < k; i += 4)
            for (int j = 0; j < kPanel; ++j)
                for (int part = 0; part < 4; ++part)
                    *packed++ = from + j < n && i + part < k ? rows[i + part][from + j]
                                                             : std::int8_t{0};
}

template <int Rows, int Vecs>
void tile8(const std::uint8_t* a, std::ptrdiff_t stride, const std::int8_t* packed, int k,
           const float* row_scale, const float* scale, const std::int32_t* sums, float* c,
           std::ptrdiff_t c_stride, int columns, int column, const Epilogue& then) {
    IntVec total[Rows][Vecs];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < Vecs; ++v) total[r][v] = IntVec{};
    constexpr int kGroups = (Rows + 2) / 3;
    const std::uint8_t* base[kGroups];
    for (int g = 0; g < kGroups; ++g) base[g] = a + 3 * g * stride;
    for (int i = 0; i < k; i += 4, packed += 4 * kPanel) {
        IntVec b[Vecs];
#pragma GCC unroll 4
        for (int v = 0; v < Vecs; ++v)
            std::memcpy(&b[v], packed + 4 * v * kLanes, sizeof b[v]);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
            std::int32_t four;
            std::memcpy(&four, base[r / 3] + (r % 3) * stride, 4);
            const IntVec value = IntVec{} + four;
#pragma GCC unroll 4
            for (int v = 0; v < Vecs; ++v) total[r][v] = dot4(total[r][v], value, b[v]);
        }
#pragma GCC unroll 16
        for (int g = 0; g < kGroups; ++g) base[g] += 4;
    }
    Vec sum[Rows][Vecs];
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v) {
        const int left = columns - v * kLanes;
        const auto* offsets = reinterpret_cast<const float*>(sums + column + v * kLanes);
        const float* factors = scale + column + v * kLanes;
        Vec offset{}, factor{};  // the offset's bits are those of integers
        if (left >= kLanes) {
            offset = load(offsets);
            factor = load(factors);
        } else if (left > 0) {
            offset = load_part(offsets, at(left));
            factor = load_part(factors, at(left));
        }
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r)
            sum[r][v] = __builtin_convertvector(total[r][v] - reinterpret_cast<IntVec>(offset), Vec) *
                        (factor * row_scale[r]);
    }
    finish<Rows, Vecs>(sum, c, c_stride, columns, column, then);
}

using Tile8 = void (*)(const std::uint8_t*, std::ptrdiff_t, const std::int8_t*, int, const float*,
                       const float*, const std::int32_t*, float*, std::ptrdiff_t, int, int,
                       const Epilogue&);

// Few rows are rare: tiles of three, two and one rows do for what is left.
template <int Vecs>
Tile8 tile8_of(int rows, int* taken) {
    *taken = rows >= kRows ? kRows : rows >= 3 ? 3 : rows;
    return rows >= kRows ? tile8<kRows, Vecs>
           : rows >= 3   ? tile8<3, Vecs>
           : rows == 2   ? tile8<2, Vecs>
                         : tile8<1, Vecs>;
}

void multiply8_packed(const std::uint8_t* a, std::ptrdiff_t stride, int rows,
                      const std::int8_t* packed, int k, int n, const float* row_scale,
                      const float* scale, const std::int32_t* sums, float* c,
                      std::ptrdiff_t c_stride, const Epilogue& then) {
    const int k4 = (k + 3) / 4 * 4;
    for (int column = 0; column < n; column += kPanel) {
        const int columns = n - column < kPanel ? n - column : kPanel;
        for (int row = 0, taken = 0; row < rows; row += taken) {
            const Tile8 run = columns > kLanes ? tile8_of<2>(rows - row, &taken)
                                               : tile8_of<1>(rows - row, &taken);
            Epilogue here = then;
            if (then.residual) here.residual += row * then.residual_stride;
            run(a + row * stride, stride, packed, k4, row_scale + row, scale, sums,
                c + row * c_stride + column, c_stride, columns, column, here);
        }
        packed += static_cast<std::ptrdiff_t>(k4) * kPanel;
    }
}

}  // namespace
}  // namespace samrt::ops
