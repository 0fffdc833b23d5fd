// The products of the backward rule: cotangents into states and frames, and into the weights.
#pragma once

#include "packed.h"

namespace {

// to[b][block] += sum over slots and gates of d[q(g)][slot][b] * packed[list[slot]][block][g].
template <class T, int W, int G, int RB, int NJ>
SURNN_INLINE void spread_block(const T* packed, int64_t stride, const int* list, int count,
                               const T* const* d, T* to, int64_t width) {
    Vec<T> sum[RB][NJ];
    SURNN_UNROLL
    for (int b = 0; b < RB; ++b)
        SURNN_UNROLL
        for (int j = 0; j < NJ; ++j) sum[b][j] = load(to + b * width + j * lanes<T>);
    for (int s = 0; s < count; ++s) {
        const T* row = packed + list[s] * stride;
        SURNN_UNROLL
        for (int g = 0; g < G; ++g) {
            Vec<T> w[NJ];
            SURNN_UNROLL
            for (int j = 0; j < NJ; ++j) w[j] = load(row + (j * G + g) * lanes<T>);
            SURNN_UNROLL
            for (int b = 0; b < RB; ++b) {
                const Vec<T> c = fill(d[g][s * W + b]);
                SURNN_UNROLL
                for (int j = 0; j < NJ; ++j) sum[b][j] += c * w[j];
            }
        }
    }
    SURNN_UNROLL
    for (int b = 0; b < RB; ++b)
        SURNN_UNROLL
        for (int j = 0; j < NJ; ++j) store(to + b * width + j * lanes<T>, sum[b][j]);
}

template <class T, int W, int G>
SURNN_APART void spread(const T* packed, int64_t stride, int64_t blocks, const int* list, int count,
            const T* const* d, T* to, int64_t width) {
    constexpr int fit = SURNN_REGISTERS >= 20 ? 8 : 4;
    constexpr int RB = W < fit ? W : fit;
    constexpr int NJ = RB == 8 ? 2 : RB == 4 ? SURNN_REGISTERS >= 20 ? 4 : 2 : RB == 1 ? 8 : 4;
    if (count == 0) return;
    for (int b = 0; b < W; b += RB) {
        const T* shifted[G];
        SURNN_UNROLL
        for (int g = 0; g < G; ++g) shifted[g] = d[g] + b;
        T* at = to + b * width;
        int64_t j = 0;
        for (; j + NJ <= blocks; j += NJ)
            spread_block<T, W, G, RB, NJ>(packed + j * G * lanes<T>, stride, list, count, shifted,
                                          at + j * lanes<T>, width);
        for (; j < blocks; ++j)
            spread_block<T, W, G, RB, 1>(packed + j * G * lanes<T>, stride, list, count, shifted,
                                         at + j * lanes<T>, width);
    }
}

// gradient[block][g] += sum over m of d[g][at[m]] * row from[m][block], for one neuron; rows are
// `stride` apart.
template <class T, int G, int NJ>
SURNN_INLINE void outer_block(T* gradient, const T* rows, int64_t stride, const int* from,
                              const int* at, int count, const T* const* d) {
    Vec<T> sum[G][NJ];
    SURNN_UNROLL
    for (int g = 0; g < G; ++g)
        SURNN_UNROLL
        for (int j = 0; j < NJ; ++j) sum[g][j] = load(gradient + (j * G + g) * lanes<T>);
    for (int m = 0; m < count; ++m) {
        const T* row = rows + from[m] * stride;
        Vec<T> v[NJ];
        SURNN_UNROLL
        for (int j = 0; j < NJ; ++j) v[j] = load(row + j * lanes<T>);
        SURNN_UNROLL
        for (int g = 0; g < G; ++g) {
            const Vec<T> c = fill(d[g][at[m]]);
            SURNN_UNROLL
            for (int j = 0; j < NJ; ++j) sum[g][j] += c * v[j];
        }
    }
    SURNN_UNROLL
    for (int g = 0; g < G; ++g)
        SURNN_UNROLL
        for (int j = 0; j < NJ; ++j) store(gradient + (j * G + g) * lanes<T>, sum[g][j]);
}

template <class T, int G>
SURNN_APART void outer(T* gradient, int64_t blocks, const T* rows, int64_t stride, const int* from,
                       const int* at, int count, const T* const* d) {
    constexpr int NJ = SURNN_REGISTERS >= 20 ? (G == 1 ? 8 : 4) : (G == 1 ? 8 : 2);
    int64_t j = 0;
    for (; j + NJ <= blocks; j += NJ)
        outer_block<T, G, NJ>(gradient + j * G * lanes<T>, rows + j * lanes<T>, stride, from, at,
                              count, d);
    for (; j < blocks; ++j)
        outer_block<T, G, 1>(gradient + j * G * lanes<T>, rows + j * lanes<T>, stride, from, at,
                             count, d);
}

}  // namespace
