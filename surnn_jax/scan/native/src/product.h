// The three products of a step, over open neurons only.
//
// Weights are packed by neuron: packed[i][block][gate][lane], where blocks of `lanes` inputs run
// over the H recurrent ones and then over the D of the input frame, both padded with zeros. The
// rows of a neuron are one contiguous stream, and the gradient has the same layout.
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

// State of a tile of W rows: state[j / P][row][j % P] with P = lanes / W (1 if W is wider), so
// that a vector holds P inputs of every row and no lane is idle, whatever W is.
template <class T, int W> struct Layout {
    static constexpr int P = W >= lanes<T> ? 1 : lanes<T> / W;
    static constexpr int V = W >= lanes<T> ? W / lanes<T> : 1;
    static SURNN_INLINE int64_t at(int64_t j, int b) { return (j / P) * (P * W) + b * P + j % P; }
    static void set_row(T* state, int b, const T* from, int64_t n) {
        int64_t j = 0;
        for (; j + P <= n; j += P) std::memcpy(state + at(j, b), from + j, P * sizeof(T));
        for (; j < n; ++j) state[at(j, b)] = from[j];
    }
};

// Sums P neighbouring lanes of M vectors; the M * lanes / P sums end up, in order, in the first.
template <class T, int M, int P> SURNN_INLINE void fold(Vec<T>* all) {
    if constexpr (P > 1) {
        SURNN_UNROLL
        for (int r = 0; r < M / 2; ++r) all[r] = pairs<T>(all[2 * r], all[2 * r + 1]);
        fold<T, M / 2, P / 2>(all);
    }
}

// pre[q][slot][row] = sum over inputs, for N neurons at once. With SPLIT the last gate keeps its
// recurrent sum apart, as row q = G.
template <class T, int W, int G, bool SPLIT, int N>
SURNN_APART void product_block(const Packed<T, G>& shape, const T* packed, const T* state, const int* list,
                   T* pre, int64_t plane) {
    using L = Layout<T, W>;
    constexpr int P = L::P, V = L::V, R = G * N, Q = SPLIT ? G + 1 : G;
    constexpr int U = R * V < 8 && lanes<T> / P > 1 ? 2 : 1;  // hides the latency of the sum
    Vec<T> sum[U][R][V] = {};
    Vec<T> apart[SPLIT ? N : 1][V] = {};
    const T* row[N];
    SURNN_UNROLL
    for (int n = 0; n < N; ++n) row[n] = packed + list[n] * shape.stride;
    int64_t block = 0;
    for (int part = 0; part < 2; ++part) {
        const int64_t end = part == 0 ? shape.hblocks : shape.blocks();
        for (; block < end; ++block) {
            SURNN_UNROLL_FEW
            for (int l = 0; l < lanes<T>; l += P * U) {
                SURNN_UNROLL
                for (int u = 0; u < U; ++u) {
                    Vec<T> h[V];
                    SURNN_UNROLL
                    for (int v = 0; v < V; ++v)
                        h[v] = load(state + (l + u * P) * W + v * lanes<T>);
                    SURNN_UNROLL
                    for (int g = 0; g < G; ++g)
                        SURNN_UNROLL
                        for (int n = 0; n < N; ++n) {
                            const Vec<T> w = repeat<T, P>(row[n] + g * lanes<T> + l + u * P);
                            SURNN_UNROLL
                            for (int v = 0; v < V; ++v) sum[u][g * N + n][v] += w * h[v];
                        }
                }
            }
            state += lanes<T> * W;
            SURNN_UNROLL
            for (int n = 0; n < N; ++n) row[n] += G * lanes<T>;
        }
        if (SPLIT && part == 0)
            SURNN_UNROLL
            for (int n = 0; n < N; ++n)
                SURNN_UNROLL
                for (int v = 0; v < V; ++v) {
                    apart[n][v] = sum[0][R - N + n][v];
                    sum[0][R - N + n][v] = Vec<T>{};
                    if (U == 2) {
                        apart[n][v] += sum[U - 1][R - N + n][v];
                        sum[U - 1][R - N + n][v] = Vec<T>{};
                    }
                }
    }
    if (U == 2)
        SURNN_UNROLL
        for (int r = 0; r < R; ++r)
            SURNN_UNROLL
            for (int v = 0; v < V; ++v) sum[0][r][v] += sum[U - 1][r][v];
    if constexpr (P == 1) {
        SURNN_UNROLL
        for (int r = 0; r < Q * N; ++r)
            SURNN_UNROLL
            for (int v = 0; v < V; ++v)
                store(pre + (r / N) * plane + (r % N) * W + v * lanes<T>,
                      r < R ? sum[0][r < R ? r : 0][v] : apart[SPLIT ? r % N : 0][v]);
    } else {
        constexpr int padded_rows = (Q * N + P - 1) / P * P;
        Vec<T> all[padded_rows] = {};
        SURNN_UNROLL
        for (int r = 0; r < R; ++r) all[r] = sum[0][r][0];
        if (SPLIT)
            SURNN_UNROLL
            for (int n = 0; n < N; ++n) all[R + n] = apart[SPLIT ? n : 0][0];
        fold<T, padded_rows, P>(all);
        T flat[padded_rows / P * lanes<T>];
        SURNN_UNROLL
        for (int r = 0; r < padded_rows / P; ++r) store(flat + r * lanes<T>, all[r]);
        SURNN_UNROLL
        for (int q = 0; q < Q; ++q) std::memcpy(pre + q * plane, flat + q * N * W, N * W * sizeof(T));
    }
}

template <class T, int W, int G, bool SPLIT>
void product(const Packed<T, G>& shape, const T* packed, const T* state, const int* list, int count,
             T* pre, int64_t plane) {
    constexpr int fit = SURNN_REGISTERS / (G * Layout<T, W>::V);
    constexpr int most = fit < 1 ? 1 : fit > 4 ? 4 : fit;
    int turns = (count + most - 1) / most;
    for (int at = 0; turns > 0; --turns) {
        const int n = (count - at + turns - 1) / turns;
        T* to = pre + at * W;
        if (n == 1) product_block<T, W, G, SPLIT, 1>(shape, packed, state, list + at, to, plane);
        if constexpr (most >= 2)
            if (n == 2) product_block<T, W, G, SPLIT, 2>(shape, packed, state, list + at, to, plane);
        if constexpr (most >= 3)
            if (n == 3) product_block<T, W, G, SPLIT, 3>(shape, packed, state, list + at, to, plane);
        if constexpr (most >= 4)
            if (n == 4) product_block<T, W, G, SPLIT, 4>(shape, packed, state, list + at, to, plane);
        at += n;
    }
}

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

// gradient[block][g] += sum over m of d[g][at[m]] * rows[m][block], for one neuron.
template <class T, int G, int NJ>
SURNN_INLINE void outer_block(T* gradient, const T* const* rows, int64_t offset, const int* at,
                              int count, const T* const* d) {
    Vec<T> sum[G][NJ];
    SURNN_UNROLL
    for (int g = 0; g < G; ++g)
        SURNN_UNROLL
        for (int j = 0; j < NJ; ++j) sum[g][j] = load(gradient + (j * G + g) * lanes<T>);
    for (int m = 0; m < count; ++m) {
        const T* row = rows[m] + offset;
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
SURNN_APART void outer(T* gradient, int64_t blocks, const T* const* rows, const int* at, int count,
           const T* const* d) {
    constexpr int NJ = SURNN_REGISTERS >= 20 ? (G == 1 ? 8 : 4) : (G == 1 ? 8 : 2);
    int64_t j = 0;
    for (; j + NJ <= blocks; j += NJ)
        outer_block<T, G, NJ>(gradient + j * G * lanes<T>, rows, j * lanes<T>, at, count, d);
    for (; j < blocks; ++j)
        outer_block<T, G, 1>(gradient + j * G * lanes<T>, rows, j * lanes<T>, at, count, d);
}

}  // namespace
