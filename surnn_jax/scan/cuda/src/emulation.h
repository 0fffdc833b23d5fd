// A block of threads as loops, so that g++ compiles the kernels' text for the tests.
//
// The threads of a phase run one after another, in an order that `order` draws anew for every phase.
// Every value in shared memory knows who wrote and who read it in the phase at hand: what two
// threads do to one value between two barriers, at least one of them writing, is a race, and so is
// reading what was never written. Both end in an error of the call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#define SURNN_INLINE inline

namespace surnn {

constexpr int kLanes = 32;

struct Emulation {
    uint64_t order = 0;  // 0: as they are numbered
    int phase = 0, thread = 0;
    std::string problem;

    void report(const char* what) {
        if (problem.empty())
            problem = std::string(what) + " by thread " + std::to_string(thread) + " in phase " +
                      std::to_string(phase);
    }
    uint64_t draw() {
        order ^= order << 13, order ^= order >> 7, order ^= order << 17;
        return order;
    }
};
inline thread_local Emulation now;

template <class T> struct Lanes {
    T value[kLanes];
    T& operator[](int l) { return value[l]; }
    const T& operator[](int l) const { return value[l]; }
};

struct Shadow {
    int written = 0, writer = -1, read = 0, reader = -1;
};
constexpr int kMany = -2;

template <class T> struct Shared {
    T* at;
    Shadow* shadow;
    int count;

    T get(int i) const {
        if (i < 0 || i >= count) return now.report("a read outside an array"), T{};
        Shadow& s = shadow[i];
        if (s.written == 0) now.report("a read of what nobody wrote");
        if (s.written == now.phase && s.writer != now.thread) now.report("a race: a read");
        s.reader = s.read == now.phase && s.reader != now.thread ? kMany : now.thread;
        s.read = now.phase;
        return at[i];
    }
    Quad<T> quad(int i) const { return {{get(i), get(i + 1), get(i + 2), get(i + 3)}}; }
    void set(int i, T value) const {
        if (i < 0 || i >= count) return now.report("a write outside an array");
        Shadow& s = shadow[i];
        if ((s.written == now.phase && s.writer != now.thread) ||
            (s.read == now.phase && s.reader != now.thread))
            now.report("a race: a write");
        s.written = now.phase, s.writer = now.thread;
        at[i] = value;
    }
};

inline std::vector<int> drawn(int count) {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    if (now.order != 0)
        for (int i = count - 1; i > 0; --i) std::swap(order[i], order[now.draw() % (i + 1)]);
    return order;
}

struct Warp {
    int index;

    template <class F> void each(F f) const {
        const uint64_t drawn = now.order == 0 ? 0 : now.draw();
        const int first = static_cast<int>(drawn % kLanes), stride = drawn >> 32 | 1;
        for (int n = 0; n < kLanes; ++n) {
            const int l = (first + n * static_cast<int64_t>(stride & 31)) & (kLanes - 1);
            now.thread = index * kLanes + l;
            f(l);
        }
    }
    template <class T> T sum(const Lanes<T>& v) const {
        Lanes<T> total = v;
        for (int far = kLanes / 2; far > 0; far /= 2) {
            const Lanes<T> before = total;
            for (int l = 0; l < kLanes; ++l) total[l] = before[l] + before[l ^ far];
        }
        return total[0];
    }
    uint32_t ballot(const Lanes<bool>& v) const {
        uint32_t bits = 0;
        for (int l = 0; l < kLanes; ++l) bits |= static_cast<uint32_t>(v[l]) << l;
        return bits;
    }
};

class Block {
  public:
    Block(int index, int warps, int64_t bytes) : index_(index), warps_(warps), left_(bytes) {
        now.phase = 0;
    }
    int index() const { return index_; }
    int warps() const { return warps_; }
    template <class T> Shared<T> shared(int count) {
        left_ -= (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
        if (left_ < 0) now.report("more shared memory than was asked for");
        memory_.emplace_back(new char[count * sizeof(T) + 1]);
        std::memset(memory_.back().get(), 0xff, count * sizeof(T));  // NaN
        shadows_.emplace_back(count);
        return {reinterpret_cast<T*>(memory_.back().get()), shadows_.back().data(), count};
    }
    template <class F> void phase(F f) const {
        ++now.phase;
        for (int warp : drawn(warps_)) f(Warp{warp});
    }
    int64_t left() const { return left_; }

  private:
    int index_, warps_;
    int64_t left_;
    std::vector<std::unique_ptr<char[]>> memory_;
    std::vector<std::vector<Shadow>> shadows_;
};

inline int count_bits(uint32_t bits) { return __builtin_popcount(bits); }
inline void prefetch(const void*) {}

}  // namespace surnn
