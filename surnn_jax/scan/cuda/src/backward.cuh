// The backward pass: one block for R rows of the batch, last step first, two phases a step.
//
//   1. settle: what products of the step after add to the cotangent of the state; the rule backward
//      for open neurons; results of the step.
//   2. spread: some warps multiply the cotangents of open neurons' sums by their rows of the packed
//      weights, a group of threads taking every n-th neuron; others apply the rule forward for the
//      step before, which needs no cotangent; the last warp lists a step.
//
// The partial sums of groups are added in the order of groups and each in that of neurons, so the
// result depends on nothing but the sizes.
#pragma once

#include "forward.cuh"

namespace surnn {

template <class T, class W, class Cell, int R> class Backward {
    static constexpr int C = Cell::C, G = Cell::G, Q = Cell::Q, V = Cell::VALUES;

    const Scan& p;
    const int h, wide, workers, spreaders, groups;
    const int64_t first;
    const Lists<T> lists;
    const Shared<T> ahead;   // [C, R, H]: of the carry after the step at hand
    const Shared<T> output;  // [C, R, H]: what this step's result adds
    const Shared<T> value;   // [V, R, H]: what the rule backward reads, at open neurons
    const Shared<T> change;  // [C, R, H]: candidate - old, if `gap` is wanted
    const Shared<T> d_sum;   // [G, R, H]: of the sums that products with the state enter, rounded
    const Shared<T> partial; // [groups, R, 4 quads]

  public:
    SURNN_INLINE Backward(const Scan& p_, Block& block, int groups_)
        : p(p_), h(p.features), wide(4 * p.quads), workers(block.warps() - 1),
          spreaders(spreaders_of(workers)), groups(groups_), first(int64_t{block.index()} * R),
          lists(block, p, R), ahead(block.shared<T>(C * R * h)),
          output(block.shared<T>(C * R * h)), value(block.shared<T>(V * R * h)),
          change(block.shared<T>(p.teach > 0 ? C * R * h : 0)), d_sum(block.shared<T>(G * R * h)),
          partial(block.shared<T>(groups * R * wide)) {}

    SURNN_INLINE void run(const Block& block) const {
        const int64_t last = p.steps - 1;
        block.phase([&](const Warp& warp) {
            if (warp.index != workers) return clear(warp);
            make_list(warp, last);
            make_list(warp, last - 1);
        });
        block.phase([&](const Warp& warp) {
            if (warp.index < workers) prepare(warp, warp.index, workers, last);
        });
        for (int64_t t = last; t >= 0; --t) {
            block.phase([&](const Warp& warp) {
                if (warp.index < workers) settle(warp, t);
            });
            block.phase([&](const Warp& warp) {
                if (warp.index == workers)
                    make_list(warp, t - 2);
                else if (warp.index < spreaders)
                    spread(warp, t);
                else
                    prepare(warp, warp.index - spreaders, workers - spreaders, t - 1);
            });
        }
        block.phase([&](const Warp& warp) {
            if (warp.index < workers)
                mine(warp, warp.index, workers, [&](int b, int k) {
                    for (int c = 0; c < C; ++c)
                        of<T>(p.dstart[c])[(first + b) * h + k] = arrived(-1, c, b, k);
                });
        });
    }

  private:
    // f(row, neuron) for every one, divided among `many` warps of which this has number `index`.
    template <class F>
    SURNN_INLINE void mine(const Warp& warp, int index, int many, F f) const {
        warp.each([&](int l) {
            for (int k = index * kLanes + l; k < h; k += many * kLanes)
#pragma unroll
                for (int b = 0; b < R; ++b)
                    if (first + b < p.batch) f(b, k);
        });
    }
    SURNN_INLINE int at(int field, int b, int k) const { return (field * R + b) * h + k; }
    SURNN_INLINE int64_t place(int64_t t, int b, int k) const {
        return (t * p.batch + first + b) * h + k;
    }
    SURNN_INLINE bool teaches(int b) const { return first + b < p.teach; }

    SURNN_INLINE void clear(const Warp& warp) const {
        mine(warp, warp.index, workers, [&](int b, int k) {
            for (int c = 0; c < C; ++c) {
                ahead.set(at(c, b, k), 0);
                of<T>(p.dfresh[c])[(first + b) * h + k] = 0;
            }
        });
    }

    SURNN_INLINE void make_list(const Warp& warp, int64_t t) const {
        if (t < 0) return;
        list<T, R>(p, warp, lists, first, t, t - kFar, [&](int k) {
            for (int b = 0; b < R; ++b) {
                if (first + b >= p.batch) continue;
                for (int g = 0; g < G; ++g) {
                    prefetch(of<T>(p.z[g]) + place(t, b, k));
                    prefetch(of<T>(p.u[g]) + place(t, b, k));
                }
                for (int c = 0; c < C; ++c) prefetch(of<T>(p.old[c]) + place(t, b, k));
            }
        });
        // The cotangents of a step's results are read by all neurons: a line for each 32 of them.
        warp.each([&](int l) {
            for (int k = l * kLanes; k < h; k += kLanes * kLanes)
                for (int b = 0; b < R; ++b)
                    for (int c = 0; c < C; ++c)
                        if (p.cotangent[c] != nullptr && first + b < p.batch)
                            prefetch(of<T>(p.cotangent[c]) + place(t, b, k));
        });
    }

    // What step t's settling reads and no cotangent enters.
    SURNN_INLINE void prepare(const Warp& warp, int index, int many, int64_t t) const {
        if (t < 0) return;
        mine(warp, index, many, [&](int b, int k) {
            const bool open = lists.opens(t, k);
            const bool needed = lists.kept(t, R, b) && (open || (teaches(b) && lists.nears(t, k)));
            // All reads are under way before the first of them is waited for.
            Group<T, Q> pre{};
            Group<T, G> u{};
            Group<T, C> old{}, d{};
#pragma unroll
            for (int c = 0; c < C; ++c)
                d[c] = p.cotangent[c] == nullptr ? T{0} : of<T>(p.cotangent[c])[place(t, b, k)];
            if (needed) {
#pragma unroll
                for (int g = 0; g < G; ++g) u[g] = of<T>(p.u[g])[place(t, b, k)];
                pre = sums<T, Cell>(p.vector, k, p.z, place(t, b, k));
#pragma unroll
                for (int c = 0; c < C; ++c) old[c] = of<T>(p.old[c])[place(t, b, k)];
            }
#pragma unroll
            for (int c = 0; c < C; ++c) output.set(at(c, b, k), d[c]);
            if (!needed) return;
#pragma unroll
            for (int g = 0; g < G; ++g) pre[Cell::u(g)] += u[g];
            Group<T, V> found;
            const Group<T, C> next =
                Cell::template forward<T>(pre, old, peepholes<T, Cell>(p.vector, k), found);
            if (open)
#pragma unroll
                for (int v = 0; v < V; ++v) value.set(at(v, b, k), found[v]);
            if (teaches(b))
#pragma unroll
                for (int c = 0; c < C; ++c) change.set(at(c, b, k), next[c] - old[c]);
        });
    }

    // The cotangent of a carry after step t, less that of the step's result; a reset ends it.
    SURNN_INLINE T arrived(int64_t t, int c, int b, int k) const {
        T total = ahead.get(at(c, b, k));
        if (t == p.steps - 1) return total;
        if (c == 0 && lists.many(t + 1) > 0)
            for (int j = 0; j < groups; ++j) total += partial.get((j * R + b) * wide + k);
        if (!lists.reset(t + 1, R, b)) return total;
        of<T>(p.dfresh[c])[(first + b) * h + k] += total;
        return 0;
    }

    SURNN_INLINE void settle(const Warp& warp, int64_t t) const {
        mine(warp, warp.index, workers, [&](int b, int k) {
            Group<T, C> total, past;
#pragma unroll
            for (int c = 0; c < C; ++c)
                past[c] = total[c] = arrived(t, c, b, k) + output.get(at(c, b, k));
            const bool open = lists.opens(t, k), kept = lists.kept(t, R, b);
            Group<T, Q> d{};
            if (open && kept) {
                Group<T, V> found;
#pragma unroll
                for (int v = 0; v < V; ++v) found[v] = value.get(at(v, b, k));
                d = Cell::template backward<T>(found, total, peepholes<T, Cell>(p.vector, k), past);
                if (lists.is_odd(t, k)) {
#pragma unroll
                    for (int q = 0; q < Q; ++q) d[q] = static_cast<T>(NAN);
#pragma unroll
                    for (int c = 0; c < C; ++c) past[c] = static_cast<T>(NAN);
                }
            }
#pragma unroll
            for (int q = 0; q < Q; ++q) of<T>(p.d_pre[q])[place(t, b, k)] = d[q];
#pragma unroll
            for (int c = 0; c < C; ++c) ahead.set(at(c, b, k), past[c]);
            if (open)
#pragma unroll
                for (int g = 0; g < G; ++g)
                    d_sum.set(at(g, b, k), Operand<W>::round(d[Cell::u(g)]));
            if (p.teach == 0) return;
            T gap = 0;
            if (teaches(b) && kept && (open || lists.nears(t, k)))
#pragma unroll
                for (int c = 0; c < C; ++c) gap += total[c] * change.get(at(c, b, k));
            of<T>(p.gap)[place(t, b, k)] = gap;
        });
    }

    SURNN_INLINE void spread(const Warp& warp, int64_t t) const {
        const int count = lists.many(t);
        if (count == 0) return;
        warp.each([&](int l) {
            const int thread = warp.index * kLanes + l, threads = spreaders * kLanes;
            const int width = groups > 1 ? p.quads : threads;  // of a group
            const int group = thread / width;
            if (group >= groups) return;
            for (int v = thread % width; v < p.quads; v += width) {
                T total[R][4] = {};
#pragma unroll(R == 1 ? 4 : 2)
                for (int s = group; s < count; s += groups) {
                    const int i = lists.neuron(p, t, s);
                    const auto* row = static_cast<const Quad<W>*>(p.packed) + int64_t{i} * G * p.quads;
#pragma unroll
                    for (int g = 0; g < G; ++g) {
                        const Quad<W> w = row[g * p.quads + v];
#pragma unroll
                        for (int b = 0; b < R; ++b) {
                            if (first + b >= p.batch) continue;
                            const T d = d_sum.get(at(g, b, i));
#pragma unroll
                            for (int j = 0; j < 4; ++j)
                                total[b][j] += d * Operand<W>::widen(w.v[j]);
                        }
                    }
                }
#pragma unroll
                for (int b = 0; b < R; ++b)
#pragma unroll
                    for (int j = 0; j < 4; ++j)
                        partial.set((group * R + b) * wide + 4 * v + j, total[b][j]);
            }
        });
    }
};

}  // namespace surnn
