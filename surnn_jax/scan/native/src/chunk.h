// The entries of a chunk of steps, in the order of steps and in that of neurons.
//
// A line is a tile of `width` rows at one step; each step has `tiles` of them. An entry is a (line,
// neuron, row). In a line the open neurons come first, each for all its rows; then those closed but
// near the threshold, each for the `learned` rows that teach the switch.
#pragma once

#include "tile.h"

namespace {

template <class T, int C> struct Chunk {
    const Problem& p;
    const int width, learned;
    const int64_t h, d, hwidth, xwidth;
    const int64_t most_steps, most;  // most: lines
    int64_t tiles = 1, begin = 0, steps = 0, lines = 0;

    // By line.
    int64_t* base;     // where its entries are numbered from
    int *open, *near;  // neurons
    int* look;         // rows not masked
    bool* odd;         // some logit is NaN
    int* lists;        // neurons, line after line
    // By line and row: the carries before and, after h, the frame; whole vectors. Copies, since
    // rows that are apart by a power of two fight for the same few places in the cache.
    T* past[C];
    // By neuron, entries from first_of[2 i] open, from first_of[2 i + 1] near: row and number.
    int *first_of, *entry_row, *entry_at;

    Chunk(const Problem& p_, int width_, int learned_, int64_t most_tiles, int64_t hwidth_,
          int64_t xwidth_)
        : p(p_), width(width_), learned(learned_), h(p_.features), d(p_.inputs), hwidth(hwidth_),
          xwidth(xwidth_), most_steps(most_of(p_, width_ * most_tiles)),
          most(most_steps * most_tiles) {}

    // As many steps as keep their states in the cache.
    static int64_t most_of(const Problem& p, int64_t rows) {
        const int64_t fits = (256 << 10) / static_cast<int64_t>(sizeof(T)) / (rows * p.features);
        return larger(1, smaller(p.steps, larger(16, smaller(fits, 256))));
    }

    void allocate(Scratch& scratch) {
        base = scratch.get<int64_t>(most);
        open = scratch.get<int>(most);
        near = scratch.get<int>(most);
        look = scratch.get<int>(most);
        odd = scratch.get<bool>(most);
        lists = scratch.get<int>(most * h);
        for (int c = 0; c < C; ++c) past[c] = scratch.get<T>(most * width * stride(c), true);
        first_of = scratch.get<int>(2 * h + 1);
        entry_row = scratch.get<int>(most * h * width);
        entry_at = scratch.get<int>(most * h * width);
        opening.open = scratch.get<int>(h);
        opening.near = scratch.get<int>(h);
        if (!scratch.failed && p.table == surnn::kDense) opening.all(h);
    }

    // Lists steps [begin, end) of `tiles` tiles from `row` on.
    void fill(int64_t row, int64_t tiles_, int64_t begin_, int64_t end) {
        tiles = tiles_, begin = begin_, steps = end - begin_, lines = steps * tiles;
        std::memset(first_of, 0, (2 * h + 1) * sizeof(int));
        int64_t at = 0, listed_before = 0;
        for (int64_t n = 0; n < lines; ++n) {
            line(n, begin + n / tiles, row + n % tiles * width, lists + listed_before);
            base[n] = at;
            at = near_base(n) + near[n] * learned;
            listed_before += listed(n);
        }
        sort();
    }

    // Elements that lines of this many tiles need.
    int64_t size() const { return most * (padded(h * width, lanes<T>) + lanes<T>); }
    int64_t stride(int c) const { return c == 0 ? hwidth + xwidth : hwidth; }
    int listed(int64_t n) const { return open[n] + near[n]; }
    // The open ones are written by whole vectors.
    int64_t near_base(int64_t n) const { return base[n] + padded(open[n] * width, lanes<T>); }

  private:
    Opening<T> opening{};

    void line(int64_t n, int64_t t, int64_t row, int* list) {
        for (int b = 0; b < width; ++b) {
            const int64_t r = n * width + b;
            for (int c = 0; c < C; ++c)
                std::memcpy(past[c] + r * stride(c), before<T>(p, c, t, row + b), h * sizeof(T));
            const T* x = of<T>(p.x) + (t * p.batch + row + b) * d;
            std::memcpy(past[0] + r * stride(0) + hwidth, x, d * sizeof(T));
        }
        look[n] = p.keep == nullptr ? width : kept_rows(p, t, row, width);
        open[n] = near[n] = 0;
        odd[n] = false;
        if (look[n] == 0) return;
        if (p.table != surnn::kDense) {
            const T low = p.slope == surnn::kWindow ? static_cast<T>(-p.shape)
                                                    : static_cast<T>(-__builtin_inf());
            opening.read(logits_at<T>(p, t, row), h, learned > 0, low);
        }
        odd[n] = opening.odd;
        open[n] = opening.count;
        near[n] = learned > 0 ? opening.close : 0;
        std::memcpy(list, opening.open, open[n] * sizeof(int));
        std::memcpy(list + open[n], opening.near, near[n] * sizeof(int));
        for (int s = 0; s < open[n]; ++s) first_of[2 * list[s]] += width;
        for (int s = open[n]; s < listed(n); ++s) first_of[2 * list[s] + 1] += learned;
    }

    // Counts to places, then entries to their places; each place moves to the end of its neuron's
    // entries, which is where the next neuron's begin: hence the shift.
    void sort() {
        int after = 0;
        for (int64_t i = 0; i <= 2 * h; ++i) {
            const int many = first_of[i];
            first_of[i] = after;
            after += many;
        }
        const int* list = lists;
        for (int64_t n = 0; n < lines; ++n) {
            place(n, list, open[n], 0, base[n], width);
            place(n, list + open[n], near[n], 1, near_base(n), learned);
            list += listed(n);
        }
        for (int64_t i = 2 * h; i > 0; --i) first_of[i] = first_of[i - 1];
        first_of[0] = 0;
    }

    void place(int64_t n, const int* list, int count, int kind, int64_t at, int many) {
        for (int s = 0; s < count; ++s) {
            int& to = first_of[2 * list[s] + kind];
            for (int b = 0; b < many; ++b, ++to) {
                entry_row[to] = static_cast<int>(n) * width + b;
                entry_at[to] = static_cast<int>(at) + s * many + b;
            }
        }
    }
};

}  // namespace
