// The kernels for one instruction set; compiled once for each, SURNN_ISA being its name.
#include "kernel.h"

#include "backward.h"
#include "feed_forward.h"
#include "forward.h"

namespace {

template <class T> bool forward_of(const Problem& p, Pool& pool) {
    switch (p.cell) {
        case surnn::kTanh: return forward<T, Tanh>(p, pool);
        case surnn::kGru: return forward<T, Gru>(p, pool);
        case surnn::kLstm: return forward<T, Lstm<false>>(p, pool);
        default: return forward<T, Lstm<true>>(p, pool);
    }
}

template <class T> bool backward_of(const Problem& p, Pool& pool) {
    switch (p.cell) {
        case surnn::kTanh: return backward<T, Tanh>(p, pool);
        case surnn::kGru: return backward<T, Gru>(p, pool);
        case surnn::kLstm: return backward<T, Lstm<false>>(p, pool);
        default: return backward<T, Lstm<true>>(p, pool);
    }
}

bool run_forward(const Problem& p, Pool& pool) {
    return p.is_double ? forward_of<double>(p, pool) : forward_of<float>(p, pool);
}

bool run_backward(const Problem& p, Pool& pool) {
    return p.is_double ? backward_of<double>(p, pool) : backward_of<float>(p, pool);
}

template <class T> int64_t pack_of(const Problem& p, void* to) {
    switch (p.cell) {
        case surnn::kTanh: return pack<T, Tanh>(p, to);
        case surnn::kGru: return pack<T, Gru>(p, to);
        default: return pack<T, Lstm<false>>(p, to);
    }
}

int64_t run_pack(const Problem& p, void* to) {
    return p.is_double ? pack_of<double>(p, to) : pack_of<float>(p, to);
}

bool run_feed_forward(const FeedForward& p, Pool& pool) {
    return p.is_double ? feed_forward<double>(p, pool) : feed_forward<float>(p, pool);
}

#define SURNN_TEXT(x) #x
#define SURNN_NAME(x) SURNN_TEXT(x)

}  // namespace

surnn::Kernels surnn::SURNN_ISA() {
    return {SURNN_NAME(SURNN_ISA), run_forward, run_backward, run_pack, run_feed_forward};
}
