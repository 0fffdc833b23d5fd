// What is to be done at a step, listed by one warp of the block while the others compute: it depends
// on no state. Lists of three steps are kept, so that those of this step and the next can be read
// while the one after is written.
#pragma once

#include "cells.cuh"
#include "kernel.h"

namespace surnn {

constexpr int kRing = 3;
constexpr int kBatch = 8;                  // words of a list whose logits are read at once
constexpr int kKept = 1, kReset = 2;       // bits of a row at a step

// How many of the warps that compute multiply by weights backward; the others prepare a step.
#ifdef __CUDACC__
__host__ __device__
#endif
constexpr int spreaders_of(int workers) { return (workers + 1) / 2; }

template <class T> struct Lists {
    Shared<int> neurons;     // [ring, H]: open neurons in ascending order; none of a dense table
    Shared<int> count;       // [ring]
    Shared<uint32_t> open;   // [ring, words]: a bit a neuron
    Shared<uint32_t> near;   // [ring, words]: closed, but `gap` wants it
    Shared<uint32_t> odd;    // [ring, words]: the logit is NaN, which counts as open
    Shared<int> rows;        // [ring, R]: bits of rows
    int words;

    SURNN_INLINE Lists(Block& block, const Scan& p, int r)
        : neurons(block.shared<int>(p.table == kDense ? 0 : kRing * p.features)),
          count(block.shared<int>(kRing)),
          open(block.shared<uint32_t>(kRing * ((p.features + kLanes - 1) / kLanes))),
          near(block.shared<uint32_t>(kRing * ((p.features + kLanes - 1) / kLanes))),
          odd(block.shared<uint32_t>(kRing * ((p.features + kLanes - 1) / kLanes))),
          rows(block.shared<int>(kRing * r)), words((p.features + kLanes - 1) / kLanes) {}

    static SURNN_INLINE int slot(int64_t t) { return static_cast<int>(t % kRing); }
    SURNN_INLINE bool opens(int64_t t, int k) const { return bit(open, t, k); }
    SURNN_INLINE bool nears(int64_t t, int k) const { return bit(near, t, k); }
    SURNN_INLINE bool is_odd(int64_t t, int k) const { return bit(odd, t, k); }
    SURNN_INLINE int many(int64_t t) const { return count.get(slot(t)); }
    // The neuron with number s of the list.
    SURNN_INLINE int neuron(const Scan& p, int64_t t, int s) const {
        return p.table == kDense ? s : neurons.get(slot(t) * p.features + s);
    }
    SURNN_INLINE bool kept(int64_t t, int r, int b) const {
        return rows.get(slot(t) * r + b) & kKept;
    }
    SURNN_INLINE bool reset(int64_t t, int r, int b) const {
        return rows.get(slot(t) * r + b) & kReset;
    }

  private:
    SURNN_INLINE bool bit(const Shared<uint32_t>& set, int64_t t, int k) const {
        return set.get(slot(t) * words + k / kLanes) >> (k % kLanes) & 1u;
    }
};

// Lists step t of rows [first, first + R). `wants(k)` is called by the lane that finds neuron k open
// or near, to ask for what it will need from memory; `ahead` is the step whose logits are asked for.
template <class T, int R, class F>
SURNN_INLINE void list(const Scan& p, const Warp& warp, const Lists<T>& lists, int64_t first,
                       int64_t t, int64_t ahead, F wants) {
    const int slot = Lists<T>::slot(t), h = p.features;
    Lanes<bool> kept, taught;
    warp.each([&](int l) {
        kept[l] = taught[l] = false;
        if (l >= R) return;
        const int64_t row = first + l, at = t * p.batch + row;
        const bool there = row < p.batch;
        kept[l] = there && (p.keep == nullptr || p.keep[at]);
        taught[l] = kept[l] && row < p.teach;
        const bool reset = there && p.resets != nullptr && p.resets[at];
        lists.rows.set(slot * R + l, (kept[l] ? kKept : 0) | (reset ? kReset : 0));
        if (there && ahead >= 0 && ahead < p.steps) {
            if (p.keep != nullptr) prefetch(p.keep + ahead * p.batch + row);
            if (p.resets != nullptr) prefetch(p.resets + ahead * p.batch + row);
        }
    });
    const bool look = warp.ballot(kept) != 0, teach = warp.ballot(taught) != 0;
    const int64_t row_of = p.table == kPerExample ? t * p.batch + first : t;
    const int64_t row_ahead = p.table == kPerExample ? ahead * p.batch + first : ahead;
    const T* a = static_cast<const T*>(p.logits) + row_of * h;
    const T* later = static_cast<const T*>(p.logits) + row_ahead * h;
    const T low = static_cast<T>(p.low);
    int found = 0;
    for (int begin = 0; begin < lists.words; begin += kBatch) {
        // All reads of a batch are under way before the first of them is waited for.
        Lanes<Group<T, kBatch>> v;
        Lanes<uint32_t> asks;
        warp.each([&](int l) {
            asks[l] = 0;
#pragma unroll
            for (int j = 0; j < kBatch; ++j) {
                const int k = (begin + j) * kLanes + l;
                v[l][j] = look && k < h && p.table != kDense ? a[k] : T{-1};
            }
        });
#pragma unroll
        for (int j = 0; j < kBatch; ++j) {
            const int word = begin + j;
            if (word >= lists.words) break;
            Lanes<bool> open, near, odd;
            warp.each([&](int l) {
                const int k = word * kLanes + l;
                const bool there = look && k < h, dense = p.table == kDense;
                open[l] = there && (dense || !(v[l][j] <= 0));
                near[l] = there && teach && !open[l] && v[l][j] >= low;
                odd[l] = v[l][j] != v[l][j];
                if (there && !dense && l == 0 && ahead >= 0 && ahead < p.steps) prefetch(later + k);
                // All of a dense table are open: one asks for the line of 32.
                if (dense ? there && l == 0 : open[l] || near[l]) asks[l] |= 1u << j;
            });
            const uint32_t opened = warp.ballot(open), nearly = warp.ballot(near);
            const uint32_t broken = warp.ballot(odd);
            warp.each([&](int l) {
                if (l == 0) {
                    lists.open.set(slot * lists.words + word, opened);
                    lists.near.set(slot * lists.words + word, nearly);
                    lists.odd.set(slot * lists.words + word, broken);
                }
                if (p.table == kDense || !open[l]) return;
                const int place = found + count_bits(opened & ((1u << l) - 1u));
                lists.neurons.set(slot * h + place, word * kLanes + l);
            });
            found += count_bits(opened);
        }
        warp.each([&](int l) {
#pragma unroll 1
            for (int j = 0; j < kBatch; ++j)
                if (asks[l] >> j & 1u) wants((begin + j) * kLanes + l);
        });
    }
    warp.each([&](int l) {
        if (l == 0) lists.count.set(slot, found);
    });
}

}  // namespace surnn
