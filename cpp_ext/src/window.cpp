#include "window.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "samrt/parallel.hpp"

namespace samrt {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

// (x - low) / (high - low) clipped to [0, 1]; NaN gives 0.
double fraction(double x, double low, double high) {
    const double value = (x - low) / (high - low);
    const double positive = value > 0.0 ? value : 0.0;
    return positive < 1.0 ? positive : 1.0;
}

std::uint8_t to_byte(double x, double low, double high) {
    return static_cast<std::uint8_t>(static_cast<int>(fraction(x, low, high) * 255.0 + 0.5));
}

template <typename T>
void load_row(const WindowedImage& image, int y, float* target) {
    const T* row = static_cast<const T*>(image.data) + at(y) * at(image.width);
    const double low = image.low, high = image.high;
    for (int x = 0; x < image.width; ++x)
        target[x] = static_cast<float>(fraction(static_cast<double>(row[x]), low, high) * 255.0);
}

template <typename T>
void rows_to_bytes(const WindowedImage& image, int from, int to, std::uint8_t* target) {
    const std::size_t first = at(from) * at(image.width), end = at(to) * at(image.width);
    const T* source = static_cast<const T*>(image.data);
    for (std::size_t i = first; i < end; ++i)
        target[i] = to_byte(static_cast<double>(source[i]), image.low, image.high);
}

// 16-bit samples have 65536 values: for larger images a table is cheaper than the divisions.
template <typename T>
std::vector<std::uint8_t> byte_table(const WindowedImage& image) {
    std::vector<std::uint8_t> table(65536);
    for (int x = std::numeric_limits<T>::min(); x <= std::numeric_limits<T>::max(); ++x)
        table[static_cast<std::uint16_t>(x)] = to_byte(x, image.low, image.high);
    return table;
}

}  // namespace

void load_windowed(const WindowedImage& image, int y, float* target) {
    switch (image.sample) {
        case Sample::kUint16: return load_row<std::uint16_t>(image, y, target);
        case Sample::kInt16: return load_row<std::int16_t>(image, y, target);
        case Sample::kFloat32: return load_row<float>(image, y, target);
    }
}

void window_to_bytes(const WindowedImage& image, int threads, std::uint8_t* target) {
    constexpr int kRows = 64;
    const std::int64_t units = (image.height + kRows - 1) / kRows;
    std::vector<std::uint8_t> table;
    if (image.sample != Sample::kFloat32 && at(image.height) * at(image.width) > 65536)
        table = image.sample == Sample::kUint16 ? byte_table<std::uint16_t>(image)
                                                : byte_table<std::int16_t>(image);
    parallel_for(threads, units, [&](int, std::int64_t unit) {
        const int from = static_cast<int>(unit) * kRows, to = std::min(from + kRows, image.height);
        if (!table.empty()) {
            const std::uint16_t* source = static_cast<const std::uint16_t*>(image.data);
            const std::size_t end = at(to) * at(image.width);
            for (std::size_t i = at(from) * at(image.width); i < end; ++i)
                target[i] = table[source[i]];
            return;
        }
        switch (image.sample) {
            case Sample::kUint16: return rows_to_bytes<std::uint16_t>(image, from, to, target);
            case Sample::kInt16: return rows_to_bytes<std::int16_t>(image, from, to, target);
            case Sample::kFloat32: return rows_to_bytes<float>(image, from, to, target);
        }
    });
}

}  // namespace samrt
