// The products of the forward rule: of listed neurons with the states of a tile at one step, and of
// one neuron with the states of many steps.
#pragma once

#include "packed.h"

namespace {

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
SURNN_APART void product_block(const Packed<T, G>& shape, const T* packed, const T* state,
                               const int* list, const int* next, T* pre, int64_t plane) {
    using L = Layout<T, W>;
    constexpr int P = L::P, V = L::V, R = G * N, Q = SPLIT ? G + 1 : G;
    constexpr int U = R * V < 8 && lanes<T> / P > 1 ? 2 : 1;  // hides the latency of the sum
    Vec<T> sum[U][R][V] = {};
    Vec<T> apart[SPLIT ? N : 1][V] = {};
    const T* row[N];
    const T* later[N];
    SURNN_UNROLL
    for (int n = 0; n < N; ++n) {
        row[n] = packed + list[n] * shape.stride;
        later[n] = packed + next[n] * shape.stride;
    }
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
            for (int n = 0; n < N; ++n) {
                row[n] += G * lanes<T>;
                if constexpr (W == 1) {
                    // The rows of a few open neurons lie apart; nobody else foresees the next ones.
                    SURNN_UNROLL
                    for (int g = 0; g < G; ++g) __builtin_prefetch(later[n] + g * lanes<T>);
                    later[n] += G * lanes<T>;
                }
            }
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
    int at = 0;
    for (; at + most <= count; at += most)
        product_block<T, W, G, SPLIT, most>(shape, packed, state, list + at,
                                            list + (at + 2 * most <= count ? at + most : at),
                                            pre + at * W, plane);
    if constexpr (most > 2)
        for (; at + 2 <= count; at += 2)
            product_block<T, W, G, SPLIT, 2>(shape, packed, state, list + at, list + at,
                                             pre + at * W, plane);
    if constexpr (most > 1)
        for (; at < count; ++at)
            product_block<T, W, G, SPLIT, 1>(shape, packed, state, list + at, list + at,
                                             pre + at * W, plane);
}

// pre[q][m] = sum over inputs of one neuron, for M states and frames at once: the weights stay in
// the nearest cache. Row at[m] of `states` is a state with its frame.
template <class T, int G, bool SPLIT, int M>
SURNN_INLINE void dots_block(const Packed<T, G>& shape, const T* weights, const T* states,
                             const int* at, T* pre, int64_t plane) {
    constexpr int Q = SPLIT ? G + 1 : G, P = lanes<T>;
    constexpr int padded_rows = (Q * M + P - 1) / P * P;
    Vec<T> sum[G][M] = {};
    Vec<T> all[padded_rows] = {};
    const T* row[M];
    SURNN_UNROLL
    for (int m = 0; m < M; ++m) row[m] = states + at[m] * shape.width();
    int64_t j = 0;
    for (int part = 0; part < 2; ++part) {
        const int64_t end = part == 0 ? shape.hblocks : shape.blocks();
        for (; j < end; ++j) {
            Vec<T> v[M];
            SURNN_UNROLL
            for (int m = 0; m < M; ++m) v[m] = load(row[m] + j * lanes<T>);
            SURNN_UNROLL
            for (int g = 0; g < G; ++g) {
                const Vec<T> u = load(weights + g * lanes<T>);
                SURNN_UNROLL
                for (int m = 0; m < M; ++m) sum[g][m] += u * v[m];
            }
            weights += G * lanes<T>;
        }
        if (SPLIT && part == 0)
            SURNN_UNROLL
            for (int m = 0; m < M; ++m) {
                all[G * M + m] = sum[G - 1][m];
                sum[G - 1][m] = Vec<T>{};
            }
    }
    SURNN_UNROLL
    for (int g = 0; g < G; ++g)
        SURNN_UNROLL
        for (int m = 0; m < M; ++m) all[g * M + m] = sum[g][m];
    fold<T, padded_rows, P>(all);
    T flat[padded_rows];
    SURNN_UNROLL
    for (int r = 0; r < padded_rows / P; ++r) store(flat + r * P, all[r]);
    SURNN_UNROLL
    for (int q = 0; q < Q; ++q) std::memcpy(pre + q * plane, flat + q * M, M * sizeof(T));
}

// The same for any number of rows; planes are so long that M may be written at once.
template <class T, int G, bool SPLIT>
SURNN_APART void dots(const Packed<T, G>& shape, const T* weights, const T* states,
                      const int* at, int count, T* pre, int64_t plane) {
    constexpr int M = G == 1 ? 8 : 4;
    int m = 0;
    for (; m + M <= count; m += M)
        dots_block<T, G, SPLIT, M>(shape, weights, states, at + m, pre + m, plane);
    if (m == count) return;
    int last[M];
    for (int k = 0; k < M; ++k) last[k] = at[m + k < count ? m + k : m];
    dots_block<T, G, SPLIT, M>(shape, weights, states, last, pre + m, plane);
}

}  // namespace
