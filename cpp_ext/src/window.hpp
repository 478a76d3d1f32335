#pragma once

#include "samrt/preprocess.hpp"

namespace samrt {

// Row y of the image as floats in [0, 255].
void load_windowed(const WindowedImage& image, int y, float* target);

}  // namespace samrt
