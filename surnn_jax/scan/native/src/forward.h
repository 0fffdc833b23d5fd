// The forward pass: tile by tile of the batch, step by step, open neurons only.
#pragma once

#include "tile.h"

namespace {

template <class T, class Cell> struct Forward {
    const Problem& p;
    const Weights<T, Cell>& w;

    template <int W> bool run(int64_t row) {
        using L = Layout<T, W>;
        const int64_t h = p.features;
        const auto& shape = w.shape;
        Scratch scratch;
        T* state = scratch.get<T>(shape.width() * W, true);
        Opening<T> opening{scratch.get<int>(h), nullptr, 0, 0, false};
        Entries<T, Cell> e;
        e.allocate(scratch, h * W);
        if (scratch.failed) return false;
        T* frame = state + shape.hwidth() * W;
        for (int b = 0; b < W; ++b)
            L::set_row(state, b, of<T>(p.start[0]) + (row + b) * h, h);
        if (p.table == surnn::kDense) opening.all(h);

        for (int64_t t = 0; t < p.steps; ++t) {
            const T* rows[Cell::C][W];
            T* out[Cell::C][W];
            for (int c = 0; c < Cell::C; ++c)
                for (int b = 0; b < W; ++b) {
                    rows[c][b] = before<T>(p, c, t, row + b);
                    out[c][b] = of<T>(p.carries[c]) + (t * p.batch + row + b) * h;
                    std::memcpy(out[c][b], rows[c][b], h * sizeof(T));
                }
            if (p.resets != nullptr)
                for (int b = 0; b < W; ++b)
                    if (p.resets[t * p.batch + row + b]) L::set_row(state, b, rows[0][b], h);
            const int look = p.keep == nullptr ? W : kept_rows<W>(p, t, row);
            if (look == 0) continue;
            const T* a = nullptr;
            if (p.table != surnn::kDense) {
                a = logits_at<T>(p, t, row);
                opening.read(a, h, false, 0);
                if (opening.count == 0) continue;
            }
            const T* x = of<T>(p.x) + (t * p.batch + row) * p.inputs;
            for (int b = 0; b < W; ++b) L::set_row(frame, b, x + b * p.inputs, p.inputs);
            candidates<T, Cell, W>(w, state, rows, opening.open, opening.count, e, nullptr, 0);
            for (int s = 0; s < opening.count; ++s) {
                const int i = opening.open[s];
                const bool odd = opening.odd && a[i] != a[i];
                for (int b = 0; b < W; ++b) {
                    if (look < W && !kept(p, t, row + b)) continue;
                    for (int c = 0; c < Cell::C; ++c)
                        out[c][b][i] = odd ? nan_of<T>() : e.fresh[c * e.plane + s * W + b];
                    state[L::at(i, b)] = out[0][b][i];
                }
            }
        }
        return true;
    }
};

template <class T, class Cell> bool forward(const Problem& p, Pool& pool) {
    Scratch scratch;
    const Packed<T, Cell::G> shape(p.features, p.inputs);
    Weights<T, Cell> w(p, scratch.get<T>(shape.size()));
    if (scratch.failed) return false;
    auto pack = [&](int64_t first, int64_t last) {
        for (int64_t block = first; block < last; ++block) shape.pack(p, block, w.packed);
    };
    divide(pool, shape.blocks(), pack);

    const Partition partition(p, pool);
    struct Job {
        const Problem& p;
        const Weights<T, Cell>& w;
        const Partition& partition;
        bool failed[Partition::kMost];
    } job{p, w, partition, {}};
    pool.run(partition.parts, [](void* data, int part) {
        Job& j = *static_cast<Job*>(data);
        Forward<T, Cell> run{j.p, j.w};
        j.failed[part] = !tiles<T>(j.p, j.partition.first(part), j.partition.first(part + 1), run);
    }, &job);
    for (int part = 0; part < partition.parts; ++part)
        if (job.failed[part]) return false;
    return true;
}

}  // namespace
