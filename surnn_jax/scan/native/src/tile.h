// What forward and backward share: tiles of the batch, open neurons, the rows before a step, and
// the candidates of the open entries of one step.
#pragma once

#include "cells.h"
#include "product.h"

namespace {

// The batch is cut into contiguous parts, one a thread, and those into tiles.
struct Partition {
    static constexpr int kMost = 256;
    int64_t batch;
    int parts;
    Partition(const Problem& p, const Pool& pool)
        : batch(p.batch),
          parts(static_cast<int>(larger(1, smaller(smaller(batch, kMost), pool.threads())))) {
        // A thread is worth waking for about a hundred thousand multiplications.
        if (p.steps * p.batch * p.features * (p.features + p.inputs) < 1 << 20) parts = 1;
    }
    int64_t first(int part) const { return batch * part / parts; }
};

// The widths of tiles: from as many rows as a vector has lanes down to single ones, by halves.
template <class T> constexpr int kWidest = lanes<T>;

// How many tiles go through time together: the rows of a step lie side by side in memory, those of
// one example far apart.
constexpr int64_t together(int width) { return width < 8 ? 8 / width : 1; }

template <class T> const T* of(const void* p) { return static_cast<const T*>(p); }
template <class T> T* of(void* p) { return static_cast<T*>(p); }

template <class T> T nan_of() { return static_cast<T>(__builtin_nan("")); }

// The neurons of a row of logits: open (NaN included), and closed but near.
template <class T> struct Opening {
    int *open, *near;
    int count, close;
    bool odd;  // some logit is NaN

    // `near` are those with low <= a <= 0, if wanted.
    void read(const T* a, int64_t features, bool want_near, T low) {
        count = close = 0;
        odd = false;
        for (int64_t first = 0; first < features; first += 64) {
            const int many = static_cast<int>(smaller(64, features - first));
            uint64_t up = 0, nearly = 0, broken = 0;
            int l = 0;
            for (; l + lanes<T> <= many; l += lanes<T>) {
                const Vec<T> v = load(a + first + l);
                up |= signs<T>(~(v <= 0)) << l;
                if (want_near) nearly |= signs<T>((v <= 0) & (v >= low)) << l;
                broken |= signs<T>(v != v);
            }
            for (; l < many; ++l) {
                const T v = a[first + l];
                up |= static_cast<uint64_t>(!(v <= 0)) << l;
                nearly |= static_cast<uint64_t>(want_near && v <= 0 && v >= low) << l;
                broken |= v != v;
            }
            count += numbers(up, static_cast<int>(first), open + count);
            close += numbers(nearly, static_cast<int>(first), near + close);
            odd |= broken != 0;
        }
    }
    void all(int64_t features) {
        for (int64_t i = 0; i < features; ++i) open[i] = static_cast<int>(i);
        count = static_cast<int>(features);
        close = 0;
        odd = false;
    }

  private:
    static int numbers(uint64_t bits, int first, int* to) {
        int n = 0;
        for (; bits != 0; bits &= bits - 1) to[n++] = first + __builtin_ctzll(bits);
        return n;
    }
};

template <class T> const T* logits_at(const Problem& p, int64_t t, int64_t row) {
    if (p.table == surnn::kShared) return of<T>(p.logits) + t * p.features;
    return of<T>(p.logits) + (t * p.batch + row) * p.features;
}

// The state of a row before step t.
template <class T> const T* before(const Problem& p, int carry, int64_t t, int64_t row) {
    const int64_t h = p.features;
    if (p.resets != nullptr && p.resets[t * p.batch + row]) return of<T>(p.fresh[carry]) + row * h;
    if (t == 0) return of<T>(p.start[carry]) + row * h;
    return of<T>(p.carries[carry]) + ((t - 1) * p.batch + row) * h;
}

SURNN_INLINE bool kept(const Problem& p, int64_t t, int64_t row) {
    return p.keep == nullptr || p.keep[t * p.batch + row];
}

// How many of `width` rows look at step t.
SURNN_INLINE int kept_rows(const Problem& p, int64_t t, int64_t row, int width) {
    int many = 0;
    for (int b = 0; b < width; ++b) many += kept(p, t, row + b);
    return many;
}

template <class T, class Cell> struct Weights {
    Packed<T, Cell::G> shape;
    const T* packed;
    const T* bias[Cell::Q];
    const T* peephole[3];

    Weights(const Problem& p, const T* packed_) : shape(p.features, p.inputs), packed(packed_) {
        for (int q = 0; q < Cell::Q; ++q) bias[q] = of<T>(p.vector[q]);
        for (int v = 0; v < 3; ++v)
            peephole[v] = Cell::PEEPHOLES ? of<T>(p.vector[Cell::Q + v]) : nullptr;
    }
};

// Arrays over the entries of a step, one plane a quantity.
template <class T, class Cell> struct Entries {
    int64_t plane = 0;
    T *pre = nullptr, *old = nullptr, *fresh = nullptr, *peep = nullptr;

    void allocate(Scratch& scratch, int64_t entries) {
        plane = padded(entries, lanes<T>);
        pre = scratch.get<T>(plane * Cell::Q, true);
        old = scratch.get<T>(plane * Cell::C, true);
        fresh = scratch.get<T>(plane * Cell::C, true);
        if (Cell::PEEPHOLES) peep = scratch.get<T>(plane * Cell::PEEPHOLES, true);
    }
};

template <class T, int W>
SURNN_INLINE void gather(const T* vector, const int* list, int count, T* to) {
    for (int s = 0; s < count; ++s)
        for (int b = 0; b < W; ++b) to[s * W + b] = vector[list[s]];
}

// Candidates of the listed neurons for the rows of a tile: e.fresh. `rows[b]` are the carries
// before.
template <class T, class Cell, int W>
SURNN_APART void candidates(const Weights<T, Cell>& w, const T* state, const T* const (*rows)[W],
                            const int* list, int count, Entries<T, Cell>& e) {
    constexpr int Q = Cell::Q, C = Cell::C;
    const int64_t plane = e.plane;
    product<T, W, Cell::G, Cell::SPLIT>(w.shape, w.packed, state, list, count, e.pre, plane);
    for (int q = 0; q < Q; ++q)
        for (int s = 0; s < count; ++s)
            for (int b = 0; b < W; ++b) e.pre[q * plane + s * W + b] += w.bias[q][list[s]];
    for (int s = 0; s < count; ++s)
        for (int b = 0; b < W; ++b) e.old[s * W + b] = state[Layout<T, W>::at(list[s], b)];
    for (int c = 1; c < C; ++c)
        for (int s = 0; s < count; ++s)
            for (int b = 0; b < W; ++b) e.old[c * plane + s * W + b] = rows[c][b][list[s]];
    for (int v = 0; v < Cell::PEEPHOLES; ++v)
        gather<T, W>(w.peephole[v], list, count, e.peep + v * plane);
    const int total = count * W;
    for (int n = 0; n < total; n += lanes<T>) {
        Group<T, Q> pre;
        Group<T, C> old;
        Group<T, 3> peep{};
        Group<T, Cell::VALUES> value;
        for (int q = 0; q < Q; ++q) pre[q] = load(e.pre + q * plane + n);
        for (int c = 0; c < C; ++c) old[c] = load(e.old + c * plane + n);
        for (int v = 0; v < Cell::PEEPHOLES; ++v) peep[v] = load(e.peep + v * plane + n);
        const Group<T, C> fresh = Cell::template forward<T>(pre, old, peep, value);
        for (int c = 0; c < C; ++c) store(e.fresh + c * plane + n, fresh[c]);
    }
}

// A width as a type, and the call f(Width<W>{}) for the one that is wanted.
template <int W> struct Width {
    static constexpr int value = W;
};
template <class T, int W = kWidest<T>, class F> void with_width(int width, F f) {
    if constexpr (W > 1) {
        if (width < W) return with_width<T, W / 2>(width, f);
    }
    f(Width<W>{});
}

// Calls f.run(width, first, many) so that `many` tiles of each width cover rows [first, last): the
// widest that fit, so that no lane is ever padding.
template <class T, class F> bool tiles(const Problem& p, int64_t first, int64_t last, F& f) {
    int width = p.table == surnn::kPerExample ? 1 : kWidest<T>;
    while (first < last) {
        const int64_t many = (last - first) / width;
        if (many > 0 && !f.run(width, first, many)) return false;
        first += many * width;
        width /= 2;
    }
    return true;
}

// Splits work(first, last) over [0, count) among the threads.
template <class F> void divide(Pool& pool, int64_t count, F& work) {
    struct Job {
        F* work;
        int64_t count;
        int parts;
    } job{&work, count, static_cast<int>(larger(1, smaller(count, pool.threads())))};
    pool.run(job.parts, [](void* data, int part) {
        const Job& j = *static_cast<Job*>(data);
        (*j.work)(j.count * part / j.parts, j.count * (part + 1) / j.parts);
    }, &job);
}

// The weights as they were packed before, or packed now by all threads.
template <class T, class Cell>
const T* packed_weights(const Problem& p, Pool& pool, Scratch& scratch) {
    if (p.packed != nullptr) return of<T>(p.packed);
    const Packed<T, Cell::G> shape(p.features, p.inputs);
    T* packed = scratch.get<T>(shape.size());
    if (scratch.failed) return nullptr;
    auto pack = [&](int64_t first, int64_t last) {
        for (int64_t block = first; block < last; ++block) shape.pack(p, block, packed);
    };
    divide(pool, shape.blocks(), pack);
    return packed;
}

}  // namespace
