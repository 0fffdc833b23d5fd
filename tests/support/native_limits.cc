// The compiled kernel at its limits, built with sanitizers: more than 2^31 numbers, and a fork.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel.h"

namespace {

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

// A tanh unit with a shared table; all it returns, one after the other.
std::vector<float> run(int64_t t, int64_t b, int64_t d, int64_t h, const float* x,
                       const float* logits, int threads) {
    std::mt19937 random{7};
    auto draw = [&](int64_t n, double scale) {
        std::normal_distribution<double> normal(0, scale);
        std::vector<float> values(n);
        for (float& v : values) v = static_cast<float>(normal(random));
        return values;
    };
    const auto start = draw(b * h, 1), fresh = draw(b * h, 1), input = draw(d * h, 0.01);
    const auto recurrent = draw(h * h, 0.3), bias = draw(h, 0.3);
    std::vector<float> carries(t * b * h), ct(t * b * h, 0), dstart(b * h), dfresh(b * h);
    std::vector<float> dinput(d * h), drecurrent(h * h), dbias(h);
    std::fill(ct.end() - b * h, ct.end(), 1.0f);

    surnn::Problem p{};
    p.steps = t, p.batch = b, p.inputs = d, p.features = h;
    p.cell = surnn::kTanh, p.table = surnn::kShared, p.shape = 0.5, p.rows = b;
    p.x = x, p.logits = logits, p.start[0] = start.data(), p.fresh[0] = fresh.data();
    p.input[0] = input.data(), p.recurrent[0] = recurrent.data(), p.vector[0] = bias.data();
    p.carries[0] = carries.data(), p.cotangent[0] = ct.data();
    p.dstart[0] = dstart.data(), p.dfresh[0] = dfresh.data(), p.dinput[0] = dinput.data();
    p.drecurrent[0] = drecurrent.data(), p.dvector[0] = dbias.data();
    Threads pool(threads);
    const surnn::Kernels k = surnn::portable();
    if (!k.forward(p, pool) || !k.backward(p, pool)) return {};
    std::vector<float> all(carries.end() - b * h, carries.end());
    for (const auto* one : {&dstart, &dinput, &drecurrent, &dbias})
        all.insert(all.end(), one->begin(), one->end());
    return all;
}

bool agree(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.empty() || a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i)
        if (!(std::fabs(a[i] - b[i]) <= 1e-5f * (1 + std::fabs(b[i])))) return false;
    return true;
}

// Pages that are never written take no memory. What opens at the first and the last step alone gives
// what a sequence of these two steps gives.
bool huge() {
    constexpr int64_t d = 1 << 13, h = 2, steps = (int64_t{1} << 18) + 3;
    static_assert(steps * d > int64_t{1} << 31, "the last step lies beyond 32 bits");
    const size_t bytes = steps * d * sizeof(float);
    void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) return false;
    float* many = static_cast<float*>(pages);
    std::vector<float> few(2 * d), closed(steps * h, -1.0f);
    for (int64_t i = 0; i < 2 * d; ++i) few[i] = std::sin(static_cast<float>(i));
    std::memcpy(many, few.data(), d * sizeof(float));
    std::memcpy(many + (steps - 1) * d, few.data() + d, d * sizeof(float));
    for (int64_t i = 0; i < h; ++i) closed[i] = closed[(steps - 1) * h + i] = 1;
    const std::vector<float> open(2 * h, 1.0f);
    const bool same = agree(run(steps, 1, d, h, many, closed.data(), 1),
                            run(2, 1, d, h, few.data(), open.data(), 1));
    munmap(pages, bytes);
    return same;
}

// A child that is forked after the kernels ran with threads runs them with threads of its own.
bool forked() {
    const int64_t t = 20, b = 37, d = 3, h = 9;
    std::vector<float> x(t * b * d, 0.5f), logits(t * h, 1.0f);
    const auto want = run(t, b, d, h, x.data(), logits.data(), 3);
    const pid_t child = fork();
    if (child == 0) _exit(agree(run(t, b, d, h, x.data(), logits.data(), 3), want) ? 0 : 1);
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

}  // namespace

int main() {
    const bool right[] = {huge(), forked()};
    std::printf("huge %d, forked %d\n", right[0], right[1]);
    return right[0] && right[1] ? 0 : 1;
}
