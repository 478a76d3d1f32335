// The operators' mathematics against plain loops in double precision; run under the sanitizers
// and, cross-compiled, under an emulator. Exit status 1 if anything is off.
#include "operators.hpp"

using namespace samrt::ops;
using namespace samrt::ops::tests;

namespace {

void linear_layers() {
    const int sizes[][3] = {{1, 1, 1}, {5, 3, 7}, {14, 33, 17}, {97, 64, 70}, {25, 100, 32}};
    for (const auto& [rows, k, n] : sizes) {
        const Floats x = noise(size(rows, k)), w = noise(size(k, n)), bias = noise(at(n));
        const Floats gamma = noise(at(k)), more = noise(size(rows, n));
        Floats y(size(rows, n));
        const Norm norm{gamma.data(), nullptr, 1e-3f};
        Epilogue then;
        then.bias = bias.data();
        then.gelu = true;
        then.residual = more.data();
        then.residual_stride = n;
        linear(x.data(), rows, Packed(w.data(), n, k, n), norm, then, y.data(), serial);
        std::vector<double> expected = product(normalized(x, rows, k, norm), w, rows, k, n);
        for (std::size_t i = 0; i < expected.size(); ++i)
            expected[i] = gelu(expected[i] + double(bias[i % at(n)])) + double(more[i]);
        compare("linear", y, expected, k == 1 ? 1e-4 : 2e-5);

        std::vector<std::int8_t> q(w.size());
        Floats scale(at(n)), back(w.size());
        for (float& s : scale) s = 0.01f + std::fabs(noise(1)[0]) / 50;
        for (std::size_t i = 0; i < w.size(); ++i) {
            q[i] = static_cast<std::int8_t>(
                std::clamp(std::lround(w[i] / scale[i % at(n)]), -127l, 127l));
            back[i] = static_cast<float>(q[i]) * scale[i % at(n)];
        }
        std::vector<double> rounded(x.size());
        for (int r = 0; r < rows; ++r) {
            float most = 0;
            for (int i = 0; i < k; ++i) most = std::max(most, std::fabs(x[size(r, k) + at(i)]));
            const double step = double(most / 127.0f);
            for (int i = 0; i < k; ++i)
                rounded[size(r, k) + at(i)] =
                    std::nearbyint(double(x[size(r, k) + at(i)]) / step) * step;
        }
        linear(x.data(), rows, Packed(q.data(), scale.data(), n, k, n), Norm(), Epilogue(),
               y.data(), serial);
        compare("linear of integers", y, product(rounded, back, rows, k, n), 0.02);
    }
}

void hidden_layers() {
    const int rows = 30, k = 20, hidden = 800;
    const Floats x = noise(size(rows, k)), gamma = noise(at(k)), beta = noise(at(k));
    const Floats w1 = noise(size(k, hidden), 0.3f), b1 = noise(at(hidden));
    const Floats w2 = noise(size(hidden, k), 0.05f), b2 = noise(at(k));
    const Norm norm{gamma.data(), beta.data(), 1e-6f};
    Floats y(x.size());
    mlp(x.data(), rows, norm, MlpWeights(w1.data(), w2.data(), k, hidden), b1.data(), b2.data(),
        y.data(), serial);
    std::vector<double> inside = product(normalized(x, rows, k, norm), w1, rows, k, hidden);
    for (std::size_t i = 0; i < inside.size(); ++i)
        inside[i] = gelu(inside[i] + double(b1[i % at(hidden)]));
    std::vector<double> expected = product(inside, w2, rows, hidden, k);
    for (std::size_t i = 0; i < expected.size(); ++i)
        expected[i] += double(b2[i % at(k)]) + double(x[i]);
    compare("mlp", y, expected, 1e-5);
}

std::vector<double> filtered(const std::vector<double>& x, int h, int w, int c, const Floats& weight,
                             const Floats& bias, int stride) {
    const int oh = (h - 1) / stride + 1, ow = (w - 1) / stride + 1;
    std::vector<double> y(size(oh, ow) * at(c));
    for (int r = 0; r < oh; ++r)
        for (int s = 0; s < ow; ++s)
            for (int i = 0; i < c; ++i) {
                double sum = double(bias[at(i)]);
                for (int t = 0; t < 9; ++t) {
                    const int yy = r * stride + t / 3 - 1, xx = s * stride + t % 3 - 1;
                    if (yy >= 0 && yy < h && xx >= 0 && xx < w)
                        sum += x[(size(yy, w) + at(xx)) * at(c) + at(i)] *
                               double(weight[size(t, c) + at(i)]);
                }
                y[(size(r, ow) + at(s)) * at(c) + at(i)] = sum;
            }
    return y;
}

void convolutions() {
    const int shapes[][2] = {{1, 1}, {3, 5}, {20, 13}, {34, 110}};
    for (const auto& [h, w] : shapes) {
        const int c = 18, mid = 37;
        const Floats x = noise(size(h, w) * at(c)), wd = noise(size(9, c)), bd = noise(at(c));
        Floats y(x.size());
        depthwise(x.data(), h, w, c, wd.data(), bd.data(), y.data(), serial);
        compare("depthwise", y, filtered(doubles(x), h, w, c, wd, bd, 1), 1e-5);
        for (int stride : {1, 2}) {
            const int n = stride == 1 ? c : 11;
            const Floats w1 = noise(size(c, mid), 0.2f), b1 = noise(at(mid));
            const Floats wm = noise(size(9, mid), 0.3f), bm = noise(at(mid));
            const Floats w3 = noise(size(mid, n), 0.2f), b3 = noise(at(n));
            const Packed first(w1.data(), mid, c, mid), last(w3.data(), n, mid, n);
            const MbConv layer{&first, &last, b1.data(), wm.data(), bm.data(), b3.data(),
                               stride, stride == 1};
            const int oh = (h - 1) / stride + 1, ow = (w - 1) / stride + 1;
            Floats z(size(oh, ow) * at(n));
            mbconv(x.data(), h, w, layer, z.data(), serial);
            std::vector<double> a = product(doubles(x), w1, h * w, c, mid);
            for (std::size_t i = 0; i < a.size(); ++i) a[i] = gelu(a[i] + double(b1[i % at(mid)]));
            a = filtered(a, h, w, mid, wm, bm, stride);
            for (double& value : a) value = gelu(value);
            std::vector<double> expected = product(a, w3, oh * ow, mid, n);
            for (std::size_t i = 0; i < expected.size(); ++i) {
                expected[i] += double(b3[i % at(n)]);
                if (stride == 1) expected[i] = gelu(expected[i] + double(x[i]));
            }
            compare("mbconv", z, expected, 1e-5);
        }
    }
}

// 3 x 3, stride 2, zero padding; x and the result channels last.
std::vector<double> halved(const std::vector<double>& x, int h, int w, int k, const Floats& weight,
                           const Floats& bias, int n) {
    const int oh = (h - 1) / 2 + 1, ow = (w - 1) / 2 + 1;
    std::vector<double> y(size(oh, ow) * at(n));
    for (int r = 0; r < oh; ++r)
        for (int s = 0; s < ow; ++s)
            for (int j = 0; j < n; ++j) {
                double sum = double(bias[at(j)]);
                for (int t = 0; t < 9; ++t) {
                    const int yy = 2 * r + t / 3 - 1, xx = 2 * s + t % 3 - 1;
                    if (yy < 0 || yy >= h || xx < 0 || xx >= w) continue;
                    for (int i = 0; i < k; ++i)
                        sum += x[(size(yy, w) + at(xx)) * at(k) + at(i)] *
                               double(weight[(size(t, k) + at(i)) * at(n) + at(j)]);
                }
                y[(size(r, ow) + at(s)) * at(n) + at(j)] = sum;
            }
    return y;
}

void stems() {
    const int shapes[][3] = {{1, 1, 3}, {5, 6, 3}, {7, 40, 2}, {70, 33, 3}};
    for (const auto& [h, w, channels] : shapes) {
        const int middle = 18, out = 35;
        const Floats image = noise(size(h, w) * at(channels));
        const Floats w1 = noise(size(9 * channels, middle), 0.3f), b1 = noise(at(middle));
        const Floats w2 = noise(size(9 * middle, out), 0.1f), b2 = noise(at(out));
        const int mh = (h + 1) / 2, mw = (w + 1) / 2;
        Floats y(size((mh + 1) / 2, (mw + 1) / 2) * at(out));
        stem(image.data(), h, w, StemWeights(w1.data(), w2.data(), channels, middle, out),
             b1.data(), b2.data(), y.data(), serial);
        std::vector<double> x(image.size());
        for (int c = 0; c < channels; ++c)
            for (std::size_t i = 0; i < size(h, w); ++i)
                x[i * at(channels) + at(c)] = double(image[at(c) * size(h, w) + i]);
        std::vector<double> inside = halved(x, h, w, channels, w1, b1, middle);
        for (double& value : inside) value = gelu(value);
        compare("stem", y, halved(inside, mh, mw, middle, w2, b2, out), 1e-5);
    }
}

void full_convolutions() {
    const int shapes[][4] = {{1, 2, 16, 8}, {4, 4, 3, 5}, {9, 6, 20, 33}, {30, 31, 17, 16}};
    for (const auto& [h, w, channels, out] : shapes) {
        const Floats x = noise(size(h, w) * at(channels));
        const Floats weight = noise(size(9 * channels, out));  // (out, channels, 3, 3)
        Floats y(size(h, w) * at(out));
        conv3x3(x.data(), h, w, Conv3x3Weights(weight.data(), out, channels), y.data(), serial);
        std::vector<double> expected(y.size());
        for (int r = 0; r < h; ++r)
            for (int s = 0; s < w; ++s)
                for (int n = 0; n < out; ++n)
                    for (int t = 0; t < 9; ++t) {
                        const int yy = r + t / 3 - 1, xx = s + t % 3 - 1;
                        if (yy < 0 || yy >= h || xx < 0 || xx >= w) continue;
                        for (int c = 0; c < channels; ++c)
                            expected[(size(r, w) + at(s)) * at(out) + at(n)] +=
                                double(x[(size(yy, w) + at(xx)) * at(channels) + at(c)]) *
                                double(weight[(size(n, channels) + at(c)) * 9 + at(t)]);
                    }
        compare("conv3x3", y, expected, 2e-5);
    }
}

void attentions() {
    const AttentionShape shapes[] = {
        {1, 3, 1, 1, 1, 1}, {2, 8, 5, 6, 3, 4}, {1, 16, 20, 20, 14, 14}, {2, 12, 30, 36, 30, 36}};
    for (const AttentionShape& s : shapes)
        for (int kind = 0; kind < 3; ++kind) {
            const int dim = s.heads * s.d, n = s.keys();
            const Floats qkv = noise(size(s.grid_h, s.grid_w) * size(3, dim), 1.5f);
            const Floats query = noise(at(dim));
            const Floats rows = noise(size(s.window_h, s.d) * at(s.window_h));
            const Floats columns = noise(size(s.window_w, s.d) * at(s.window_w));
            const Floats bias = noise(at(s.heads) * size(n, n));
            const AttentionInputs in{qkv.data(), kind == 1 ? query.data() : nullptr,
                                     kind == 2 ? rows.data() : nullptr,
                                     kind == 2 ? columns.data() : nullptr,
                                     kind == 1 ? bias.data() : nullptr};
            Floats y(size(s.grid_h, s.grid_w) * at(dim));
            attention(s, in, y.data(), serial);
            std::vector<double> expected(y.size());
            std::vector<double> score(at(n)), q(at(s.d));
            for (int r = 0; r < s.grid_h; ++r)
                for (int c = 0; c < s.grid_w; ++c)
                    for (int head = 0; head < s.heads; ++head) {
                        const auto part = [&](int row, int column, int which, int i) {
                            return row >= s.grid_h || column >= s.grid_w
                                       ? 0.0
                                       : double(qkv[(size(row, s.grid_w) + at(column)) * size(3, dim) +
                                                    size(which, dim) + size(head, s.d) + at(i)]);
                        };
                        const int u = r % s.window_h, v = c % s.window_w;
                        double top = -1e300, sum = 0;
                        for (int i = 0; i < s.d; ++i)
                            q[at(i)] = part(r, c, 0, i) +
                                       (kind == 1 ? double(query[size(head, s.d) + at(i)]) : 0.0);
                        for (int k = 0; k < n; ++k) {
                            const int j = k / s.window_w, w = k % s.window_w;
                            double value = kind == 1 ? double(bias[(size(head, n) +
                                                                    size(u, s.window_w) + at(v)) *
                                                                       at(n) + at(k)])
                                                     : 0.0;
                            for (int i = 0; i < s.d; ++i) {
                                value += q[at(i)] * part(r - u + j, c - v + w, 1, i);
                                if (kind == 2)
                                    value += q[at(i)] *
                                             (double(rows[(size(u, s.d) + at(i)) * at(s.window_h) +
                                                          at(j)]) +
                                              double(columns[(size(v, s.d) + at(i)) *
                                                                 at(s.window_w) + at(w)]));
                            }
                            score[at(k)] = value;
                            top = std::max(top, value);
                        }
                        for (double& value : score) sum += value = std::exp(value - top);
                        for (int k = 0; k < n; ++k)
                            for (int i = 0; i < s.d; ++i)
                                expected[(size(r, s.grid_w) + at(c)) * at(dim) + size(head, s.d) +
                                         at(i)] +=
                                    score[at(k)] / sum *
                                    part(r - u + k / s.window_w, c - v + k % s.window_w, 2, i);
                    }
            compare("attention", y, expected, 2e-5);
        }
}

}  // namespace

int main() {
    linear_layers();
    hidden_layers();
    convolutions();
    stems();
    full_convolutions();
    attentions();
    decoder_layers();
    fine_operators();
    test_placement();
    std::printf("operators, %s: %d checks, %d failed\n", kernels().name, checks, failures);
    return failures == 0 ? 0 : 1;
}
