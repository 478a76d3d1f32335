#pragma once

#include <cstddef>
#include <memory>

namespace samrt {

// Memory that is neither filled when it is made nor kept when it grows: what a vector would
// spend on zeros, and on pages that are never used, shows in calls of a tenth of a millisecond.
template <typename T>
class Buffer {
public:
    // At least n elements from now on, with any content.
    void need(std::size_t n) {
        if (n <= size_) return;
        data_.reset(new T[n]);
        size_ = n;
    }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    T& operator[](std::size_t i) { return data_[i]; }
    const T& operator[](std::size_t i) const { return data_[i]; }

private:
    std::unique_ptr<T[]> data_;
    std::size_t size_ = 0;
};

}  // namespace samrt
