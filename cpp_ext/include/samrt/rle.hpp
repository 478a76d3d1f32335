// Run-length encoding of masks as COCO defines it: column by column, counts of alternately
// outside and inside samples, the first count outside (0 if the first sample is inside).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "samrt/masks.hpp"

namespace samrt {

std::vector<std::uint32_t> rle_encode(const std::uint8_t* mask, MaskShape shape);

// Throws std::invalid_argument unless the counts sum to the number of samples.
void rle_decode(const std::uint32_t* counts, std::size_t n, MaskShape shape,
                std::uint8_t* mask);

// The compressed form: from the fourth count on the difference to the count two before, each
// number in groups of five bits, lowest first, as characters from '0' on; bit 6 says that more
// groups follow.
std::string rle_to_string(const std::uint32_t* counts, std::size_t n);

// Throws std::invalid_argument for text that is no such form.
std::vector<std::uint32_t> rle_from_string(const std::string& text);

}  // namespace samrt
