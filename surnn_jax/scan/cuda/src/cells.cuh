// The pointwise rules of the cells, forward and backward.
//
// `pre` are the sums of products and biases, in the order of the gates (a GRU's recurrent candidate
// sum apart, last); `value` is what the backward rule reads. u(g) is the sum that the product of gate
// g with the state enters.
#pragma once

#include <cmath>

#include "block.cuh"

namespace surnn {

template <class T, int N> struct Group {
    T v[N];
    SURNN_INLINE T& operator[](int i) { return v[i]; }
    SURNN_INLINE const T& operator[](int i) const { return v[i]; }
};

template <class T> SURNN_INLINE T logistic(T a) { return 1 / (1 + std::exp(-a)); }

struct Tanh {
    static constexpr int G = 1, Q = 1, C = 1, VALUES = 1, PEEPHOLES = 0;

    template <class T>
    static SURNN_INLINE Group<T, C> forward(const Group<T, Q>& pre, const Group<T, C>&,
                                            const Group<T, 3>&, Group<T, VALUES>& value) {
        value[0] = std::tanh(pre[0]);
        return {{value[0]}};
    }
    template <class T>
    static SURNN_INLINE Group<T, Q> backward(const Group<T, VALUES>& value, const Group<T, C>& d,
                                             const Group<T, 3>&, Group<T, C>& past) {
        past[0] = 0;
        return {{d[0] * (1 - value[0] * value[0])}};
    }
    static SURNN_INLINE constexpr int u(int g) { return g; }
};

struct Gru {
    static constexpr int G = 3, Q = 4, C = 1, VALUES = 5, PEEPHOLES = 0;

    template <class T>
    static SURNN_INLINE Group<T, C> forward(const Group<T, Q>& pre, const Group<T, C>& old,
                                            const Group<T, 3>&, Group<T, VALUES>& value) {
        const T r = logistic(pre[0]), z = logistic(pre[1]);
        const T n = std::tanh(pre[2] + r * pre[3]);
        value = {{r, z, n, pre[3], old[0]}};
        return {{(1 - z) * n + z * old[0]}};
    }
    template <class T>
    static SURNN_INLINE Group<T, Q> backward(const Group<T, VALUES>& value, const Group<T, C>& d,
                                             const Group<T, 3>&, Group<T, C>& past) {
        const T r = value[0], z = value[1], n = value[2];
        const T dn = d[0] * (1 - z) * (1 - n * n);
        past[0] = d[0] * z;
        return {{dn * value[3] * r * (1 - r), d[0] * (value[4] - n) * z * (1 - z), dn, dn * r}};
    }
    static SURNN_INLINE constexpr int u(int g) { return g == 2 ? 3 : g; }
};

template <bool PEEPHOLE> struct Lstm {
    static constexpr int G = 4, Q = 4, C = 2, VALUES = 6, PEEPHOLES = PEEPHOLE ? 3 : 0;

    template <class T>
    static SURNN_INLINE Group<T, C> forward(const Group<T, Q>& pre, const Group<T, C>& old,
                                            const Group<T, 3>& peep, Group<T, VALUES>& value) {
        T in = pre[0], keep = pre[1], out = pre[3];
        if (PEEPHOLE) {
            in += peep[0] * old[1];
            keep += peep[1] * old[1];
        }
        const T i = logistic(in), f = logistic(keep), g = std::tanh(pre[2]);
        const T c = f * old[1] + i * g;
        if (PEEPHOLE) out += peep[2] * c;
        const T o = logistic(out), tc = std::tanh(c);
        value = {{i, f, g, o, tc, old[1]}};
        return {{o * tc, c}};
    }
    template <class T>
    static SURNN_INLINE Group<T, Q> backward(const Group<T, VALUES>& value, const Group<T, C>& d,
                                             const Group<T, 3>& peep, Group<T, C>& past) {
        const T i = value[0], f = value[1], g = value[2], o = value[3], tc = value[4];
        const T dout = d[0] * tc * o * (1 - o);
        T dc = d[1] + d[0] * o * (1 - tc * tc);
        if (PEEPHOLE) dc += dout * peep[2];
        const T din = dc * g * i * (1 - i), df = dc * value[5] * f * (1 - f);
        past[0] = 0;
        past[1] = dc * f;
        if (PEEPHOLE) past[1] += din * peep[0] + df * peep[1];
        return {{din, df, dc * i * (1 - g * g), dout}};
    }
    static SURNN_INLINE constexpr int u(int g) { return g; }
};

// The sums of neuron i without the products with the state, of which `z` has those with the input
// at `at`.
template <class T, class Cell>
SURNN_INLINE Group<T, Cell::Q> sums(const void* const* vector, int i, const void* const* z,
                                    int64_t at) {
    Group<T, Cell::Q> pre;
#pragma unroll
    for (int q = 0; q < Cell::Q; ++q) {
        pre[q] = static_cast<const T*>(vector[q])[i];
        if (q < Cell::G) pre[q] += static_cast<const T*>(z[q])[at];
    }
    return pre;
}

template <class T, class Cell>
SURNN_INLINE Group<T, 3> peepholes(const void* const* vector, int i) {
    Group<T, 3> holes{};
#pragma unroll
    for (int v = 0; v < Cell::PEEPHOLES; ++v)
        holes[v] = static_cast<const T*>(vector[Cell::Q + v])[i];
    return holes;
}

}  // namespace surnn
