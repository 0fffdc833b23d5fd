// The backward pass: chunk by chunk of the sequence, last first, and in each chunk
//
//   1. recompute: candidates of open and near-threshold entries, from the stored carries;
//   2. recur: the cotangent of the state, step by step, last first;
//   3. collect: gradients of the weights, neuron by neuron over its open entries of the chunk.
//
// A chunk is as long as keeps its states in the cache. Nothing flows back into the candidate of a
// closed neuron, so 2 and 3 cost what is open, and 1 what is open or near.
#pragma once

#include "tile.h"

namespace {

template <class T> T slope_of(const Problem& p, T a) {
    const T shape = static_cast<T>(p.shape);
    if (p.slope == surnn::kWindow) {
        const T up = 1 - (a < 0 ? -a : a) / shape;
        return (up > 0 ? up : 0) / shape;
    }
    if (p.slope == surnn::kIdentity) return 1;
    const T s = 1 / (1 + static_cast<T>(__builtin_exp(-shape * a)));
    return shape * s * (1 - s);
}

template <class T> SURNN_INLINE void add(T* to, const T* from, int64_t n) {
    int64_t j = 0;
    for (; j + lanes<T> <= n; j += lanes<T>) store(to + j, load(to + j) + load(from + j));
    for (; j < n; ++j) to[j] += from[j];
}

// What the tiles of one part of the batch add to.
template <class T, class Cell> struct Gradients {
    T* packed = nullptr;
    T* vector[Cell::Q + 3] = {};
    T* logits = nullptr;

    void allocate(Scratch& scratch, const Problem& p, const Packed<T, Cell::G>& shape, bool first) {
        packed = scratch.get<T>(shape.size(), true);
        for (int q = 0; q < Cell::Q + Cell::PEEPHOLES; ++q)
            vector[q] = scratch.get<T>(p.features, true);
        logits = of<T>(p.dlogits);
        if (logits == nullptr || p.table == surnn::kPerExample) return;
        const size_t size = static_cast<size_t>(p.steps * p.features);
        if (first)
            std::memset(logits, 0, size * sizeof(T));
        else
            logits = scratch.get<T>(size, true);
    }
};

template <class T, class Cell, int W> class BackwardTile {
    using L = Layout<T, W>;
    static constexpr int C = Cell::C, Q = Cell::Q;

    const Problem& p;
    const Weights<T, Cell>& w;
    Gradients<T, Cell>& sum;
    const int64_t row, h, d, hwidth, xwidth;
    const int64_t chunk;     // steps
    const int64_t step_most; // elements a step
    const int64_t plane;     // elements a chunk
    const int learned;       // rows of the tile that teach the switch
    Scratch scratch;

    T* state = nullptr;
    T* single = nullptr;      // state and frame of one row
    T *past_h = nullptr, *past_x = nullptr;  // padded copies, where rows are not whole vectors
    T* ahead[C] = {};         // cotangent of the carry, [W][hwidth]
    T *total = nullptr, *past = nullptr, *peep = nullptr;
    T *values = nullptr, *change = nullptr, *d_pre = nullptr, *side = nullptr, *frame_d = nullptr;
    int *lists = nullptr, *side_lists = nullptr;
    int64_t *base = nullptr, *side_base = nullptr;
    int *open = nullptr, *listed = nullptr, *side_count = nullptr, *look = nullptr;
    bool* odd = nullptr;
    const T** rows_h = nullptr;
    const T** rows_x = nullptr;
    int *first_of = nullptr, *entry_step = nullptr, *entry_at = nullptr;
    const T **some_h = nullptr, **some_x = nullptr;
    int* some_at = nullptr;
    Opening<T> opening{};
    Entries<T, Cell> e, one;

    static int64_t chunk_of(const Problem& p) {
        const int64_t fits = (512 << 10) / static_cast<int64_t>(sizeof(T)) / (W * p.features);
        return larger(1, smaller(p.steps, larger(16, smaller(fits, 512))));
    }

  public:
    BackwardTile(const Problem& p_, const Weights<T, Cell>& w_, Gradients<T, Cell>& sum_,
                 int64_t row_)
        : p(p_), w(w_), sum(sum_), row(row_), h(p_.features), d(p_.inputs),
          hwidth(w_.shape.hwidth()), xwidth(w_.shape.xwidth()), chunk(chunk_of(p_)),
          step_most(padded(h * W, lanes<T>)), plane(chunk * step_most),
          learned(p_.dlogits == nullptr || p_.table == surnn::kDense ? 0
                  : static_cast<int>(larger(0, smaller(W, p_.rows - row_)))) {}

    bool run() {
        if (!allocate()) return false;
        if (p.table == surnn::kDense) opening.all(h);
        for (int c = 0; c < C; ++c)
            std::memset(of<T>(p.dfresh[c]) + row * h, 0, W * h * sizeof(T));
        for (int64_t end = p.steps; end > 0;) {
            const int64_t begin = larger(0, end - chunk);
            recompute(begin, end);
            recur(begin, end);
            collect(end - begin);
            end = begin;
        }
        for (int c = 0; c < C; ++c)
            for (int b = 0; b < W; ++b)
                std::memcpy(of<T>(p.dstart[c]) + (row + b) * h, ahead[c] + b * hwidth,
                            h * sizeof(T));
        return true;
    }

  private:
    bool allocate() {
        state = scratch.get<T>((hwidth + xwidth) * W, true);
        single = scratch.get<T>(hwidth + xwidth, true);
        if (h != hwidth) past_h = scratch.get<T>(chunk * W * hwidth, true);
        if (d != xwidth) past_x = scratch.get<T>(chunk * W * xwidth, true);
        for (int c = 0; c < C; ++c) ahead[c] = scratch.get<T>(W * hwidth, true);
        total = scratch.get<T>(step_most * C, true);
        past = scratch.get<T>(step_most * C, true);
        peep = scratch.get<T>(step_most * 3, true);
        values = scratch.get<T>(plane * Cell::VALUES);
        d_pre = scratch.get<T>(plane * Q);
        frame_d = scratch.get<T>(W * xwidth, true);
        lists = scratch.get<int>(chunk * h);
        base = scratch.get<int64_t>(chunk);
        open = scratch.get<int>(chunk);
        listed = scratch.get<int>(chunk);
        look = scratch.get<int>(chunk);
        odd = scratch.get<bool>(chunk);
        side_count = scratch.get<int>(chunk);
        rows_h = scratch.get<const T*>(chunk * W);
        rows_x = scratch.get<const T*>(chunk * W);
        first_of = scratch.get<int>(h + 1);
        entry_step = scratch.get<int>(chunk * h);
        entry_at = scratch.get<int>(chunk * h);
        some_h = scratch.get<const T*>(chunk * W);
        some_x = scratch.get<const T*>(chunk * W);
        some_at = scratch.get<int>(chunk * W);
        opening.open = scratch.get<int>(h);
        opening.near = scratch.get<int>(h);
        e.allocate(scratch, h * W);
        if (learned > 0) change = scratch.get<T>(plane * C);
        if (learned > 0 && learned < W) {
            side = scratch.get<T>(chunk * h * learned * C);
            side_lists = scratch.get<int>(chunk * h);
            side_base = scratch.get<int64_t>(chunk);
            one.allocate(scratch, h);
        }
        return !scratch.failed;
    }

    void recompute(int64_t begin, int64_t end) {
        T* frame = state + hwidth * W;
        int64_t at = 0, entries = 0, side_at = 0;
        const T low = p.slope == surnn::kWindow ? static_cast<T>(-p.shape)
                                                : static_cast<T>(-__builtin_inf());
        for (int b = 0; b < W; ++b) L::set_row(state, b, before<T>(p, 0, begin, row + b), h);
        for (int64_t t = begin; t < end; ++t) {
            const int64_t n = t - begin;
            const T* rows[C][W];
            for (int b = 0; b < W; ++b) {
                for (int c = 0; c < C; ++c) rows[c][b] = before<T>(p, c, t, row + b);
                if (p.resets != nullptr && p.resets[t * p.batch + row + b])
                    L::set_row(state, b, rows[0][b], h);
                const T* x = of<T>(p.x) + (t * p.batch + row + b) * d;
                rows_h[n * W + b] = whole(past_h, n * W + b, hwidth, rows[0][b], h);
                rows_x[n * W + b] = whole(past_x, n * W + b, xwidth, x, d);
            }
            look[n] = p.keep == nullptr ? W : kept_rows<W>(p, t, row);
            if (p.table != surnn::kDense)
                opening.read(logits_at<T>(p, t, row), h, learned > 0 && look[n] > 0, low);
            base[n] = at;
            odd[n] = opening.odd;
            open[n] = listed[n] = look[n] > 0 ? opening.count : 0;
            side_count[n] = 0;
            int* list = lists + entries;
            std::memcpy(list, opening.open, open[n] * sizeof(int));
            if (learned == W && look[n] > 0) {
                std::memcpy(list + open[n], opening.near, opening.close * sizeof(int));
                listed[n] += opening.close;
            } else if (learned > 0 && look[n] > 0) {
                side_count[n] = opening.close;
                side_base[n] = side_at;
                std::memcpy(side_lists + side_at, opening.near, opening.close * sizeof(int));
                for (int b = 0; b < learned; ++b) sideways(rows, n, b, side_at);
                side_at += opening.close;
            }
            if (listed[n] > 0) {
                for (int b = 0; b < W; ++b) L::set_row(frame, b, rows_x[n * W + b], d);
                candidates<T, Cell, W>(w, state, rows, list, listed[n], e, values + at, plane);
                if (learned > 0)
                    for (int c = 0; c < C; ++c)
                        for (int i = 0; i < listed[n] * W; i += lanes<T>)
                            store(change + c * plane + at + i,
                                  load(e.fresh + c * e.plane + i) - load(e.old + c * e.plane + i));
                const T* now = of<T>(p.carries[0]) + (t * p.batch + row) * h;
                for (int s = 0; s < open[n]; ++s)
                    for (int b = 0; b < W; ++b)
                        state[L::at(list[s], b)] = now[b * h + list[s]];
            }
            entries += listed[n];
            at += padded(listed[n] * W, lanes<T>);
        }
    }

    // Near-threshold candidates of one row alone, where few rows of a tile teach the switch.
    void sideways(const T* const (*rows)[W], int64_t n, int b, int64_t at) {
        const T* alone[C][1];
        for (int c = 0; c < C; ++c) alone[c][0] = rows[c][b];
        std::memcpy(single, alone[0][0], h * sizeof(T));
        std::memcpy(single + hwidth, rows_x[n * W + b], d * sizeof(T));
        candidates<T, Cell, 1>(w, single, alone, side_lists + at, side_count[n], one, nullptr, 0);
        for (int c = 0; c < C; ++c)
            for (int s = 0; s < side_count[n]; ++s)
                side[((at + s) * learned + b) * C + c] =
                    one.fresh[c * one.plane + s] - one.old[c * one.plane + s];
    }

    static const T* whole(T* copies, int64_t index, int64_t width, const T* from, int64_t n) {
        if (copies == nullptr) return from;
        std::memcpy(copies + index * width, from, n * sizeof(T));
        return copies + index * width;
    }

    void recur(int64_t begin, int64_t end) {
        int64_t entries = 0;
        for (int64_t n = 0; n < end - begin; ++n) entries += listed[n];
        for (int64_t t = end - 1; t >= begin; --t) {
            const int64_t n = t - begin;
            entries -= listed[n];
            const int* list = lists + entries;
            for (int c = 0; c < C; ++c)
                if (p.cotangent[c] != nullptr)
                    for (int b = 0; b < W; ++b)
                        add(ahead[c] + b * hwidth,
                            of<T>(p.cotangent[c]) + (t * p.batch + row + b) * h, h);
            if (sum.logits != nullptr && p.table == surnn::kPerExample)
                std::memset(sum.logits + (t * p.batch + row) * h, 0, h * sizeof(T));
            for (int c = 0; c < C; ++c)
                for (int s = 0; s < listed[n]; ++s)
                    for (int b = 0; b < W; ++b)
                        total[c * step_most + s * W + b] = ahead[c][b * hwidth + list[s]];
            if (learned > 0 && look[n] > 0) teach(t, n, list);
            if (open[n] > 0) step_back(t, n, list);
            if (p.dx != nullptr) into_frame(t, n, list);
            if (p.resets != nullptr)
                for (int b = 0; b < W; ++b)
                    if (p.resets[t * p.batch + row + b])
                        for (int c = 0; c < C; ++c) {
                            add(of<T>(p.dfresh[c]) + (row + b) * h, ahead[c] + b * hwidth, h);
                            std::memset(ahead[c] + b * hwidth, 0, hwidth * sizeof(T));
                        }
        }
    }

    // d switch = slope * sum over rows and carries of cotangent * (candidate - old).
    void teach(int64_t t, int64_t n, const int* list) {
        const T* a = logits_at<T>(p, t, row);
        T* to = sum.logits + (p.table == surnn::kShared ? t : t * p.batch + row) * h;
        const T scale = p.table == surnn::kShared
                            ? static_cast<T>(p.batch) / static_cast<T>(smaller(p.rows, p.batch))
                            : 1;
        for (int s = 0; s < listed[n]; ++s) {
            T gap = 0;
            for (int b = 0; b < learned; ++b)
                if (look[n] == W || kept(p, t, row + b))
                    for (int c = 0; c < C; ++c)
                        gap += total[c * step_most + s * W + b] *
                               change[c * plane + base[n] + s * W + b];
            const T slope = slope_of(p, a[list[s]]);
            if (slope != 0) to[list[s]] += slope * scale * gap;
            if (odd[n] && a[list[s]] != a[list[s]]) to[list[s]] = nan_of<T>();
        }
        for (int s = 0; s < side_count[n]; ++s) {
            const int64_t at = side_base[n] + s;
            const int i = side_lists[at];
            T gap = 0;
            for (int b = 0; b < learned; ++b)
                if (look[n] == W || kept(p, t, row + b))
                    for (int c = 0; c < C; ++c)
                        gap += ahead[c][b * hwidth + i] * side[(at * learned + b) * C + c];
            const T slope = slope_of(p, a[i]);
            if (slope != 0) to[i] += slope * scale * gap;
        }
    }

    void step_back(int64_t t, int64_t n, const int* list) {
        const int count = open[n];
        T* dp = d_pre + base[n];
        for (int v = 0; v < Cell::PEEPHOLES; ++v)
            gather<T, W>(w.peephole[v], list, count, peep + v * step_most);
        for (int i = 0; i < count * W; i += lanes<T>) {
            Group<T, Cell::VALUES> value;
            Group<T, C> to, from;
            Group<T, 3> holes{};
            for (int v = 0; v < Cell::VALUES; ++v)
                value[v] = load(values + v * plane + base[n] + i);
            for (int c = 0; c < C; ++c) to[c] = load(total + c * step_most + i);
            for (int v = 0; v < Cell::PEEPHOLES; ++v) holes[v] = load(peep + v * step_most + i);
            const Group<T, Q> pre = Cell::template backward<T>(value, to, holes, from);
            for (int q = 0; q < Q; ++q) store(dp + q * plane + i, pre[q]);
            for (int c = 0; c < C; ++c) store(past + c * step_most + i, from[c]);
        }
        if (odd[n]) {
            const T* a = logits_at<T>(p, t, row);
            for (int s = 0; s < count; ++s)
                if (a[list[s]] != a[list[s]])
                    for (int b = 0; b < W; ++b) {
                        for (int q = 0; q < Q; ++q) dp[q * plane + s * W + b] = nan_of<T>();
                        for (int c = 0; c < C; ++c) past[c * step_most + s * W + b] = nan_of<T>();
                    }
        }
        if (look[n] < W)
            for (int b = 0; b < W; ++b)
                if (!kept(p, t, row + b))
                    for (int s = 0; s < count; ++s) {
                        for (int q = 0; q < Q; ++q) dp[q * plane + s * W + b] = 0;
                        for (int c = 0; c < C; ++c)
                            past[c * step_most + s * W + b] = total[c * step_most + s * W + b];
                    }
        for (int c = 0; c < C; ++c)
            for (int s = 0; s < count; ++s)
                for (int b = 0; b < W; ++b)
                    ahead[c][b * hwidth + list[s]] = past[c * step_most + s * W + b];
        const T* into[Cell::G];
        for (int g = 0; g < Cell::G; ++g) into[g] = dp + Cell::U[g] * plane;
        spread<T, W, Cell::G>(w.packed, w.shape.stride, w.shape.hblocks, list, count, into,
                              ahead[0], hwidth);
    }

    void into_frame(int64_t t, int64_t n, const int* list) {
        T* out = of<T>(p.dx) + (t * p.batch + row) * d;
        T* to = d == xwidth ? out : frame_d;
        std::memset(to, 0, W * xwidth * sizeof(T));
        const T* into[Cell::G];
        for (int g = 0; g < Cell::G; ++g) into[g] = d_pre + base[n] + Cell::W[g] * plane;
        spread<T, W, Cell::G>(w.packed + w.shape.hblocks * Cell::G * lanes<T>, w.shape.stride,
                              w.shape.xblocks, list, open[n], into, to, xwidth);
        if (to != out)
            for (int b = 0; b < W; ++b) std::memcpy(out + b * d, to + b * xwidth, d * sizeof(T));
    }

    void collect(int64_t steps) {
        std::memset(first_of, 0, (h + 1) * sizeof(int));
        const int* list = lists;
        for (int64_t n = 0; n < steps; list += listed[n++])
            for (int s = 0; s < open[n]; ++s) ++first_of[list[s]];
        int after = 0;
        for (int64_t i = 0; i <= h; ++i) {
            const int many = first_of[i];
            first_of[i] = after;
            after += i < h ? many : 0;
        }
        list = lists;
        for (int64_t n = 0; n < steps; list += listed[n++])
            for (int s = 0; s < open[n]; ++s) {
                const int to = first_of[list[s]]++;
                entry_step[to] = static_cast<int>(n);
                entry_at[to] = static_cast<int>(base[n]) + s * W;
            }
        const T *du[Cell::G], *dw[Cell::G];
        for (int g = 0; g < Cell::G; ++g) {
            du[g] = d_pre + Cell::U[g] * plane;
            dw[g] = d_pre + Cell::W[g] * plane;
        }
        for (int64_t i = 0, from = 0; i < h; ++i) {
            const int64_t to = first_of[i];  // moved to the end of the neuron's entries above
            if (to == from) continue;
            int many = 0;
            for (int64_t k = from; k < to; ++k)
                for (int b = 0; b < W; ++b, ++many) {
                    some_h[many] = rows_h[entry_step[k] * W + b];
                    some_x[many] = rows_x[entry_step[k] * W + b];
                    some_at[many] = entry_at[k] + b;
                }
            T* gradient = sum.packed + i * w.shape.stride;
            outer<T, Cell::G>(gradient, w.shape.hblocks, some_h, some_at, many, du);
            outer<T, Cell::G>(gradient + w.shape.hblocks * Cell::G * lanes<T>, w.shape.xblocks,
                              some_x, some_at, many, dw);
            for (int q = 0; q < Q; ++q) {
                T total_q = 0;
                for (int m = 0; m < many; ++m) total_q += d_pre[q * plane + some_at[m]];
                sum.vector[q][i] += total_q;
            }
            if constexpr (Cell::PEEPHOLES > 0)
                for (int v = 0; v < Cell::PEEPHOLES; ++v)
                    for (int m = 0; m < many; ++m)
                        sum.vector[Q + v][i] += d_pre[Cell::PQ[v] * plane + some_at[m]] *
                                                values[Cell::PV[v] * plane + some_at[m]];
            from = to;
        }
    }
};

template <class T, class Cell> struct Backward {
    const Problem& p;
    const Weights<T, Cell>& w;
    Gradients<T, Cell>& sum;

    template <int W> bool run(int64_t row) {
        return BackwardTile<T, Cell, W>(p, w, sum, row).run();
    }
};

template <class T, class Cell> bool backward(const Problem& p, Pool& pool) {
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
        Scratch memory[Partition::kMost];
        Gradients<T, Cell> sums[Partition::kMost];
        bool failed[Partition::kMost];
    };
    static_assert(sizeof(Job) < 512 << 10, "lives on the stack");
    Job job{p, w, partition, {}, {}, {}};
    pool.run(partition.parts, [](void* data, int part) {
        Job& j = *static_cast<Job*>(data);
        j.sums[part].allocate(j.memory[part], j.p, j.w.shape, part == 0);
        j.failed[part] = j.memory[part].failed;
        if (j.failed[part]) return;
        Backward<T, Cell> run{j.p, j.w, j.sums[part]};
        j.failed[part] = !tiles<T>(j.p, j.partition.first(part), j.partition.first(part + 1), run);
    }, &job);
    for (int part = 0; part < partition.parts; ++part)
        if (job.failed[part]) return false;

    T* parts[Partition::kMost];
    for (int part = 0; part < partition.parts; ++part) parts[part] = job.sums[part].packed;
    auto unpack = [&](int64_t first, int64_t last) {
        for (int64_t block = first; block < last; ++block)
            shape.unpack(p, block, parts, partition.parts);
    };
    divide(pool, shape.blocks(), unpack);
    for (int q = 0; q < Cell::Q + Cell::PEEPHOLES; ++q) {
        T* to = of<T>(p.dvector[q]);
        std::memcpy(to, job.sums[0].vector[q], p.features * sizeof(T));
        for (int part = 1; part < partition.parts; ++part)
            add(to, job.sums[part].vector[q], p.features);
    }
    if (p.dlogits != nullptr && p.table == surnn::kShared)
        for (int part = 1; part < partition.parts; ++part)
            if (partition.first(part) < p.rows)
                add(of<T>(p.dlogits), job.sums[part].logits, p.steps * p.features);
    return true;
}

}  // namespace
