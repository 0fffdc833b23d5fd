// Vectors of the width this object is compiled for, and the elementary functions on them.
// Everything lives in an unnamed namespace: code of one instruction set must never be merged with
// that of another by the linker. For the same reason no standard library templates are used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifdef SURNN_X86
#include <immintrin.h>
#endif
#ifdef SURNN_NEON
#include <arm_neon.h>
#endif

#ifndef SURNN_BYTES
#define SURNN_BYTES 16
#endif
#ifndef SURNN_REGISTERS  // accumulators that fit beside the operands
#define SURNN_REGISTERS 12
#endif

#define SURNN_INLINE inline __attribute__((always_inline))
#define SURNN_APART __attribute__((noinline))  // compiled once, not into each caller

// Loops of constant length over vectors held in registers: they must vanish whole.
#if defined(SURNN_ROLLED)  // the sanitizers' build: they make long code of each iteration
#define SURNN_UNROLL
#define SURNN_UNROLL_FEW
#elif defined(__clang__)
#define SURNN_UNROLL _Pragma("clang loop unroll(full)")
#define SURNN_UNROLL_FEW _Pragma("clang loop unroll_count(4)")
#else
#define SURNN_UNROLL _Pragma("GCC unroll 32")
#define SURNN_UNROLL_FEW _Pragma("GCC unroll 4")
#endif

namespace {

template <class T> struct Of;
template <> struct Of<float> {
    typedef float vec __attribute__((vector_size(SURNN_BYTES)));
    typedef int32_t bits __attribute__((vector_size(SURNN_BYTES)));
};
template <> struct Of<double> {
    typedef double vec __attribute__((vector_size(SURNN_BYTES)));
    typedef int64_t bits __attribute__((vector_size(SURNN_BYTES)));
};
template <class T> using Vec = typename Of<T>::vec;
template <class T> using Bits = typename Of<T>::bits;
template <class T> constexpr int lanes = SURNN_BYTES / static_cast<int>(sizeof(T));

template <class T> SURNN_INLINE Vec<T> load(const T* p) {
    Vec<T> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class T> SURNN_INLINE void store(T* p, Vec<T> v) { std::memcpy(p, &v, sizeof v); }

template <class T> SURNN_INLINE Vec<T> fill(T x) { return x - Vec<T>{}; }

template <class T> SURNN_INLINE Vec<T> shuffle(Vec<T> a, Vec<T> b, Bits<T> index) {
#ifdef __clang__
    Vec<T> r;
    for (int i = 0; i < lanes<T>; ++i)
        r[i] = index[i] < lanes<T> ? a[index[i]] : b[index[i] - lanes<T>];
    return r;
#else
    return __builtin_shuffle(a, b, index);
#endif
}

// One bit for each lane of a comparison.
template <class T> SURNN_INLINE uint64_t signs(Bits<T> all) {
#if defined(SURNN_X86) && SURNN_BYTES == 64
    if constexpr (sizeof(T) == 4) return _mm512_movepi32_mask(reinterpret_cast<__m512i>(all));
    else return _mm512_movepi64_mask(reinterpret_cast<__m512i>(all));
#elif defined(SURNN_X86) && SURNN_BYTES == 32
    if constexpr (sizeof(T) == 4) return _mm256_movemask_ps(reinterpret_cast<__m256>(all));
    else return _mm256_movemask_pd(reinterpret_cast<__m256d>(all));
#elif defined(SURNN_X86)
    if constexpr (sizeof(T) == 4) return _mm_movemask_ps(reinterpret_cast<__m128>(all));
    else return _mm_movemask_pd(reinterpret_cast<__m128d>(all));
#elif defined(SURNN_NEON)
    if constexpr (sizeof(T) == 4) {
        const int32x4_t places = {0, 1, 2, 3};
        const uint32x4_t one = vshrq_n_u32(reinterpret_cast<uint32x4_t>(all), 31);
        return vaddvq_u32(vshlq_u32(one, places));
    } else {
        const int64x2_t places = {0, 1};
        const uint64x2_t one = vshrq_n_u64(reinterpret_cast<uint64x2_t>(all), 63);
        return vaddvq_u64(vshlq_u64(one, places));
    }
#else
    uint64_t bits = 0;
    for (int i = 0; i < lanes<T>; ++i) bits |= static_cast<uint64_t>(all[i] & 1) << i;
    return bits;
#endif
}

// The first N elements at p, repeated over the vector.
template <class T, int N> SURNN_INLINE Vec<T> repeat(const T* p) {
    if constexpr (N == 1) return fill(*p);
    if constexpr (N == lanes<T>) return load(p);
    if constexpr (N * sizeof(T) == 8 && sizeof(T) == 4) {
        double two;
        std::memcpy(&two, p, 8);
        Vec<double> v = two - Vec<double>{};
        Vec<T> r;
        std::memcpy(&r, &v, sizeof r);
        return r;
    }
    // Of what follows at the end, compilers make shuffles that take three times as long.
#if defined(SURNN_X86) && SURNN_BYTES == 64
    if constexpr (N * sizeof(T) == 32)
        return reinterpret_cast<Vec<T>>(
            _mm512_maskz_broadcast_f64x4(0xff, _mm256_loadu_pd(reinterpret_cast<const double*>(p))));
#endif
#if defined(SURNN_X86) && SURNN_BYTES >= 32
    if constexpr (N * sizeof(T) == 16) {
        const __m128 four = _mm_loadu_ps(reinterpret_cast<const float*>(p));
#if SURNN_BYTES == 64
        return reinterpret_cast<Vec<T>>(_mm512_maskz_broadcast_f32x4(0xffff, four));
#else
        return reinterpret_cast<Vec<T>>(_mm256_set_m128(four, four));
#endif
    }
#endif
    Vec<T> v{};
    std::memcpy(&v, p, N * sizeof(T));
    Bits<T> index{};
    SURNN_UNROLL
    for (int i = 0; i < lanes<T>; ++i) index[i] = i % N;
    return shuffle<T>(v, v, index);
}

// Sums of neighbouring pairs: of a, then of b.
template <class T> SURNN_INLINE Vec<T> pairs(Vec<T> a, Vec<T> b) {
#if defined(SURNN_NEON)
    if constexpr (sizeof(T) == 4)
        return reinterpret_cast<Vec<T>>(
            vpaddq_f32(reinterpret_cast<float32x4_t>(a), reinterpret_cast<float32x4_t>(b)));
    else
        return reinterpret_cast<Vec<T>>(
            vpaddq_f64(reinterpret_cast<float64x2_t>(a), reinterpret_cast<float64x2_t>(b)));
#else
    Bits<T> even{};
    SURNN_UNROLL
    for (int i = 0; i < lanes<T>; ++i) even[i] = 2 * i;
    return shuffle<T>(a, b, even) + shuffle<T>(a, b, even + 1);
#endif
}

// exp in float32, within 2 units in the last place; 0 and infinity beyond the range; NaN stays.
SURNN_INLINE Vec<float> exponential(Vec<float> x) {
    using V = Vec<float>;
    const V magic = fill(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const V high = fill(88.72283f), low = fill(-87.33654f);
    V y = x > high ? high : x;
    y = y < low ? low : y;
    V n = (y * 1.44269504f + magic) - magic;
    V r = y - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    V p = fill(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    // 2^n in two factors, so that n = 128 does not overflow.
    V known = n == n ? n : V{};
    Bits<float> e = __builtin_convertvector(known, Bits<float>);
    Bits<float> half = e >> 1;
    Bits<float> one = (half + 127) << 23, two = (e - half + 127) << 23;
    V a, b;
    std::memcpy(&a, &one, sizeof a);
    std::memcpy(&b, &two, sizeof b);
    V result = p * a * b;
    result = x > high ? fill(__builtin_inff()) : result;
    return x < low ? V{} : result;
}

SURNN_INLINE Vec<float> logistic(Vec<float> x) { return 1.0f / (1.0f + exponential(-x)); }

SURNN_INLINE Vec<float> hyperbolic(Vec<float> x) {
    using V = Vec<float>;
    V size = x < 0 ? -x : x;
    V z = x * x;
    V p = fill(-5.70498872745e-3f);
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    V small = p * z * x + x;
    V large = 1.0f - 2.0f / (exponential(size + size) + 1.0f);
    large = x < 0 ? -large : large;
    return size < 0.625f ? small : large;
}

SURNN_INLINE Vec<double> logistic(Vec<double> x) {
    for (int i = 0; i < lanes<double>; ++i) x[i] = 1.0 / (1.0 + __builtin_exp(-x[i]));
    return x;
}

SURNN_INLINE Vec<double> hyperbolic(Vec<double> x) {
    for (int i = 0; i < lanes<double>; ++i) x[i] = __builtin_tanh(x[i]);
    return x;
}

// Working memory of one task, freed together.
class Scratch {
  public:
    ~Scratch() {
        for (int i = 0; i < used_; ++i) std::free(blocks_[i]);
    }
    template <class T> T* get(size_t count, bool zero = false) {
        const size_t bytes = ((count + 1) * sizeof(T) + SURNN_BYTES + 63) / 64 * 64;
        void* block = used_ < kMost ? std::aligned_alloc(64, bytes) : nullptr;
        if (block == nullptr) {
            failed = true;
            return nullptr;
        }
        if (zero) std::memset(block, 0, bytes);
        blocks_[used_++] = block;
        return static_cast<T*>(block);
    }
    bool failed = false;

  private:
    static constexpr int kMost = 96;
    void* blocks_[kMost];
    int used_ = 0;
};

SURNN_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
SURNN_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
SURNN_INLINE int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace
