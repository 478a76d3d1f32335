// What the tests of the operators share: noise, plain loops in double precision, comparison.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "../ops/decoder_layers.hpp"

namespace samrt::ops::tests {

inline int failures = 0, checks = 0;
inline std::mt19937 source(1);
using Floats = std::vector<float>;

inline std::size_t at(int i) { return static_cast<std::size_t>(i); }

inline Floats noise(std::size_t n, float scale = 1.0f) {
    std::normal_distribution<float> draw(0.0f, scale);
    Floats out(n);
    for (float& value : out) value = draw(source);
    return out;
}

inline const Parallel serial = [](std::size_t units, const std::function<void(std::size_t)>& body) {
    for (std::size_t i = units; i-- > 0;) body(i);  // the order is nobody's business
};

inline void compare(const char* what, const Floats& got, const std::vector<double>& expected,
             double tolerance) {
    double scale = 0, off = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        scale = std::max(scale, std::fabs(expected[i]));
        const double d = std::fabs(static_cast<double>(got[i]) - expected[i]);
        off = d > off || d != d ? d : off;
    }
    ++checks;
    if (!(got.size() == expected.size() && off <= tolerance * scale)) {
        ++failures;
        std::printf("%s: off by %.3g of %.3g\n", what, off, scale);
    }
}

inline double gelu(double x) { return x * 0.5 * (1 + std::erf(x / std::sqrt(2.0))); }

inline std::vector<double> product(const std::vector<double>& a, const Floats& b, int rows, int k, int n) {
    std::vector<double> c(size(rows, n), 0.0);
    for (int r = 0; r < rows; ++r)
        for (int i = 0; i < k; ++i)
            for (int j = 0; j < n; ++j)
                c[size(r, n) + at(j)] += a[size(r, k) + at(i)] * double(b[size(i, n) + at(j)]);
    return c;
}

inline std::vector<double> doubles(const Floats& x) { return {x.begin(), x.end()}; }

inline std::vector<double> normalized(const Floats& x, int rows, int n, const Norm& norm) {
    std::vector<double> out(x.size());
    for (int r = 0; r < rows; ++r) {
        double mean = 0, square = 0;
        for (int i = 0; i < n; ++i) mean += double(x[size(r, n) + at(i)]) / n;
        for (int i = 0; i < n; ++i) square += std::pow(double(x[size(r, n) + at(i)]) - mean, 2) / n;
        for (int i = 0; i < n; ++i)
            out[size(r, n) + at(i)] = (double(x[size(r, n) + at(i)]) - mean) /
                                          std::sqrt(square + double(norm.epsilon)) *
                                          double(norm.gamma[i]) +
                                      (norm.beta ? double(norm.beta[i]) : 0.0);
    }
    return out;
}

void decoder_layers();
void fine_operators();    // test_fine_operators.cpp
void test_placement();  // test_placement.cpp

}  // namespace samrt::ops::tests
