/* Inference on a CPU without XLA and without Python: weights are packed once, by the caller's thread,
   and so is every scan. The library is _kernel.so, built by `python -m surnn_jax.scan.native.build`.

   Arrays are dense, row-major, and all float or all double. Nothing is checked. */
#ifndef SURNN_H
#define SURNN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct surnn_weights surnn_weights;

enum { SURNN_TANH = 0, SURNN_GRU = 1, SURNN_LSTM = 2, SURNN_LSTM_PEEPHOLE = 3 };
enum { SURNN_ALWAYS = 0, SURNN_SHARED = 1, SURNN_PER_EXAMPLE = 2 };

/* Weights for surnn_scan; NULL if memory runs out. `params` are read and not kept: [inputs][features]
   by gate, [features][features] by gate, then the vectors, in the order of the cell's parameters. */
surnn_weights* surnn_pack(int cell, int is_double, int64_t inputs, int64_t features,
                          const void* const* params);

void surnn_free(surnn_weights* weights);

/* Runs [steps][batch][inputs] from the state h, c: [batch][features]. A neuron is open if its logit
   is above 0: logits are [steps][features] if SURNN_SHARED, [steps][batch][features] if
   SURNN_PER_EXAMPLE, not read if SURNN_ALWAYS. The states after every step go to h_out and c_out,
   [steps][batch][features]; for one step these may be h and c. Only an LSTM has c and c_out. Several
   threads may use the same weights. Returns 1, or 0 if memory runs out. */
int surnn_scan(const surnn_weights* weights, int64_t steps, int64_t batch, int table, const void* x,
               const void* logits, const void* h, const void* c, void* h_out, void* c_out);

/* The instruction set in use. */
const char* surnn_kernels(void);

/* Uses the kernels of that name from now on; 0 if this processor or build does not have them. */
int surnn_select(const char* name);

#ifdef __cplusplus
}
#endif

#endif
