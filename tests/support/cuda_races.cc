// What the emulation of a block must notice: each case does one thing that a GPU does not forgive.
// Prints a line a case: its name, and what was noticed.
#include <cstdio>

#include "block.cuh"

using namespace surnn;

template <class F> void tell(const char* name, uint64_t order, F body) {
    now = {};
    now.order = order;
    Block block(0, 2, 1024);
    body(block);
    std::printf("%s: %s\n", name, now.problem.empty() ? "nothing" : now.problem.c_str());
}

int main() {
    const int threads = 2 * kLanes;
    for (uint64_t order : {0, 77}) {
        auto each = [&](const Block& block, auto f) {
            block.phase([&](const Warp& w) { w.each([&](int l) { f(w.index * kLanes + l); }); });
        };
        tell("neighbours with a barrier", order, [&](Block& block) {
            auto a = block.shared<float>(threads), b = block.shared<float>(threads);
            each(block, [&](int i) { a.set(i, i); });
            each(block, [&](int i) { b.set(i, a.get((i + 1) % threads)); });
        });
        tell("neighbours without", order, [&](Block& block) {
            auto a = block.shared<float>(threads), b = block.shared<float>(threads);
            each(block, [&](int i) { a.set(i, i); });
            each(block, [&](int i) {
                b.set(i, a.get((i + 1) % threads));
                a.set(i, i);
            });
        });
        tell("two writers", order, [&](Block& block) {
            auto a = block.shared<float>(threads);
            each(block, [&](int i) { a.set(i / 2, 1); });
        });
        tell("unwritten", order, [&](Block& block) {
            auto a = block.shared<float>(threads);
            each(block, [&](int i) { a.get(i); });
        });
        tell("outside", order, [&](Block& block) {
            auto a = block.shared<float>(threads - 1);
            each(block, [&](int i) { a.set(i, 1); });
        });
        tell("too much memory", order, [&](Block& block) { block.shared<float>(257); });
    }
}
