// A block of threads, for two compilers. nvcc: as it is. g++: an emulation (emulation.h), in which a
// block's threads are loops, for tests.
//
// A kernel is a function of a Block, and a sequence of phases. A phase is run by every warp of the
// block and ends in a barrier, so within one nobody may read shared memory that another thread of
// the block writes in it. `warp.each` runs its argument for every lane of a warp; what lanes keep
// from one `each` to the next, and bring to `sum` and `ballot`, is in Lanes.
#pragma once

#include <cstdint>

namespace surnn {

// Four values that are loaded at once.
template <class W> struct alignas(sizeof(W) == 8 ? 16 : 4 * sizeof(W)) Quad {
    W v[4];
};

}  // namespace surnn

#ifndef __CUDACC__
#include "emulation.h"
#else

#define SURNN_INLINE __device__ __forceinline__

namespace surnn {

constexpr int kLanes = 32;

// A value of each lane of a warp.
template <class T> struct Lanes {
    T value;
    SURNN_INLINE T& operator[](int) { return value; }
    SURNN_INLINE const T& operator[](int) const { return value; }
};

// Shared memory of a block.
template <class T> struct Shared {
    T* at;
    SURNN_INLINE T get(int i) const { return at[i]; }
    SURNN_INLINE Quad<T> quad(int i) const { return *reinterpret_cast<const Quad<T>*>(at + i); }
    SURNN_INLINE void set(int i, T value) const { at[i] = value; }
};

struct Warp {
    int index, lane;
    template <class F> SURNN_INLINE void each(F f) const { f(lane); }
    // The sum over the lanes, in an order that depends on nothing.
    template <class T> SURNN_INLINE T sum(const Lanes<T>& v) const {
        T total = v.value;
#pragma unroll
        for (int far = kLanes / 2; far > 0; far /= 2)
            total += __shfl_xor_sync(0xffffffffu, total, far);
        return total;
    }
    // A bit for each lane, that of lane 0 the lowest.
    SURNN_INLINE uint32_t ballot(const Lanes<bool>& v) const {
        return __ballot_sync(0xffffffffu, v.value);
    }
};

class Block {
  public:
    SURNN_INLINE explicit Block(char* memory) : memory_(memory) {}
    SURNN_INLINE int index() const { return blockIdx.x; }
    SURNN_INLINE int warps() const { return blockDim.x / kLanes; }
    // Memory for `count` values; in the same order on every thread.
    template <class T> SURNN_INLINE Shared<T> shared(int count) {
        T* at = reinterpret_cast<T*>(memory_);
        memory_ += (count * sizeof(T) + 15) / 16 * 16;
        return {at};
    }
    template <class F> SURNN_INLINE void phase(F f) const {
        f(Warp{static_cast<int>(threadIdx.x / kLanes), static_cast<int>(threadIdx.x % kLanes)});
        __syncthreads();
    }

  private:
    char* memory_;
};

SURNN_INLINE int count_bits(uint32_t bits) { return __popc(bits); }

// Asks for a line of global memory before it is needed.
SURNN_INLINE void prefetch(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

}  // namespace surnn
#endif

namespace surnn {

// bfloat16, rounded to nearest even, without the headers of CUDA.
struct Bfloat16 {
    uint16_t bits;
};

template <class W> struct Operand;
template <> struct Operand<float> {
    static SURNN_INLINE float widen(float v) { return v; }
    static SURNN_INLINE float round(float v) { return v; }
};
template <> struct Operand<double> {
    static SURNN_INLINE double widen(double v) { return v; }
    static SURNN_INLINE double round(double v) { return v; }
};
template <> struct Operand<Bfloat16> {
    static SURNN_INLINE float widen(Bfloat16 v) { return as_float(uint32_t{v.bits} << 16); }
    static SURNN_INLINE float round(float v) {
        const uint32_t bits = as_bits(v);
        if (v != v) return as_float((bits & 0xffff0000u) | 0x400000u);
        return as_float((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
    }

  private:
    static SURNN_INLINE float as_float(uint32_t bits) {
        float v;
        __builtin_memcpy(&v, &bits, 4);
        return v;
    }
    static SURNN_INLINE uint32_t as_bits(float v) {
        uint32_t bits;
        __builtin_memcpy(&bits, &v, 4);
        return bits;
    }
};

}  // namespace surnn
