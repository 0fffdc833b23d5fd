// The forward pass: tile by tile of the batch, step by step, open neurons only.
#pragma once

#include "tile.h"

namespace {

template <class T, class Cell> struct Forward {
    const Problem& p;
    const Weights<T, Cell>& w;

    Forward(const Problem& p_, const Weights<T, Cell>& w_) : p(p_), w(w_) {}

    bool run(int width, int64_t first, int64_t many) {
        bool done = true;
        with_width<T>(width, [&](auto w) {
            constexpr int W = decltype(w)::value;
            for (int64_t at = 0; done && at < many; at += together(W))
                done = tiles_of<W>(first + at * W, smaller(many - at, together(W)));
        });
        return done;
    }

  private:
    // `many` tiles of W rows from `first` on.
    template <int W> bool tiles_of(int64_t first, int64_t many) {
        const int64_t h = p.features, size = w.shape.width() * W;
        Scratch scratch;
        T* states = scratch.get<T>(size * many, true);
        Opening<T> opening{scratch.get<int>(h), nullptr, 0, 0, false};
        Entries<T, Cell> e;
        e.allocate(scratch, h * W);
        if (scratch.failed) return false;
        for (int64_t r = 0; r < many * W; ++r)
            Layout<T, W>::set_row(states + r / W * size, r % W, of<T>(p.start[0]) + (first + r) * h,
                                  h);
        if (p.table == surnn::kDense) opening.all(h);
        for (int64_t t = 0; t < p.steps; ++t)
            for (int64_t k = 0; k < many; ++k)
                step<W>(t, first + k * W, states + k * size, opening, e);
        return true;
    }

    template <int W>
    void step(int64_t t, int64_t row, T* state, Opening<T>& opening, Entries<T, Cell>& e) {
        using L = Layout<T, W>;
        const int64_t h = p.features;
        const T* rows[Cell::C][W];
        T* out[Cell::C][W];
        for (int c = 0; c < Cell::C; ++c)
            for (int b = 0; b < W; ++b) {
                rows[c][b] = before<T>(p, c, t, row + b);
                out[c][b] = of<T>(p.carries[c]) + (t * p.batch + row + b) * h;
                if (out[c][b] != rows[c][b]) std::memcpy(out[c][b], rows[c][b], h * sizeof(T));
            }
        if (p.resets != nullptr)
            for (int b = 0; b < W; ++b)
                if (p.resets[t * p.batch + row + b]) L::set_row(state, b, rows[0][b], h);
        const int look = p.keep == nullptr ? W : kept_rows(p, t, row, W);
        if (look == 0) return;
        const T* a = nullptr;
        if (p.table != surnn::kDense) {
            a = logits_at<T>(p, t, row);
            opening.read(a, h, false, 0);
            if (opening.count == 0) return;
        }
        const T* x = of<T>(p.x) + (t * p.batch + row) * p.inputs;
        T* frame = state + w.shape.hwidth() * W;
        for (int b = 0; b < W; ++b) L::set_row(frame, b, x + b * p.inputs, p.inputs);
        candidates<T, Cell, W>(w, state, rows, opening.open, opening.count, e);
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
};

template <class T, class Cell> int64_t pack(const Problem& p, void* to) {
    const Packed<T, Cell::G> shape(p.features, p.inputs);
    for (int64_t block = 0; to != nullptr && block < shape.blocks(); ++block)
        shape.pack(p, block, of<T>(to));
    return shape.size() * static_cast<int64_t>(sizeof(T));
}

template <class T, class Cell> bool forward(const Problem& p, Pool& pool) {
    Scratch scratch;
    const Weights<T, Cell> w(p, packed_weights<T, Cell>(p, pool, scratch));
    if (scratch.failed) return false;

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
