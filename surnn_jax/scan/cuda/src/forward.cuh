// The forward pass: one block for R rows of the batch, one phase a step.
//
// A warp takes an open neuron at a time: it reads that neuron's row of the packed weights, adds up
// its products with the states of R rows, and applies the rule. Meanwhile other threads carry what
// is closed over to the next step, and the last warp lists a later one. States that products read
// are kept twice, for this step and the next; everything else a neuron alone reads and writes.
#pragma once

#include "lister.cuh"

namespace surnn {

template <class T> SURNN_INLINE const T* of(const void* p) { return static_cast<const T*>(p); }
template <class T> SURNN_INLINE T* of(void* p) { return static_cast<T*>(p); }

constexpr int kFar = 6;  // steps from here to those whose logits are asked for

template <class T, class W, class Cell, int R>
SURNN_INLINE void forward(const Scan& p, Block& block) {
    constexpr int C = Cell::C, G = Cell::G;
    const int h = p.features, wide = 4 * p.quads, workers = block.warps() - 1;
    const int64_t first = int64_t{block.index()} * R;
    const Lists<T> lists(block, p, R);
    const Shared<T> operand = block.shared<T>(2 * R * wide);  // [2, R, 4 quads], rounded
    const Shared<T> state = block.shared<T>(C * R * h);       // [C, R, H]

    // The carry `c` of row b, neuron k after step t - 1, or at the beginning.
    auto enter = [&](int64_t t, int c, int b, int k, T value) {
        const bool last = t == p.steps;
        if (!last && lists.reset(t, R, b)) value = of<T>(p.fresh[c])[(first + b) * h + k];
        state.set((c * R + b) * h + k, value);
        if (c == 0) operand.set((t % 2 * R + b) * wide + k, Operand<W>::round(value));
    };
    auto make_list = [&](const Warp& warp, int64_t t) {
        if (t >= p.steps) return;
        list<T, R>(p, warp, lists, first, t, t + kFar, [&](int k) {
#pragma unroll
            for (int b = 0; b < R; ++b)
                for (int g = 0; g < G; ++g)
                    if (first + b < p.batch)
                        prefetch(of<T>(p.z[g]) + (t * p.batch + first + b) * h + k);
        });
    };

    block.phase([&](const Warp& warp) {
        if (warp.index != workers) return;
        make_list(warp, 0);
        make_list(warp, 1);
    });
    block.phase([&](const Warp& warp) {
        if (warp.index == workers) return;
        warp.each([&](int l) {
            const int threads = workers * kLanes;
            for (int k = warp.index * kLanes + l; k < wide; k += threads)
                for (int b = 0; b < R; ++b) {
                    const bool there = first + b < p.batch && k < h;
                    if (there)
                        for (int c = 0; c < C; ++c)
                            enter(0, c, b, k, of<T>(p.start[c])[(first + b) * h + k]);
                    else
                        operand.set(b * wide + k, 0);
                    if (!there) operand.set((R + b) * wide + k, 0);
                }
        });
    });

    for (int64_t t = 0; t < p.steps; ++t) {
        block.phase([&](const Warp& warp) {
            if (warp.index == workers) return make_list(warp, t + 2);
            const int64_t line = t * p.batch + first;
            const int count = lists.many(t), now = static_cast<int>(t % 2) * R;
            for (int s = warp.index; s < count; s += workers) {
                const int i = lists.neuron(p, t, s);
                // Lane b applies the rule to row b: what it reads is under way while products add up.
                Lanes<Group<T, Cell::Q>> pre;
                Lanes<Group<T, 3>> holes;
                warp.each([&](int l) {
                    if (l >= R || first + l >= p.batch) return;
                    pre[l] = sums<T, Cell>(p.vector, i, p.z, (line + l) * h + i);
                    holes[l] = peepholes<T, Cell>(p.vector, i);
                });
                Lanes<T> part[G][R];
                warp.each([&](int l) {
#pragma unroll
                    for (int g = 0; g < G; ++g)
                        for (int b = 0; b < R; ++b) part[g][b][l] = 0;
                    const auto* row = static_cast<const Quad<W>*>(p.packed) + int64_t{i} * G * p.quads;
#pragma unroll 2
                    for (int v = l; v < p.quads; v += kLanes) {
                        Quad<W> w[G];
#pragma unroll
                        for (int g = 0; g < G; ++g) w[g] = row[g * p.quads + v];
#pragma unroll
                        for (int b = 0; b < R; ++b) {
                            const Quad<T> x = operand.quad((now + b) * wide + 4 * v);
#pragma unroll
                            for (int j = 0; j < 4; ++j)
#pragma unroll
                                for (int g = 0; g < G; ++g)
                                    part[g][b][l] += Operand<W>::widen(w[g].v[j]) * x.v[j];
                        }
                    }
                });
                T u[G][R];
#pragma unroll
                for (int g = 0; g < G; ++g)
#pragma unroll
                    for (int b = 0; b < R; ++b) u[g][b] = warp.sum(part[g][b]);
                warp.each([&](int l) {
                    if (l >= R || first + l >= p.batch) return;
#pragma unroll
                    for (int g = 0; g < G; ++g)
#pragma unroll
                        for (int b = 0; b < R; ++b)
                            if (b == l) pre[l][Cell::u(g)] += u[g][b];
                    Group<T, C> old;
#pragma unroll
                    for (int c = 0; c < C; ++c) old[c] = state.get((c * R + l) * h + i);
                    Group<T, Cell::VALUES> value;
                    const Group<T, C> next =
                        Cell::template forward<T>(pre[l], old, holes[l], value);
                    const bool kept = lists.kept(t, R, l);
#pragma unroll
                    for (int c = 0; c < C; ++c) {
                        T out = kept ? next[c] : old[c];
                        if (kept && lists.is_odd(t, i)) out = static_cast<T>(NAN);
                        of<T>(p.carries[c])[(line + l) * h + i] = out;
                        enter(t + 1, c, l, i, out);
                    }
                });
            }
            warp.each([&](int l) {
                const int threads = workers * kLanes;
                for (int k = warp.index * kLanes + l; k < h; k += threads) {
                    if (lists.opens(t, k)) continue;
#pragma unroll
                    for (int b = 0; b < R; ++b) {
                        if (first + b >= p.batch) continue;
#pragma unroll
                        for (int c = 0; c < C; ++c) {
                            const T same = state.get((c * R + b) * h + k);
                            of<T>(p.carries[c])[(line + b) * h + k] = same;
                            enter(t + 1, c, b, k, same);
                        }
                    }
                }
            });
        });
    }
}

}  // namespace surnn
