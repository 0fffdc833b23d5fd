// The interface in C, and the choice of the kernels for this processor.
#include "surnn.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "kernel.h"

using surnn::Kernels;
using surnn::Problem;

int surnn::available(Kernels (&all)[kMostKernels]) {
    int many = 0;
    all[many++] = portable();
#if defined(SURNN_X86)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all[many++] = avx2();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        all[many++] = avx512();
#elif defined(SURNN_ARM)
    all[many++] = neon();
#endif
    return many;
}

namespace {

Kernels best() {
    Kernels all[surnn::kMostKernels];
    return all[surnn::available(all) - 1];
}

Kernels in_use = best();

// The caller's thread alone.
class Alone : public surnn::Pool {
  public:
    int threads() const override { return 1; }
    void run(int count, void (*task)(void*, int), void* data) override {
        for (int i = 0; i < count; ++i) task(data, i);
    }
};

void* memory(int64_t bytes) {
    return std::aligned_alloc(64, (static_cast<size_t>(bytes) + 64) / 64 * 64);
}

}  // namespace

const Kernels& surnn::chosen() { return in_use; }

extern "C" {

struct surnn_weights {
    Kernels kernels;
    Problem problem;  // sizes, packed weights and vectors
    void* vectors;
    void* packed;
};

surnn_weights* surnn_pack(int cell, int is_double, int64_t inputs, int64_t features,
                          const void* const* params) {
    Problem p{};
    p.cell = cell, p.is_double = is_double != 0, p.inputs = inputs, p.features = features;
    const int gates = surnn::kGates[cell], vectors = surnn::kVectors[cell];
    for (int g = 0; g < gates; ++g) p.input[g] = params[g], p.recurrent[g] = params[gates + g];
    const int64_t bytes = features * (is_double ? 8 : 4);
    auto* made = new (std::nothrow) surnn_weights{in_use, {}, memory(vectors * bytes), nullptr};
    if (made == nullptr) return nullptr;
    made->packed = memory(made->kernels.pack(p, nullptr));
    if (made->vectors == nullptr || made->packed == nullptr) {
        surnn_free(made);
        return nullptr;
    }
    made->kernels.pack(p, made->packed);
    for (int g = 0; g < gates; ++g) p.input[g] = p.recurrent[g] = nullptr;
    for (int v = 0; v < vectors; ++v) {
        char* to = static_cast<char*>(made->vectors) + v * bytes;
        std::memcpy(to, params[2 * gates + v], bytes);
        p.vector[v] = to;
    }
    p.packed = made->packed;
    made->problem = p;
    return made;
}

void surnn_free(surnn_weights* weights) {
    if (weights == nullptr) return;
    std::free(weights->vectors);
    std::free(weights->packed);
    delete weights;
}

int surnn_scan(const surnn_weights* weights, int64_t steps, int64_t batch, int table, const void* x,
               const void* logits, const void* h, const void* c, void* h_out, void* c_out) {
    Problem p = weights->problem;
    p.steps = steps, p.batch = batch, p.table = table, p.x = x, p.logits = logits;
    p.start[0] = h, p.start[1] = c, p.carries[0] = h_out, p.carries[1] = c_out;
    Alone pool;
    return weights->kernels.forward(p, pool);
}

const char* surnn_kernels(void) { return in_use.name; }

int surnn_select(const char* name) {
    Kernels all[surnn::kMostKernels];
    const int many = surnn::available(all);
    for (int i = 0; i < many; ++i)
        if (std::strcmp(all[i].name, name) == 0) {
            in_use = all[i];
            return 1;
        }
    return 0;
}

}  // extern "C"
