// The mask decoder's operators against plain loops in double precision.
#include "operators.hpp"

namespace samrt::ops::tests {
namespace {

using Doubles = std::vector<double>;

// e^(x - max) / sum of n numbers, `step` apart.
void soften(double* x, int n, std::size_t step) {
    double top = x[0], sum = 0;
    for (int i = 1; i < n; ++i) top = std::max(top, x[at(i) * step]);
    for (int i = 0; i < n; ++i) sum += x[at(i) * step] = std::exp(x[at(i) * step] - top);
    for (int i = 0; i < n; ++i) x[at(i) * step] /= sum;
}

// a (rows, k) times b (n, k) transposed.
Doubles against(const Doubles& a, const Doubles& b, int rows, int k, int n) {
    Doubles c(size(rows, n), 0.0);
    for (int r = 0; r < rows; ++r)
        for (int j = 0; j < n; ++j)
            for (int i = 0; i < k; ++i)
                c[size(r, n) + at(j)] += a[size(r, k) + at(i)] * b[size(j, k) + at(i)];
    return c;
}

Floats floats(const Doubles& x) { return {x.begin(), x.end()}; }

Floats slice(const Floats& x, std::size_t part, std::size_t count) {
    const auto start = x.begin() + static_cast<std::ptrdiff_t>(part * count);
    return {start, start + static_cast<std::ptrdiff_t>(count)};
}

struct MaskNoise {
    int count;
    Floats given, rows, wide, weight;

    MaskNoise(int prompts, int count_, int keys, int positions, int weights)
        : count(count_), given(at(prompts), 0.0f), rows(noise(size(prompts, count_) * at(positions))),
          wide(noise(size(prompts, keys) * at(count_), 0.3f)),
          weight(noise(size(count_, weights))) {
        given.back() = 1.0f;
    }
    MaskRows layer() const {
        return {count, given.data(), rows.data(), wide.data(), weight.data()};
    }
};

void reading() {
    const int prompts = 2, heads = 3, tokens = 5, d = 6, positions = 300, m = 4;
    const Floats queries = noise(size(prompts, heads) * size(tokens, d), 2.0f);
    const Floats keys = noise(size(heads, d) * at(positions));
    const Floats values = noise(size(heads, positions) * at(d));
    const MaskNoise mask(prompts, m, heads * tokens, positions, heads * d);
    const ReadImage layer{heads, tokens, d, positions, keys.data(), values.data(), mask.layer()};
    Floats y(queries.size());
    read_image(queries.data(), prompts, layer, y.data(), serial);
    Doubles expected(y.size(), 0.0);
    for (int n = 0; n < prompts; ++n)
        for (int h = 0; h < heads; ++h)
            for (int t = 0; t < tokens; ++t) {
                const std::size_t row = size(n, heads * tokens) + size(h, tokens) + at(t);
                const bool masked = n == prompts - 1;
                Doubles score(at(positions), 0.0);
                for (int p = 0; p < positions; ++p) {
                    for (int i = 0; i < d; ++i)
                        score[at(p)] += double(queries[row * at(d) + at(i)]) *
                                        double(keys[size(h, d * positions) + size(i, positions) +
                                                    at(p)]);
                    for (int r = 0; masked && r < m; ++r)
                        score[at(p)] += double(mask.wide[row * at(m) + at(r)]) *
                                        double(mask.rows[size(n, m * positions) +
                                                         size(r, positions) + at(p)]);
                }
                soften(score.data(), positions, 1);
                for (int p = 0; p < positions; ++p)
                    for (int i = 0; i < d; ++i) {
                        double value = double(values[size(h, positions * d) + size(p, d) + at(i)]);
                        for (int r = 0; masked && r < m; ++r)
                            value += double(mask.rows[size(n, m * positions) + size(r, positions) +
                                                      at(p)]) *
                                     double(mask.weight[size(h, m * d) + size(r, d) + at(i)]);
                        expected[row * at(d) + at(i)] += score[at(p)] * value;
                    }
            }
    compare("read image", y, expected, 2e-5);
}

// With `side` the first block's form: channels first, queries at hand, a mask for the last prompt.
void passing(bool side) {
    const int prompts = 2, heads = 2, tokens = 3, soft = heads * tokens, reads = 7, d = 5;
    const int positions = 250, c = 24, m = 4, width = side ? d : c;
    const Floats image = noise(size(side ? 1 : prompts, positions) * at(c));
    const Floats codes = noise(size(positions, c)), at_hand = noise(size(heads * d, positions));
    const Floats keys = noise(size(prompts, soft) * at(width), 0.5f);
    const Floats offset = noise(size(prompts, soft)), gamma = noise(at(c)), beta = noise(at(c));
    const Floats values = noise(size(prompts, soft) * at(c));
    const Floats queries = noise(size(prompts, reads) * at(c), 0.5f);
    const MaskNoise mask(prompts, m, soft, positions, c);
    const Norm norm{gamma.data(), beta.data(), 1e-5f};
    const ImagePass layer{heads, tokens, reads, positions, c, side, norm, codes.data(),
                          side ? at_hand.data() : nullptr, width, side ? mask.layer() : MaskRows()};
    Floats y(size(prompts, positions) * at(c)), seen(size(prompts, reads) * at(c));
    image_pass({image.data(), side, keys.data(), side ? nullptr : offset.data(), values.data(),
                queries.data()},
               prompts, layer, y.data(), seen.data(), serial);
    Doubles all_y, all_seen;
    for (int n = 0; n < prompts; ++n) {
        Floats old = slice(image, side ? 0 : at(n), size(positions, c));
        if (side)
            for (int p = 0; p < positions; ++p)
                for (int i = 0; i < c; ++i) old[size(p, c) + at(i)] = image[size(i, positions) + at(p)];
        Doubles coded = doubles(old), key = doubles(slice(keys, at(n), size(soft, width)));
        for (std::size_t i = 0; i < coded.size(); ++i) coded[i] += double(codes[i]);
        Doubles scores(size(soft, positions), 0.0);
        if (!side) scores = against(key, coded, soft, c, positions);
        for (int r = 0; r < soft; ++r)
            for (int p = 0; p < positions; ++p) {
                double& score = scores[size(r, positions) + at(p)];
                if (!side) score += double(offset[size(n, soft) + at(r)]);
                for (int i = 0; side && i < d; ++i)
                    score += key[size(r, d) + at(i)] *
                             double(at_hand[size(r / tokens * d + i, positions) + at(p)]);
                for (int k = 0; side && n == 1 && k < m; ++k)
                    score += double(mask.wide[size(n, soft * m) + size(r, m) + at(k)]) *
                             double(mask.rows[size(n, m * positions) + size(k, positions) + at(p)]);
            }
        for (int h = 0; h < heads; ++h)
            for (int p = 0; p < positions; ++p)
                soften(&scores[size(h * tokens, positions) + at(p)], tokens, at(positions));
        Doubles sum = doubles(old);
        for (int p = 0; p < positions; ++p)
            for (int i = 0; i < c; ++i) {
                for (int r = 0; r < soft; ++r)
                    sum[size(p, c) + at(i)] +=
                        scores[size(r, positions) + at(p)] *
                        double(values[size(n, soft * c) + size(r, c) + at(i)]);
                for (int k = 0; side && n == 1 && k < m; ++k)
                    sum[size(p, c) + at(i)] +=
                        double(mask.rows[size(n, m * positions) + size(k, positions) + at(p)]) *
                        double(mask.weight[size(k, c) + at(i)]);
            }
        const Doubles own = normalized(floats(sum), positions, c, norm);
        coded = own;
        for (std::size_t i = 0; i < coded.size(); ++i) coded[i] += double(codes[i]);
        Doubles look = against(doubles(slice(queries, at(n), size(reads, c))), coded, reads, c,
                               positions);
        for (int r = 0; r < reads; ++r) soften(&look[size(r, positions)], positions, 1);
        const Doubles found = product(look, floats(own), reads, positions, c);
        all_y.insert(all_y.end(), own.begin(), own.end());
        all_seen.insert(all_seen.end(), found.begin(), found.end());
    }
    compare(side ? "first image pass" : "later image pass", y, all_y, 2e-5);
    compare(side ? "first pass, seen" : "later pass, seen", seen, all_seen, 3e-5);
}

// gelu(norm(2 x 2 patches of x w + bias)); x (height, width, c).
Doubles downscaled(const Doubles& x, int height, int width, int c, const Floats& w,
                   const Floats& bias, const Norm& norm, int n) {
    Doubles patches(x.size());
    for (int r = 0; r < height; ++r)
        for (int s = 0; s < width; ++s)
            for (int i = 0; i < c; ++i)
                patches[(size(r / 2, width / 2) + at(s / 2)) * size(4, c) + size(r % 2 * 2 + s % 2, c) +
                        at(i)] = x[(size(r, width) + at(s)) * at(c) + at(i)];
    const int rows = height * width / 4;
    Doubles y = product(patches, w, rows, 4 * c, n);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += double(bias[i % at(n)]);
    y = normalized(floats(y), rows, n, norm);
    for (double& value : y) value = gelu(value);
    return y;
}

void mask_prompts() {
    const int prompts = 2, height = 3, width = 5, middle = 4, channels = 9;
    const Floats masks = noise(size(prompts, 16 * height * width));
    const Floats w1 = noise(size(4, middle)), w2 = noise(size(4 * middle, channels));
    const Floats b1 = noise(at(middle)), b2 = noise(at(channels));
    const Floats gamma1 = noise(at(middle)), gamma2 = noise(at(channels));
    const Packed first(w1.data(), middle, 4, middle);
    const Packed second(w2.data(), channels, 4 * middle, channels);
    const MaskDownscaling layer{&first, &second, b1.data(), b2.data(),
                                Norm{gamma1.data(), nullptr, 1e-6f},
                                Norm{gamma2.data(), nullptr, 1e-6f}, height, width};
    const Floats given = {0.0f, 1.0f};
    Floats rows(size(prompts, (channels + 1) * height * width), 7.0f);
    mask_rows(masks.data(), given.data(), prompts, layer, rows.data(), serial);
    Doubles expected(rows.size(), 0.0);
    const Doubles half = downscaled(doubles(slice(masks, 1, size(16, height * width))), 4 * height,
                                    4 * width, 1, w1, b1, layer.norm1, middle);
    const Doubles y = downscaled(half, 2 * height, 2 * width, middle, w2, b2, layer.norm2, channels);
    const int places = height * width;
    for (int p = 0; p < places; ++p)
        for (int j = 0; j <= channels; ++j)
            expected[size(channels + 1 + j, places) + at(p)] =
                j == channels ? 1.0 : y[size(p, channels) + at(j)];
    compare("mask rows", rows, expected, 5e-5);
}

void upscaling() {
    const int height = 3, width = 50, c = 12, middle = 6, fine = 5, masks = 2, places = height * width;
    const Floats x = noise(size(places, c)), hyper = noise(size(masks, fine));
    const Floats w1 = noise(size(c, 4 * middle)), b1 = noise(at(4 * middle));
    const Floats w2 = noise(size(middle, 4 * fine)), b2 = noise(at(4 * fine));
    const Floats gamma = noise(at(middle)), beta = noise(at(middle));
    const Packed first(w1.data(), 4 * middle, c, 4 * middle);
    const Packed second(w2.data(), 4 * fine, middle, 4 * fine);
    const UpscaleMasks layer{&first, &second, b1.data(), b2.data(),
                             Norm{gamma.data(), beta.data(), 1e-6f}, height, width, masks};
    Floats y(size(masks, 16 * places));
    upscale_masks(x.data(), hyper.data(), 1, layer, y.data(), serial);
    Doubles coarse = product(doubles(x), w1, places, c, 4 * middle);
    for (std::size_t i = 0; i < coarse.size(); ++i) coarse[i] += double(b1[i % at(4 * middle)]);
    coarse = normalized(floats(coarse), 4 * places, middle, layer.norm);
    for (double& value : coarse) value = gelu(value);
    Doubles last = product(coarse, w2, 4 * places, middle, 4 * fine);
    for (std::size_t i = 0; i < last.size(); ++i) last[i] = gelu(last[i] + double(b2[i % at(4 * fine)]));
    const Doubles logits = against(last, doubles(hyper), 16 * places, fine, masks);
    Doubles expected(y.size());
    for (int p = 0; p < places; ++p)
        for (int k = 0; k < 16; ++k)
            for (int n = 0; n < masks; ++n) {
                const int row = p / width * 4 + k / 8 * 2 + k / 2 % 2;
                const int column = p % width * 4 + k / 4 % 2 * 2 + k % 2;
                expected[size(n, 16 * places) + size(row, 4 * width) + at(column)] =
                    logits[size(16 * p + k, masks) + at(n)];
            }
    compare("masks", y, expected, 3e-5);
}

}  // namespace

void decoder_layers() {
    reading();
    passing(true);
    passing(false);
    mask_prompts();
    upscaling();
}

}  // namespace samrt::ops::tests
