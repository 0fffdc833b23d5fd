// What the tiles of one part of the batch add to, and the slope of the switch.
#pragma once

#include "tile.h"

namespace {

// The derivative that stands in for that of the step.
template <class T> struct SlopeAt {
    int kind;
    T shape, inverse;

    explicit SlopeAt(const Problem& p)
        : kind(p.slope), shape(static_cast<T>(p.shape)), inverse(static_cast<T>(1 / p.shape)) {}
    SURNN_INLINE T operator()(T a) const {
        if (kind == surnn::kWindow) {
            const T up = 1 - (a < 0 ? -a : a) * inverse;
            return (up > 0 ? up : 0) * inverse;
        }
        if (kind == surnn::kIdentity) return 1;
        const T s = 1 / (1 + static_cast<T>(__builtin_exp(-shape * a)));
        return shape * s * (1 - s);
    }
};

template <class T> SURNN_INLINE void add(T* to, const T* from, int64_t n) {
    int64_t j = 0;
    for (; j + lanes<T> <= n; j += lanes<T>) store(to + j, load(to + j) + load(from + j));
    for (; j < n; ++j) to[j] += from[j];
}

// What the tiles of one part of the batch add to.
template <class T, class Cell> struct Gradients {
    T* packed = nullptr;
    T* vector[Cell::Q + 3] = {};
    T* logits = nullptr;

    void allocate(Scratch& scratch, const Problem& p, const Packed<T, Cell::G>& shape, bool first) {
        packed = scratch.get<T>(shape.size(), true);
        for (int q = 0; q < Cell::Q + Cell::PEEPHOLES; ++q)
            vector[q] = scratch.get<T>(p.features, true);
        logits = of<T>(p.dlogits);
        if (logits == nullptr || p.table == surnn::kPerExample) return;
        const size_t size = static_cast<size_t>(p.steps * p.features);
        if (first)
            std::memset(logits, 0, size * sizeof(T));
        else
            logits = scratch.get<T>(size, true);
    }
};

}  // namespace
