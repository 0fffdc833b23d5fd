// What the binding and the kernels agree on.
#pragma once

#include <cstdint>

namespace surnn {

enum Cell : int { kTanh = 0, kGru = 1, kLstm = 2, kPeephole = 3 };
enum Table : int { kDense = 0, kShared = 1, kPerExample = 2 };
enum Width : int { kFloat = 0, kDouble = 1, kRounded = 2 };  // kRounded: bfloat16 operands

constexpr int kGates[] = {1, 3, 4, 4}, kProducts[] = {1, 4, 4, 4};
constexpr int kCarries[] = {1, 1, 2, 2}, kVectors[] = {1, 4, 4, 7};

// Carries are ordered h, then c. Pointers that do not apply are null. All arrays are dense, row-major
// and of the state's type; `packed` is of the operands'.
struct Scan {
    int64_t steps, batch;
    int features, quads;            // H, and how many groups of four hold a row of `packed`
    int cell, table, width;
    int rows;                       // of the batch a block: 1, 2 or 4; 1 if examples have own tables
    const void* logits;             // [T, H] or [T, B, H]
    const uint8_t* keep;            // [T, B]
    const uint8_t* resets;          // [T, B]
    const void* z[4];               // [T, B, H], by gate: products with the input
    const void* packed;             // [H, G, 4 quads]: packed[i, g, k] = U_g[k, i], padded with 0
    const void* vector[7];          // [H]: biases, then peepholes
    // Forward.
    const void* start[2];           // [B, H]
    const void* fresh[2];           // [B, H]
    void* carries[2];               // [T, B, H]
    // Backward.
    const void* u[4];               // [T, B, H], by gate: products with the state
    const void* old[2];             // [T, B, H]: the carries before the steps
    const void* cotangent[2];       // [T, B, H]
    double low;                     // logits from here to 0 need `gap`
    int64_t teach;                  // rows of the batch that need it; 0 if none
    void* d_pre[4];                 // [T, B, H]: of the rule's sums
    void* gap;                      // [T, B, H]: of the switch's value
    void* dstart[2];                // [B, H]
    void* dfresh[2];                // [B, H]
};

// Starts the kernel of a cell on a stream of CUDA; in the emulation, runs it. Why not, or null.
template <int CELL> const char* launch(bool back, const Scan& scan, void* stream);
template <> const char* launch<kTanh>(bool back, const Scan& scan, void* stream);
template <> const char* launch<kGru>(bool back, const Scan& scan, void* stream);
template <> const char* launch<kLstm>(bool back, const Scan& scan, void* stream);
template <> const char* launch<kPeephole>(bool back, const Scan& scan, void* stream);

}  // namespace surnn
