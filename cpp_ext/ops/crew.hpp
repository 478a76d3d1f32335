// The threads of one session, made here so that they can be told where to run.
#pragma once

#include "ort_abi.hpp"

namespace samrt::ops {

// Lets the sessions that are opened with `options` make their threads here. Returns the number of
// the new crew, above 0, in `crew`; 0 on systems where threads are not placed.
ort::Status* hire(ort::SessionOptions* options, const ort::Api* api, int& crew);

// Sends the idle threads of a crew off the processor that the calling thread is on: to be called
// before every run, see placement.hpp. They may use all other processors that they were made with
// or that somebody gave them since. Unknown numbers and single processors are left alone.
void step_aside(int crew) noexcept;

// The crew is not asked for any more; its threads go on. A second call does nothing.
void dismiss(int crew) noexcept;

}  // namespace samrt::ops
