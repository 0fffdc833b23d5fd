// The pointwise rules of the cells, forward and backward, on vectors of entries.
//
// An entry is one (step, neuron, row). `pre` are its products, bias added, in the order of the
// gates (a GRU's recurrent candidate sum apart, last); `value` is what the backward rule reads.
// U and W say which differentiated product belongs to which gate of each matrix. KEPT: that value
// is the candidate itself, so of what was open the carries after the step have it already.
#pragma once

#include "vec.h"

namespace {

template <class T, int N> struct Group {
    Vec<T> v[N];
    SURNN_INLINE Vec<T>& operator[](int i) { return v[i]; }
    SURNN_INLINE const Vec<T>& operator[](int i) const { return v[i]; }
};

struct Tanh {
    static constexpr int G = 1, Q = 1, C = 1, VALUES = 1, PEEPHOLES = 0;
    static constexpr bool SPLIT = false, KEPT = true;
    static constexpr int U[G] = {0}, W[G] = {0};

    template <class T>
    static SURNN_INLINE Group<T, C> forward(const Group<T, Q>& pre, const Group<T, C>&,
                                            const Group<T, 3>&, Group<T, VALUES>& value) {
        value[0] = hyperbolic(pre[0]);
        return {{value[0]}};
    }
    template <class T>
    static SURNN_INLINE Group<T, Q> backward(const Group<T, VALUES>& value, const Group<T, C>& d,
                                             const Group<T, 3>&, Group<T, C>& past) {
        past[0] = Vec<T>{};
        return {{d[0] * (1 - value[0] * value[0])}};
    }
};

struct Gru {
    static constexpr int G = 3, Q = 4, C = 1, VALUES = 5, PEEPHOLES = 0;
    static constexpr bool SPLIT = true, KEPT = false;
    static constexpr int U[G] = {0, 1, 3}, W[G] = {0, 1, 2};

    template <class T>
    static SURNN_INLINE Group<T, C> forward(const Group<T, Q>& pre, const Group<T, C>& old,
                                            const Group<T, 3>&, Group<T, VALUES>& value) {
        const Vec<T> r = logistic(pre[0]), z = logistic(pre[1]);
        const Vec<T> n = hyperbolic(pre[2] + r * pre[3]);
        value = {{r, z, n, pre[3], old[0]}};
        return {{(1 - z) * n + z * old[0]}};
    }
    template <class T>
    static SURNN_INLINE Group<T, Q> backward(const Group<T, VALUES>& value, const Group<T, C>& d,
                                             const Group<T, 3>&, Group<T, C>& past) {
        const Vec<T> r = value[0], z = value[1], n = value[2];
        const Vec<T> dn = d[0] * (1 - z) * (1 - n * n);
        past[0] = d[0] * z;
        return {{dn * value[3] * r * (1 - r), d[0] * (value[4] - n) * z * (1 - z), dn, dn * r}};
    }
};

template <bool PEEPHOLE> struct Lstm {
    static constexpr int G = 4, Q = 4, C = 2, VALUES = PEEPHOLE ? 7 : 6;
    static constexpr int PEEPHOLES = PEEPHOLE ? 3 : 0;
    static constexpr bool SPLIT = false, KEPT = false;
    static constexpr int U[G] = {0, 1, 2, 3}, W[G] = {0, 1, 2, 3};

    template <class T>
    static SURNN_INLINE Group<T, C> forward(const Group<T, Q>& pre, const Group<T, C>& old,
                                            const Group<T, 3>& peep, Group<T, VALUES>& value) {
        Vec<T> at[3] = {pre[0], pre[1], pre[3]};
        if (PEEPHOLE) {
            at[0] += peep[0] * old[1];
            at[1] += peep[1] * old[1];
        }
        const Vec<T> i = logistic(at[0]), f = logistic(at[1]), g = hyperbolic(pre[2]);
        const Vec<T> c = f * old[1] + i * g;
        if (PEEPHOLE) at[2] += peep[2] * c;
        const Vec<T> o = logistic(at[2]), tc = hyperbolic(c);
        value[0] = i, value[1] = f, value[2] = g, value[3] = o, value[4] = tc, value[5] = old[1];
        if (PEEPHOLE) value[VALUES - 1] = c;
        return {{o * tc, c}};
    }
    template <class T>
    static SURNN_INLINE Group<T, Q> backward(const Group<T, VALUES>& value, const Group<T, C>& d,
                                             const Group<T, 3>& peep, Group<T, C>& past) {
        const Vec<T> i = value[0], f = value[1], g = value[2], o = value[3], tc = value[4];
        const Vec<T> dout = d[0] * tc * o * (1 - o);
        Vec<T> dc = d[1] + d[0] * o * (1 - tc * tc);
        if (PEEPHOLE) dc += dout * peep[2];
        const Vec<T> din = dc * g * i * (1 - i), df = dc * value[5] * f * (1 - f);
        past[0] = Vec<T>{};
        past[1] = dc * f;
        if (PEEPHOLE) past[1] += din * peep[0] + df * peep[1];
        return {{din, df, dc * i * (1 - g * g), dout}};
    }
    // What the gradients of v_i, v_f and v_o multiply: gate q with value v.
    static constexpr int PQ[3] = {0, 1, 3}, PV[3] = {5, 5, VALUES - 1};
};

}  // namespace
