// What the binding and the kernels agree on. One kernel object is compiled per instruction set.
#pragma once

#include <cstdint>

namespace surnn {

enum Cell : int { kTanh = 0, kGru = 1, kLstm = 2, kPeephole = 3 };
enum Table : int { kDense = 0, kShared = 1, kPerExample = 2 };
enum Slope : int { kWindow = 0, kSigmoid = 1, kIdentity = 2 };

// Carries are ordered h, then c. Pointers that do not apply are null. All arrays are dense and
// row-major, of one floating type.
struct Problem {
    int64_t steps, batch, inputs, features;
    int cell, table;
    bool is_double;
    const void* x;                  // [T, B, D]
    const void* logits;             // [T, H] or [T, B, H]
    const void* start[2];           // [B, H]
    const void* fresh[2];           // [B, H]
    const uint8_t* keep;            // [T, B]
    const uint8_t* resets;          // [T, B]
    const void* input[4];           // [D, H], by gate
    const void* recurrent[4];       // [H, H], by gate
    const void* vector[7];          // [H]: biases, then peepholes
    const void* packed;             // input and recurrent as `Kernels::pack` wrote them, or null
    void* carries[2];               // [T, B, H]: result forward, argument backward
    // Backward only.
    int slope;
    double shape;
    int64_t rows;                   // the switch learns from the first `rows` of the batch
    const void* cotangent[2];       // [T, B, H]
    void* dx;
    void* dlogits;
    void* dstart[2];
    void* dfresh[2];
    void* dinput[4];
    void* drecurrent[4];
    void* dvector[7];
};

// Norm and gated feed-forward layer of a block, see feed_forward.h; the norm alone if `hidden` is 0.
// Backward if there is a cotangent.
struct FeedForward {
    int64_t rows, width, hidden;
    bool is_double;
    double epsilon;                 // added to the variance
    const void* x;                  // [rows, width]
    const void* scale;              // [width]
    const void *gate, *value;       // [width, hidden]
    const void* out;                // [hidden, width]
    void* y;                        // [rows, width]: result forward
    const void* cotangent;          // [rows, width], of y
    void *dx, *dscale, *dgate, *dvalue, *dout;
};

// Runs task(data, 0 .. count - 1), each once, on whichever threads are free.
class Pool {
  public:
    virtual ~Pool() = default;
    virtual int threads() const = 0;
    virtual void run(int count, void (*task)(void*, int), void* data) = 0;
};

using Kernel = bool (*)(const Problem&, Pool&);  // false: out of memory
using Layer = bool (*)(const FeedForward&, Pool&);

// Packs a problem's weights for `forward` of the same kernels; how many bytes, also if `to` is null.
using Pack = int64_t (*)(const Problem&, void* to);

struct Kernels {
    const char* name;
    Kernel forward, backward;
    Pack pack;
    Layer feed_forward;
};

Kernels portable();
#if defined(SURNN_X86)
Kernels avx2();
Kernels avx512();
#elif defined(SURNN_ARM)
Kernels neon();
#endif

// The kernels for this processor, from the portable to the fastest; returns how many.
constexpr int kMostKernels = 3;
int available(Kernels (&all)[kMostKernels]);

// Those in use: the fastest, or as selected.
const Kernels& chosen();

// By cell: gates, vectors and fields of the carry.
constexpr int kGates[] = {1, 3, 4, 4}, kVectors[] = {1, 4, 4, 7}, kCarries[] = {1, 1, 2, 2};

}  // namespace surnn
