// Runs every kernel over small and awkward shapes; built with sanitizers, which do the judging.
// Besides, each instruction set must agree with the portable one, and threads with none.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "kernel.h"
#include "surnn.h"

namespace {

using surnn::Kernels;
using surnn::Problem;

class Threads : public surnn::Pool {
  public:
    explicit Threads(int many) : many_(many) {}
    int threads() const override { return many_; }
    void run(int count, void (*task)(void*, int), void* data) override {
        std::vector<std::thread> all;
        for (int i = 0; i < count; ++i) all.emplace_back(task, data, i);
        for (std::thread& one : all) one.join();
    }

  private:
    int many_;
};

struct Shape {
    int64_t t, b, d, h;
};

using surnn::kCarries, surnn::kGates, surnn::kVectors;

// Every array is a block of its own, so that a step beyond any of them is seen.
template <class T> struct Run {
    std::vector<std::vector<T>> memory;
    std::vector<std::vector<uint8_t>> flags;
    std::vector<T*> results;
    std::vector<int64_t> sizes;
    std::mt19937 random{7};
    Problem problem{};
    int64_t shift = 0;  // elements by which arrays miss the alignment of a block

    T* fresh(int64_t n, double scale) {
        std::normal_distribution<double> draw(0, scale);
        std::vector<T> values(n + shift);
        for (int64_t i = 0; i < n; ++i) values[i + shift] = static_cast<T>(draw(random));
        memory.push_back(std::move(values));
        return memory.back().data() + shift;
    }
    T* result(int64_t n) {
        results.push_back(fresh(n, 1e6));  // whatever was there before must not matter
        sizes.push_back(n);
        return results.back();
    }
    uint8_t* mask(int64_t n, double rate) {
        std::bernoulli_distribution draw(rate);
        std::vector<uint8_t> values(n);
        for (uint8_t& v : values) v = draw(random);
        flags.push_back(std::move(values));
        return flags.back().data();
    }

    bool go(const Kernels& k, Shape s, int cell, int table, int slope, bool masks, int64_t rows,
            int threads) {
        Problem& p = problem;
        p.steps = s.t, p.batch = s.b, p.inputs = s.d, p.features = s.h;
        p.cell = cell, p.table = table, p.is_double = sizeof(T) == 8;
        p.slope = slope, p.shape = 0.5, p.rows = rows;
        p.x = fresh(s.t * s.b * s.d, 1);
        const int64_t logits = table == surnn::kPerExample ? s.t * s.b * s.h : s.t * s.h;
        if (table != surnn::kDense) p.logits = fresh(logits, 0.7);
        if (masks) p.keep = mask(s.t * s.b, 0.7), p.resets = mask(s.t * s.b, 0.2);
        const int64_t state = s.b * s.h;
        for (int c = 0; c < kCarries[cell]; ++c) {
            p.start[c] = fresh(state, 1), p.fresh[c] = fresh(state, 1);
            p.carries[c] = result(s.t * state);
            p.cotangent[c] = fresh(s.t * state, 1);
            p.dstart[c] = result(state), p.dfresh[c] = result(state);
        }
        for (int g = 0; g < kGates[cell]; ++g) {
            p.input[g] = fresh(s.d * s.h, 0.3), p.recurrent[g] = fresh(s.h * s.h, 0.3);
            p.dinput[g] = result(s.d * s.h), p.drecurrent[g] = result(s.h * s.h);
        }
        for (int v = 0; v < kVectors[cell]; ++v)
            p.vector[v] = fresh(s.h, 0.3), p.dvector[v] = result(s.h);
        p.dx = result(s.t * s.b * s.d);
        if (table != surnn::kDense) p.dlogits = result(logits);
        Threads pool(threads);
        return k.forward(p, pool) && k.backward(p, pool);
    }
};

template <class T> bool agree(const Run<T>& a, const Run<T>& b) {
    const double allowed = sizeof(T) == 8 ? 1e-10 : 2e-3;
    for (size_t r = 0; r < a.results.size(); ++r) {
        double size = 1, gap = 0;
        for (int64_t i = 0; i < a.sizes[r]; ++i) {
            size = std::fmax(size, std::fabs(a.results[r][i]));
            const double one = std::fabs(a.results[r][i] - b.results[r][i]);
            if (!(one <= gap)) gap = one;
        }
        if (!(gap <= allowed * size)) return false;
    }
    return true;
}

template <class T> int all(const std::vector<Kernels>& kernels) {
    int failed = 0;
    // The last two are longer than a chunk of the backward pass, and end within one.
    const Shape shapes[] = {{0, 2, 3, 4},    {1, 1, 1, 1},    {9, 3, 5, 7}, {3, 35, 17, 33},
                            {40, 5, 16, 16}, {300, 1, 2, 3}, {270, 9, 1, 2}};
    for (const Shape& s : shapes)
        for (int cell = 0; cell < 4; ++cell)
            for (int table = 0; table < 3; ++table)
                for (int masks = 0; masks < 2; ++masks) {
                    const int slope = (cell + table) % 3;
                    const int64_t rows = masks ? s.b : (s.b + 2) / 3;
                    Run<T> first;
                    if (!first.go(kernels[0], s, cell, table, slope, masks, rows, 1)) ++failed;
                    for (const Kernels& k : kernels) {
                        Run<T> other;
                        other.shift = 1;
                        if (other.go(k, s, cell, table, slope, masks, rows, 3) && agree(first, other))
                            continue;
                        ++failed;
                        std::printf("%s: cell %d, table %d, T %d, B %d, D %d, H %d: differs\n", k.name,
                                    cell, table, int(s.t), int(s.b), int(s.d), int(s.h));
                    }
                }
    return failed;
}

// Sizes that fill neither vectors nor the rows that are taken together.
template <class T> int feed_forward(const std::vector<Kernels>& kernels) {
    int failed = 0;
    const int64_t shapes[][3] = {{1, 1, 1}, {95, 5, 7}, {200, 33, 65}, {97, 16, 0}};
    for (const auto& s : shapes) {
        const auto go = [&](Run<T>& run, const Kernels& k, int threads) {
            const int64_t rows = s[0], width = s[1], hidden = s[2], weights = width * hidden;
            surnn::FeedForward p{};
            p.rows = rows, p.width = width, p.hidden = hidden;
            p.is_double = sizeof(T) == 8, p.epsilon = 1e-3;
            p.x = run.fresh(rows * width, 1), p.scale = run.fresh(width, 1);
            p.y = run.result(rows * width);
            const void* due = run.fresh(rows * width, 1);
            p.dx = run.result(rows * width), p.dscale = run.result(width);
            if (hidden > 0) {
                p.gate = run.fresh(weights, 0.3), p.value = run.fresh(weights, 0.3);
                p.out = run.fresh(weights, 0.3), p.dout = run.result(weights);
                p.dgate = run.result(weights), p.dvalue = run.result(weights);
            }
            Threads pool(threads);
            const bool forward = k.feed_forward(p, pool);
            p.cotangent = due;
            return forward && k.feed_forward(p, pool);
        };
        Run<T> first;
        if (!go(first, kernels[0], 1)) ++failed;
        for (const Kernels& k : kernels) {
            Run<T> other;
            other.shift = 1;
            if (go(other, k, 3) && agree(first, other)) continue;
            ++failed;
            std::printf("%s: feed-forward layer of %d rows, %d, %d: differs\n", k.name, int(s[0]),
                        int(s[1]), int(s[2]));
        }
    }
    return failed;
}

// Several callers at once, each with threads of its own, as XLA has them.
template <class T> int together(const std::vector<Kernels>& kernels) {
    const Shape s{20, 5, 3, 9};
    Run<T> first;
    std::atomic<int> failed{first.go(kernels[0], s, 1, surnn::kPerExample, 0, true, s.b, 1) ? 0 : 1};
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i)
        callers.emplace_back([&, i] {
            Run<T> own;
            const Kernels& k = kernels[i % kernels.size()];
            if (!own.go(k, s, 1, surnn::kPerExample, 0, true, s.b, 2) || !agree(first, own)) ++failed;
        });
    for (std::thread& one : callers) one.join();
    return failed;
}

// The C interface, with weights packed once: bit by bit what `forward` gives, for a sequence, for its
// steps one by one, and in place.
template <class T> int held(const Kernels& k) {
    int failed = 0;
    if (!surnn_select(k.name)) return 1;
    for (int cell = 0; cell < 4; ++cell)
        for (int table = 0; table < 3; ++table) {
            const Shape s{6, 1, 3, 19};
            const int fields = kCarries[cell];
            Run<T> run;
            if (!run.go(k, s, cell, table, 0, false, 1, 1)) ++failed;
            const Problem& p = run.problem;
            const void* all[15] = {};
            int n = 0;
            for (int g = 0; g < kGates[cell]; ++g) all[n++] = p.input[g];
            for (int g = 0; g < kGates[cell]; ++g) all[n++] = p.recurrent[g];
            for (int v = 0; v < kVectors[cell]; ++v) all[n++] = p.vector[v];
            surnn_weights* weights = surnn_pack(cell, sizeof(T) == 8, s.d, s.h, all);
            if (weights == nullptr) return failed + 1;
            std::vector<T> found[2], state[2];
            for (int c = 0; c < 2; ++c) {
                found[c].resize(s.t * s.h);
                const T* first = static_cast<const T*>(p.start[c < fields ? c : 0]);
                state[c].assign(first, first + s.h);
            }
            const auto same = [&](const T* one, int c, int64_t from, int64_t count) {
                const T* wanted = static_cast<const T*>(p.carries[c]) + from;
                failed += std::memcmp(one, wanted, count * sizeof(T)) != 0;
            };
            failed += !surnn_scan(weights, s.t, 1, table, p.x, p.logits, p.start[0], p.start[1],
                                  found[0].data(), found[1].data());
            for (int c = 0; c < fields; ++c) same(found[c].data(), c, 0, s.t * s.h);
            for (int64_t t = 0; t < s.t; ++t) {
                const T* x = static_cast<const T*>(p.x) + t * s.d;
                const T* logits = static_cast<const T*>(p.logits);
                failed += !surnn_scan(weights, 1, 1, table, x, logits ? logits + t * s.h : nullptr,
                                      state[0].data(), state[1].data(), state[0].data(),
                                      state[1].data());
                for (int c = 0; c < fields; ++c) same(state[c].data(), c, t * s.h, s.h);
            }
            surnn_free(weights);
        }
    if (failed) std::printf("%s: weights packed once: %d differ\n", k.name, failed);
    return failed;
}

}  // namespace

int main() {
    Kernels found[surnn::kMostKernels];
    const std::vector<Kernels> kernels(found, found + surnn::available(found));
    int failed = all<float>(kernels) + all<double>(kernels) + together<float>(kernels) +
                 together<double>(kernels) + feed_forward<float>(kernels) +
                 feed_forward<double>(kernels);
    for (const Kernels& k : kernels) failed += held<float>(k) + held<double>(k);
    std::printf("%d instruction sets, %d failures\n", static_cast<int>(kernels.size()), failed);
    return failed != 0;
}
