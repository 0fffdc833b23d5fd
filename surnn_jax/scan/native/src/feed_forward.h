// Norm and gated feed-forward layer of a block, forward and backward, a few rows at a time:
//
//   n = (x - mean x) / sqrt(var x + epsilon) * scale,  y = (silu(n gate) * (n value)) out
//
// or the norm alone, y = n, if there is no hidden layer.
//
// Whatever lies between x and y stays in the cache; the backward pass computes it anew.
#pragma once

#include "matmul.h"
#include "gradients.h"

namespace {

using surnn::FeedForward;

// The parameters, or their gradients, in rows of whole vectors with zeros behind.
template <class T> struct FeedForwardParams {
    T *scale, *gate, *value, *out;

    void allocate(Scratch& scratch, const FeedForward& p) {
        scale = scratch.get<T>(whole<T>(p.width), true);
        gate = scratch.get<T>(p.width * whole<T>(p.hidden), true);
        value = scratch.get<T>(p.width * whole<T>(p.hidden), true);
        out = scratch.get<T>(p.hidden * whole<T>(p.width), true);
    }
};

template <class T> void fill_rows(const void* from, int64_t rows, int64_t columns, T* to) {
    for (int64_t r = 0; r < rows && columns > 0; ++r)
        std::memcpy(to + r * whole<T>(columns), of<T>(from) + r * columns, columns * sizeof(T));
}

template <class T> void turn(const void* from, int64_t rows, int64_t columns, T* to) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c)
            to[c * whole<T>(rows) + r] = of<T>(from)[r * columns + c];
}

// to += from, or to = from; `to` without the zeros behind.
template <class T>
void collect(void* to, int64_t rows, int64_t columns, const T* from, bool first) {
    for (int64_t r = 0; r < rows && columns > 0; ++r) {
        T* row = of<T>(to) + r * columns;
        if (first)
            std::memcpy(row, from + r * whole<T>(columns), columns * sizeof(T));
        else
            add(row, from + r * whole<T>(columns), columns);
    }
}

template <class T> SURNN_INLINE T total(Vec<T> v) {
    T sum = 0;
    for (int l = 0; l < lanes<T>; ++l) sum += v[l];
    return sum;
}

template <class T> class FeedForwardRows {
    static constexpr int64_t kRows = 96;  // a multiple of 6, see `panel`

    const FeedForward& p;
    const FeedForwardParams<T>&w, &turned;  // turned: gate, value and out turned around
    FeedForwardParams<T>& sum;
    const int64_t width, hidden;    // of the problem
    const int64_t across, between;  // the same in whole vectors
    Scratch scratch;
    T *unit, *normed, *inverse;           // [kRows][across] twice, [kRows]
    T *gated, *valued, *product;          // [kRows][between]
    T *result, *d_product, *d_normed;     // [kRows][across], [kRows][between], [kRows][across]

  public:
    FeedForwardRows(const FeedForward& p_, const FeedForwardParams<T>& w_,
                    const FeedForwardParams<T>& turned_, FeedForwardParams<T>& sum_)
        : p(p_), w(w_), turned(turned_), sum(sum_), width(p_.width), hidden(p_.hidden),
          across(whole<T>(p_.width)), between(whole<T>(p_.hidden)) {}

    bool allocate() {
        T **wide[] = {&unit, &normed, &result, &d_normed};
        for (T** rows : wide) *rows = scratch.get<T>(kRows * across, true);
        T **inner[] = {&gated, &valued, &product, &d_product};
        for (T** rows : inner) *rows = scratch.get<T>(kRows * between, true);
        inverse = scratch.get<T>(kRows, true);
        return !scratch.failed;
    }

    void run(int64_t first, int64_t last) {
        for (int64_t row = first; row < last; row += kRows) {
            const int64_t rows = smaller(kRows, last - row);
            norm(row, rows);
            if (hidden > 0) hide(rows);
            if (p.cotangent == nullptr)
                forward(row, rows);
            else
                backward(row, rows);
        }
    }

  private:
    // A row of the problem's, with zeros behind: what was there before may be NaN.
    void take(T* to, const void* from, int64_t row) {
        std::memcpy(to, of<T>(from) + row * width, width * sizeof(T));
        std::memset(to + width, 0, (across - width) * sizeof(T));
    }

    // unit = (x - mean) / deviation, normed = unit * scale.
    void norm(int64_t row, int64_t rows) {
        for (int64_t r = 0; r < rows; ++r) {
            T *u = unit + r * across, *n = normed + r * across;
            take(u, p.x, row + r);
            Vec<T> all{};
            for (int64_t j = 0; j < across; j += lanes<T>) all += load(u + j);
            const T mean = total<T>(all) / static_cast<T>(width);
            for (int64_t j = 0; j < width; ++j) u[j] -= mean;  // not the zeros behind
            Vec<T> squares{};
            for (int64_t j = 0; j < across; j += lanes<T>) squares += load(u + j) * load(u + j);
            const T power = total<T>(squares) / static_cast<T>(width) + static_cast<T>(p.epsilon);
            inverse[r] = 1 / static_cast<T>(__builtin_sqrt(power));
            for (int64_t j = 0; j < across; j += lanes<T>) {
                store(u + j, load(u + j) * inverse[r]);
                store(n + j, load(u + j) * load(w.scale + j));
            }
        }
    }

    // The products with gate and value, and what comes out of the gate.
    void hide(int64_t rows) {
        std::memset(gated, 0, rows * between * sizeof(T));
        std::memset(valued, 0, rows * between * sizeof(T));
        multiply(normed, across, 1, w.gate, gated, rows, width, between);
        multiply(normed, across, 1, w.value, valued, rows, width, between);
    }

    void forward(int64_t row, int64_t rows) {
        if (hidden > 0) open(rows);
        const T* y = hidden > 0 ? result : normed;
        for (int64_t r = 0; r < rows; ++r)
            std::memcpy(of<T>(p.y) + (row + r) * width, y + r * across, width * sizeof(T));
    }

    // result = product of what passes the gate with `out`.
    void open(int64_t rows) {
        for (int64_t i = 0; i < rows * between; i += lanes<T>) {
            const Vec<T> g = load(gated + i);
            store(product + i, g * logistic(g) * load(valued + i));
        }
        std::memset(result, 0, rows * across * sizeof(T));
        multiply(product, between, 1, w.out, result, rows, hidden, across);
    }

    void backward(int64_t row, int64_t rows) {
        T* due = hidden > 0 ? result : d_normed;
        for (int64_t r = 0; r < rows; ++r) take(due + r * across, p.cotangent, row + r);
        if (hidden > 0) hide_back(rows);
        for (int64_t r = 0; r < rows; ++r) norm_back(row + r, r);
    }

    // From the cotangent of y in `result` to d_normed.
    void hide_back(int64_t rows) {
        std::memset(d_product, 0, rows * between * sizeof(T));
        multiply(result, across, 1, turned.out, d_product, rows, width, between);
        for (int64_t i = 0; i < rows * between; i += lanes<T>) {
            const Vec<T> g = load(gated + i), v = load(valued + i), d = load(d_product + i);
            const Vec<T> s = logistic(g);
            store(product + i, g * s * v);
            store(valued + i, d * g * s);
            store(gated + i, d * v * s * (1 + g * (1 - s)));
        }
        multiply(product, 1, between, result, sum.out, hidden, rows, across);
        multiply(normed, 1, across, gated, sum.gate, width, rows, between);
        multiply(normed, 1, across, valued, sum.value, width, rows, between);
        std::memset(d_normed, 0, rows * across * sizeof(T));
        multiply(gated, between, 1, turned.gate, d_normed, rows, hidden, across);
        multiply(valued, between, 1, turned.value, d_normed, rows, hidden, across);
    }

    void norm_back(int64_t row, int64_t r) {
        const T* u = unit + r * across;
        T* d = d_normed + r * across;
        Vec<T> all{}, along{};
        for (int64_t j = 0; j < across; j += lanes<T>) {
            store(sum.scale + j, load(sum.scale + j) + load(d + j) * load(u + j));
            const Vec<T> due = load(d + j) * load(w.scale + j);
            store(d + j, due);
            all += due;
            along += due * load(u + j);
        }
        const T mean = total<T>(all) / static_cast<T>(width);
        const T shared = total<T>(along) / static_cast<T>(width);
        for (int64_t j = 0; j < across; j += lanes<T>)
            store(d + j, (load(d + j) - mean - load(u + j) * shared) * inverse[r]);
        std::memcpy(of<T>(p.dx) + row * width, d, width * sizeof(T));
    }
};

template <class T> bool feed_forward(const FeedForward& p, Pool& pool) {
    constexpr int kMost = Partition::kMost;
    const bool back = p.cotangent != nullptr;
    Scratch scratch;
    FeedForwardParams<T> w, turned{};
    w.allocate(scratch, p);
    if (back) {
        turned.gate = scratch.get<T>(p.hidden * whole<T>(p.width), true);
        turned.value = scratch.get<T>(p.hidden * whole<T>(p.width), true);
        turned.out = scratch.get<T>(p.width * whole<T>(p.hidden), true);
    }
    if (scratch.failed) return false;
    fill_rows(p.scale, 1, p.width, w.scale);
    fill_rows(p.gate, p.width, p.hidden, w.gate);
    fill_rows(p.value, p.width, p.hidden, w.value);
    fill_rows(p.out, p.hidden, p.width, w.out);
    if (back) {
        turn(p.gate, p.width, p.hidden, turned.gate);
        turn(p.value, p.width, p.hidden, turned.value);
        turn(p.out, p.hidden, p.width, turned.out);
    }
    struct Job {
        const FeedForward& p;
        const FeedForwardParams<T>&w, &turned;
        int parts;
        Scratch memory[kMost];
        FeedForwardParams<T> sums[kMost];
        bool failed[kMost];
    };
    static_assert(sizeof(Job) < 512 << 10, "lives on the stack");
    // A thread is worth waking for about a hundred thousand multiplications.
    const int64_t useful = 1 + p.rows * p.width * (1 + p.hidden) / (1 << 17);
    const int64_t parts = smaller(smaller(pool.threads(), kMost), smaller(useful, p.rows));
    Job job{p, w, turned, static_cast<int>(larger(1, parts)), {}, {}, {}};
    pool.run(job.parts, [](void* data, int part) {
        Job& j = *static_cast<Job*>(data);
        if (j.p.cotangent != nullptr) j.sums[part].allocate(j.memory[part], j.p);
        FeedForwardRows<T> rows(j.p, j.w, j.turned, j.sums[part]);
        j.failed[part] = j.memory[part].failed || !rows.allocate();
        if (j.failed[part]) return;
        rows.run(j.p.rows * part / j.parts, j.p.rows * (part + 1) / j.parts);
    }, &job);
    for (int part = 0; part < job.parts; ++part)
        if (job.failed[part]) return false;
    for (int part = 0; back && part < job.parts; ++part) {
        const FeedForwardParams<T>& sum = job.sums[part];
        collect(p.dscale, 1, p.width, sum.scale, part == 0);
        collect(p.dgate, p.width, p.hidden, sum.gate, part == 0);
        collect(p.dvalue, p.width, p.hidden, sum.value, part == 0);
        collect(p.dout, p.hidden, p.width, sum.out, part == 0);
    }
    return true;
}

}  // namespace
