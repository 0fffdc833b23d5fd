// Products of small dense matrices that lie in the cache.
#pragma once

#include "vec.h"

namespace {

// Whole vectors: the elements a row of `n` takes in working memory.
template <class T> SURNN_INLINE int64_t whole(int64_t n) { return padded(n, lanes<T>); }

// c[r][j] += sum over k of a(r, k) * b[k][j] for R rows and J vectors, where a(r, k) is at
// a[r * down + k * along].
template <class T, int R, int J>
SURNN_INLINE void patch(const T* a, int64_t down, int64_t along, const T* b, int64_t bwidth, T* c,
                        int64_t cwidth, int64_t count) {
    Vec<T> sum[R][J];
    SURNN_UNROLL
    for (int r = 0; r < R; ++r)
        SURNN_UNROLL
        for (int j = 0; j < J; ++j) sum[r][j] = load(c + r * cwidth + j * lanes<T>);
    for (int64_t k = 0; k < count; ++k) {
        Vec<T> v[J];
        SURNN_UNROLL
        for (int j = 0; j < J; ++j) v[j] = load(b + k * bwidth + j * lanes<T>);
        SURNN_UNROLL
        for (int r = 0; r < R; ++r) {
            const Vec<T> s = fill(a[r * down + k * along]);
            SURNN_UNROLL
            for (int j = 0; j < J; ++j) sum[r][j] += s * v[j];
        }
    }
    SURNN_UNROLL
    for (int r = 0; r < R; ++r)
        SURNN_UNROLL
        for (int j = 0; j < J; ++j) store(c + r * cwidth + j * lanes<T>, sum[r][j]);
}

// The same for any number of rows, J vectors wide: what is read of b stays in the cache.
template <class T, int J>
SURNN_APART void panel(const T* a, int64_t down, int64_t along, const T* b, int64_t bwidth, T* c,
                       int64_t cwidth, int64_t rows, int64_t count) {
    int64_t r = 0;
    for (; r + 6 <= rows; r += 6)
        patch<T, 6, J>(a + r * down, down, along, b, bwidth, c + r * cwidth, cwidth, count);
    for (; r + 2 <= rows; r += 2)
        patch<T, 2, J>(a + r * down, down, along, b, bwidth, c + r * cwidth, cwidth, count);
    if (r < rows) patch<T, 1, J>(a + r * down, down, along, b, bwidth, c + r * cwidth, cwidth, count);
}

// c += a b, for matrices of `rows` x `count` and `count` x `width`, all whole vectors wide.
template <class T>
void multiply(const T* a, int64_t down, int64_t along, const T* b, T* c, int64_t rows,
              int64_t count, int64_t width) {
    constexpr int J = SURNN_REGISTERS >= 20 ? 4 : 2;
    int64_t j = 0;
    for (; j + J * lanes<T> <= width; j += J * lanes<T>)
        panel<T, J>(a, down, along, b + j, width, c + j, width, rows, count);
    for (; j < width; j += lanes<T>)
        panel<T, 1>(a, down, along, b + j, width, c + j, width, rows, count);
}

}  // namespace
