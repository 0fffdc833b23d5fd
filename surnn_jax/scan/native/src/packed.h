// Weights packed by neuron: packed[i][block][gate][lane], where blocks of `lanes` inputs run over
// the H recurrent ones and then over the D of the input frame, both padded with zeros. The rows of
// a neuron are one contiguous stream, and the gradient has the same layout.
#pragma once

#include "kernel.h"
#include "vec.h"

namespace {

using surnn::Pool;
using surnn::Problem;

template <class T, int G> struct Packed {
    int64_t features, inputs, hblocks, xblocks, stride;
    Packed(int64_t h, int64_t d)
        : features(h),
          inputs(d),
          hblocks(padded(h, lanes<T>) / lanes<T>),
          xblocks(padded(d, lanes<T>) / lanes<T>),
          stride((hblocks + xblocks) * G * lanes<T>) {}
    int64_t blocks() const { return hblocks + xblocks; }
    int64_t hwidth() const { return hblocks * lanes<T>; }
    int64_t xwidth() const { return xblocks * lanes<T>; }
    int64_t width() const { return hwidth() + xwidth(); }
    int64_t size() const { return features * stride; }

    // Calls f(packed index, matrix, gate, row, column) for the elements of one block.
    template <class F> void each(int64_t block, F f) const {
        const bool recurrent = block < hblocks;
        const int64_t first = (recurrent ? block : block - hblocks) * lanes<T>;
        const int64_t count = smaller(lanes<T>, (recurrent ? features : inputs) - first);
        SURNN_UNROLL
        for (int g = 0; g < G; ++g)
            for (int64_t i = 0; i < features; ++i)
                f(i * stride + (block * G + g) * lanes<T>, recurrent, g, first, count, i);
    }
    void pack(const Problem& p, int64_t block, T* to) const {
        each(block, [&](int64_t at, bool recurrent, int g, int64_t first, int64_t count, int64_t i) {
            const T* from = static_cast<const T*>(recurrent ? p.recurrent[g] : p.input[g]);
            from += first * features + i;
            for (int64_t l = 0; l < count; ++l) to[at + l] = from[l * features];
            for (int64_t l = count; l < lanes<T>; ++l) to[at + l] = 0;
        });
    }
    void unpack(const Problem& p, int64_t block, T* const* parts, int many) const {
        each(block, [&](int64_t at, bool recurrent, int g, int64_t first, int64_t count, int64_t i) {
            T* to = static_cast<T*>(recurrent ? p.drecurrent[g] : p.dinput[g]);
            to += first * features + i;
            Vec<T> sum = load(parts[0] + at);
            for (int k = 1; k < many; ++k) sum += load(parts[k] + at);
            for (int64_t l = 0; l < count; ++l) to[l * features] = sum[l];
        });
    }
};

}  // namespace
