// The backward pass: chunk by chunk of the sequence, last first, and in each chunk
//
//   1. recompute: candidates of open and near-threshold entries, neuron by neuron, from the stored
//      carries (a cell with KEPT needs those of near ones alone);
//   2. recur: the cotangent of the state, step by step, last first;
//   3. collect: gradients of the weights, neuron by neuron over its open entries.
//
// Nothing flows back into the candidate of a closed neuron, so 2 and 3 cost what is open, and 1
// what is open or near. Only 2 needs the order of time; the others keep a neuron's weights at hand.
#pragma once

#include "chunk.h"
#include "gradients.h"
#include "spread.h"

namespace {

// to[s][b] = rows[b][list[s]], and back.
template <class T, int W>
void take(const T* rows, int64_t width, const int* list, int count, T* to) {
    for (int s = 0; s < count; ++s)
        for (int b = 0; b < W; ++b) to[s * W + b] = rows[b * width + list[s]];
}
template <class T, int W>
void put(T* rows, int64_t width, const int* list, int count, const T* from) {
    for (int s = 0; s < count; ++s)
        for (int b = 0; b < W; ++b) rows[b * width + list[s]] = from[s * W + b];
}

template <class T, class Cell> class BackwardTile {
    static constexpr int C = Cell::C, Q = Cell::Q, G = Cell::G;
    static constexpr int kBlock = 64;  // entries at a time in `recompute`: whole vectors

    const Problem& p;
    const Weights<T, Cell>& w;
    Gradients<T, Cell>& sum;
    const int width, learned;  // rows of a tile, and those that teach the switch
    const int64_t h, d, hwidth, xwidth;
    Chunk<T, Cell::C> chunk;
    const SlopeAt<T> slope_of;
    const int64_t line_most, plane;  // elements a line and a chunk
    int64_t row = 0;  // of the line at hand, the first
    Scratch scratch;

    T* aheads[C] = {};  // cotangents of the carries, [tile][W][hwidth]
    T* ahead[C] = {};   // those of the line at hand
    T *total = nullptr, *past = nullptr, *peep = nullptr;
    T *values = nullptr, *change = nullptr, *d_pre = nullptr, *frame_d = nullptr, *pre = nullptr;

    // What has to know the width while compiling.
    decltype(&take<T, 1>) take_open = nullptr;
    decltype(&put<T, 1>) put_open = nullptr;
    decltype(&spread<T, 1, G>) spread_open = nullptr;

  public:
    BackwardTile(const Problem& p_, const Weights<T, Cell>& w_, Gradients<T, Cell>& sum_,
                 int width_, int learned_, int64_t tiles)
        : p(p_), w(w_), sum(sum_), width(width_), learned(learned_), h(p_.features), d(p_.inputs),
          hwidth(w_.shape.hwidth()), xwidth(w_.shape.xwidth()),
          chunk(p_, width_, learned_, tiles, hwidth, xwidth), slope_of(p_),
          line_most(padded(h * width_, lanes<T>)), plane(chunk.size()) {
        with_width<T>(width, [&](auto known) {
            constexpr int W = decltype(known)::value;
            take_open = take<T, W>;
            put_open = put<T, W>;
            spread_open = spread<T, W, G>;
        });
    }

    bool allocate() {
        chunk.allocate(scratch);
        for (int c = 0; c < C; ++c)
            aheads[c] = scratch.get<T>(together(width) * width * hwidth, true);
        total = scratch.get<T>(line_most * C, true);
        past = scratch.get<T>(line_most * C, true);
        peep = scratch.get<T>(line_most * 3, true);
        values = scratch.get<T>(plane * Cell::VALUES);
        d_pre = scratch.get<T>(plane * Q);
        frame_d = scratch.get<T>(width * xwidth, true);
        pre = scratch.get<T>(kBlock * Q, true);
        if (learned > 0) change = scratch.get<T>(plane * C);
        return !scratch.failed;
    }

    // `tiles` tiles from row `first` on.
    void run(int64_t first, int64_t tiles) {
        const int64_t rows = tiles * width;
        for (int c = 0; c < C; ++c) {
            std::memset(aheads[c], 0, rows * hwidth * sizeof(T));
            std::memset(of<T>(p.dfresh[c]) + first * h, 0, rows * h * sizeof(T));
        }
        for (int64_t end = p.steps; end > 0; end = chunk.begin) {
            chunk.fill(first, tiles, larger(0, end - chunk.most_steps), end);
            recompute();
            recur(first);
            collect();
        }
        for (int c = 0; c < C; ++c)
            for (int64_t r = 0; r < rows; ++r)
                std::memcpy(of<T>(p.dstart[c]) + (first + r) * h, aheads[c] + r * hwidth,
                            h * sizeof(T));
    }

  private:
    void recompute() {
        for (int i = 0; i < h; ++i) {
            const int end = chunk.first_of[2 * i + (learned > 0 ? 2 : 1)];
            for (int k = chunk.first_of[2 * i + Cell::KEPT]; k < end; k += kBlock)
                block(i, k, static_cast<int>(smaller(kBlock, end - k)));
        }
    }

    // Candidates of neuron i for `count` entries from number `first` on: what the rule backward
    // reads of those open, and candidate - old of all where the switch is learned.
    SURNN_APART void block(int i, int first, int count) {
        const int *rows = chunk.entry_row + first, *at = chunk.entry_at + first;
        const int opened = static_cast<int>(
            larger(0, smaller(count, chunk.first_of[2 * i + 1] - first)));
        dots<T, G, Cell::SPLIT>(w.shape, w.packed + i * w.shape.stride, chunk.past[0], rows,
                                count, pre, kBlock);
        T old[C][kBlock], value[Cell::VALUES][kBlock], gap[C][kBlock];
        for (int c = 0; c < C; ++c) {
            const T* from = chunk.past[c] + i;
            for (int m = 0; m < count; ++m) old[c][m] = from[rows[m] * chunk.stride(c)];
            for (int m = count; m % lanes<T> != 0; ++m) old[c][m] = 0;
        }
        Group<T, 3> holes{};
        for (int v = 0; v < Cell::PEEPHOLES; ++v) holes[v] = fill(w.peephole[v][i]);
        for (int m = 0; m < count; m += lanes<T>) {
            Group<T, Q> sums;
            Group<T, C> past_state;
            Group<T, Cell::VALUES> found;
            for (int q = 0; q < Q; ++q) sums[q] = load(pre + q * kBlock + m) + fill(w.bias[q][i]);
            for (int c = 0; c < C; ++c) past_state[c] = load(old[c] + m);
            const Group<T, C> fresh = Cell::template forward<T>(sums, past_state, holes, found);
            for (int v = 0; v < Cell::VALUES; ++v) store(value[v] + m, found[v]);
            for (int c = 0; c < C; ++c) store(gap[c] + m, fresh[c] - past_state[c]);
        }
        for (int v = 0; v < Cell::VALUES; ++v)
            for (int m = 0; m < opened; ++m) values[v * plane + at[m]] = value[v][m];
        if (learned > 0)
            for (int c = 0; c < C; ++c)
                for (int m = 0; m < count; ++m) change[c * plane + at[m]] = gap[c][m];
    }

    void recur(int64_t first) {
        const int* list = chunk.lists;
        for (int64_t n = 0; n < chunk.lines; ++n) list += chunk.listed(n);
        for (int64_t n = chunk.lines - 1; n >= 0; --n) {
            const int64_t tile = n % chunk.tiles;
            row = first + tile * width;
            for (int c = 0; c < C; ++c) ahead[c] = aheads[c] + tile * width * hwidth;
            list -= chunk.listed(n);
            line(chunk.begin + n / chunk.tiles, n, list);
        }
    }

    void line(int64_t t, int64_t n, const int* list) {
        for (int c = 0; c < C; ++c)
            if (p.cotangent[c] != nullptr)
                for (int b = 0; b < width; ++b)
                    add(ahead[c] + b * hwidth,
                        of<T>(p.cotangent[c]) + (t * p.batch + row + b) * h, h);
        if (sum.logits != nullptr && p.table == surnn::kPerExample)
            std::memset(sum.logits + (t * p.batch + row) * h, 0, h * sizeof(T));
        for (int c = 0; c < C; ++c)
            take_open(ahead[c], hwidth, list, chunk.open[n], total + c * line_most);
        if constexpr (Cell::KEPT) read_kept(t, n, list);
        if (learned > 0 && chunk.look[n] > 0) teach(t, n, list);
        if (chunk.open[n] > 0) step_back(t, n, list);
        if (p.dx != nullptr) into_frame(t, n, list);
        if (p.resets == nullptr) return;
        for (int b = 0; b < width; ++b)
            if (p.resets[t * p.batch + row + b])
                for (int c = 0; c < C; ++c) {
                    add(of<T>(p.dfresh[c]) + (row + b) * h, ahead[c] + b * hwidth, h);
                    std::memset(ahead[c] + b * hwidth, 0, hwidth * sizeof(T));
                }
    }

    // The candidates of the open entries of a line; of rows that are masked nobody uses them.
    void read_kept(int64_t t, int64_t n, const int* list) {
        const T* after = of<T>(p.carries[0]) + (t * p.batch + row) * h;
        T* found = values + chunk.base[n];
        take_open(after, h, list, chunk.open[n], found);
        if (learned == 0) return;
        T* gap = change + chunk.base[n];
        const T* old = chunk.past[0] + n * width * chunk.stride(0);
        take_open(old, chunk.stride(0), list, chunk.open[n], gap);
        for (int m = 0; m < chunk.open[n] * width; ++m) gap[m] = found[m] - gap[m];
    }

    // d switch = slope * sum over rows and carries of cotangent * (candidate - old).
    void teach(int64_t t, int64_t n, const int* list) {
        const T* a = logits_at<T>(p, t, row);
        T* to = sum.logits + (p.table == surnn::kShared ? t : t * p.batch + row) * h;
        const T scale = static_cast<T>(p.batch) / static_cast<T>(smaller(p.rows, p.batch));
        const int count = chunk.open[n];
        for (int s = 0; s < chunk.listed(n); ++s) {
            const int i = list[s];
            const int64_t at = s < count ? chunk.base[n] + s * width
                                         : chunk.near_base(n) + (s - count) * learned;
            T gap = 0;
            for (int b = 0; b < learned; ++b)
                if (chunk.look[n] == width || kept(p, t, row + b))
                    for (int c = 0; c < C; ++c)
                        gap += ahead[c][b * hwidth + i] * change[c * plane + at + b];
            const T slope = slope_of(a[i]);
            if (slope != 0) to[i] += slope * scale * gap;
            if (chunk.odd[n] && a[i] != a[i]) to[i] = nan_of<T>();
        }
    }

    void step_back(int64_t t, int64_t n, const int* list) {
        const int count = chunk.open[n], all = count * width;
        const int64_t base = chunk.base[n];
        T* dp = d_pre + base;
        for (int v = 0; v < Cell::PEEPHOLES; ++v)
            for (int i = 0; i < all; ++i) peep[v * line_most + i] = w.peephole[v][list[i / width]];
        for (int i = 0; i < all; i += lanes<T>) {
            Group<T, Cell::VALUES> value;
            Group<T, C> to, from;
            Group<T, 3> holes{};
            for (int v = 0; v < Cell::VALUES; ++v)
                value[v] = load(values + v * plane + base + i);
            for (int c = 0; c < C; ++c) to[c] = load(total + c * line_most + i);
            for (int v = 0; v < Cell::PEEPHOLES; ++v) holes[v] = load(peep + v * line_most + i);
            const Group<T, Q> pre = Cell::template backward<T>(value, to, holes, from);
            for (int q = 0; q < Q; ++q) store(dp + q * plane + i, pre[q]);
            for (int c = 0; c < C; ++c) store(past + c * line_most + i, from[c]);
        }
        if (chunk.odd[n]) {
            const T* a = logits_at<T>(p, t, row);
            for (int s = 0; s < count; ++s)
                if (a[list[s]] != a[list[s]])
                    for (int b = 0; b < width; ++b) {
                        for (int q = 0; q < Q; ++q) dp[q * plane + s * width + b] = nan_of<T>();
                        for (int c = 0; c < C; ++c)
                            past[c * line_most + s * width + b] = nan_of<T>();
                    }
        }
        if (chunk.look[n] < width)
            for (int b = 0; b < width; ++b)
                if (!kept(p, t, row + b))
                    for (int s = 0; s < count; ++s) {
                        for (int q = 0; q < Q; ++q) dp[q * plane + s * width + b] = 0;
                        for (int c = 0; c < C; ++c)
                            past[c * line_most + s * width + b] =
                                total[c * line_most + s * width + b];
                    }
        for (int c = 0; c < C; ++c)
            put_open(ahead[c], hwidth, list, count, past + c * line_most);
        const T* into[G];
        for (int g = 0; g < G; ++g) into[g] = dp + Cell::U[g] * plane;
        spread_open(w.packed, w.shape.stride, w.shape.hblocks, list, count, into, ahead[0], hwidth);
    }

    void into_frame(int64_t t, int64_t n, const int* list) {
        T* out = of<T>(p.dx) + (t * p.batch + row) * d;
        T* to = d == xwidth ? out : frame_d;
        std::memset(to, 0, width * xwidth * sizeof(T));
        const T* into[G];
        for (int g = 0; g < G; ++g) into[g] = d_pre + chunk.base[n] + Cell::W[g] * plane;
        spread_open(w.packed + w.shape.hblocks * G * lanes<T>, w.shape.stride, w.shape.xblocks,
                    list, chunk.open[n], into, to, xwidth);
        if (to != out)
            for (int b = 0; b < width; ++b)
                std::memcpy(out + b * d, to + b * xwidth, d * sizeof(T));
    }

    void collect() {
        const T *du[G], *dw[G];
        for (int g = 0; g < G; ++g) {
            du[g] = d_pre + Cell::U[g] * plane;
            dw[g] = d_pre + Cell::W[g] * plane;
        }
        for (int64_t i = 0; i < h; ++i) {
            const int first = chunk.first_of[2 * i], many = chunk.first_of[2 * i + 1] - first;
            if (many == 0) continue;
            const int *rows = chunk.entry_row + first, *at = chunk.entry_at + first;
            T* gradient = sum.packed + i * w.shape.stride;
            outer<T, G>(gradient, w.shape.hblocks, chunk.past[0], chunk.stride(0), rows, at, many,
                        du);
            outer<T, G>(gradient + w.shape.hblocks * G * lanes<T>, w.shape.xblocks,
                        chunk.past[0] + hwidth, chunk.stride(0), rows, at, many, dw);
            for (int q = 0; q < Q; ++q) {
                T total_q = 0;
                for (int m = 0; m < many; ++m) total_q += d_pre[q * plane + at[m]];
                sum.vector[q][i] += total_q;
            }
            if constexpr (Cell::PEEPHOLES > 0)
                for (int v = 0; v < Cell::PEEPHOLES; ++v)
                    for (int m = 0; m < many; ++m)
                        sum.vector[Q + v][i] += d_pre[Cell::PQ[v] * plane + at[m]] *
                                                values[Cell::PV[v] * plane + at[m]];
        }
    }
};

template <class T, class Cell> struct Backward {
    const Problem& p;
    const Weights<T, Cell>& w;
    Gradients<T, Cell>& sum;

    Backward(const Problem& p_, const Weights<T, Cell>& w_, Gradients<T, Cell>& sum_)
        : p(p_), w(w_), sum(sum_) {}

    // Tiles whose rows teach the switch alike share their memory.
    bool run(int width, int64_t first, int64_t many) {
        for (int64_t same; many > 0; many -= same) {
            const int learned = teachers(first, width);
            for (same = 1; same < many; ++same)
                if (teachers(first + same * width, width) != learned) break;
            const int64_t most = smaller(same, together(width));
            BackwardTile<T, Cell> tile(p, w, sum, width, learned, most);
            if (!tile.allocate()) return false;
            for (int64_t at = 0; at < same; at += most)
                tile.run(first + at * width, smaller(same - at, most));
            first += same * width;
        }
        return true;
    }

  private:
    int teachers(int64_t row, int width) const {
        if (p.dlogits == nullptr || p.table == surnn::kDense) return 0;
        return static_cast<int>(larger(0, smaller(width, p.rows - row)));
    }
};

template <class T, class Cell> bool backward(const Problem& p, Pool& pool) {
    Scratch scratch;
    const Packed<T, Cell::G> shape(p.features, p.inputs);
    const Weights<T, Cell> w(p, packed_weights<T, Cell>(p, pool, scratch));
    if (scratch.failed) return false;

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
