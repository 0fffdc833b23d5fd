// The kernels of one cell for every type and number of rows, and their start; compiled once a cell,
// SURNN_CELL being its number.
#include "kernel.h"

#include "backward.cuh"

namespace surnn {
namespace {

constexpr int kOnDevice = 15;
#ifdef __CUDACC__
constexpr int kWorkers = kOnDevice;
#else
constexpr int kWorkers = 4;
#endif
constexpr int kThreads = (kWorkers + 1) * kLanes;  // one warp lists

constexpr int64_t kMostBytes = 99 << 10;           // of a block, on every GPU since 2020

int64_t rounded(int64_t bytes) { return (bytes + 15) / 16 * 16; }

int64_t bytes_of_lists(const Scan& p, int rows) {
    const int64_t words = (p.features + kLanes - 1) / kLanes;
    return rounded(p.table == kDense ? 0 : kRing * p.features * 4) + rounded(kRing * 4) +
           3 * rounded(kRing * words * 4) + rounded(kRing * rows * 4);
}

template <class T, class Cell> int64_t bytes_forward(const Scan& p, int rows) {
    return bytes_of_lists(p, rows) + rounded(2 * rows * 4 * p.quads * sizeof(T)) +
           rounded(Cell::C * rows * p.features * sizeof(T));
}

template <class T, class Cell> int64_t bytes_backward(const Scan& p, int rows, int groups) {
    const int64_t row = rows * p.features * sizeof(T);
    return bytes_of_lists(p, rows) + 2 * rounded(Cell::C * row) + rounded(Cell::VALUES * row) +
           (p.teach > 0 ? rounded(Cell::C * row) : 0) + rounded(Cell::G * row) +
           rounded(groups * rows * 4 * p.quads * sizeof(T));
}

// How many groups of threads share the open neurons of a step: each has a thread a quad.
int groups_of(const Scan& p, int workers) {
    const int fit = spreaders_of(workers) * kLanes / p.quads;
    return fit < 1 ? 1 : fit > 8 ? 8 : fit;
}

template <class T, class Cell> int64_t bytes_of(bool back, const Scan& p, int rows, int groups) {
    return back ? bytes_backward<T, Cell>(p, rows, groups) : bytes_forward<T, Cell>(p, rows);
}

#ifdef __CUDACC__

template <class T, class W, class Cell, int R>
__global__ void __launch_bounds__(kThreads, 1) surnn_forward(const __grid_constant__ Scan p) {
    extern __shared__ __align__(16) char memory[];
    Block block(memory);
    forward<T, W, Cell, R>(p, block);
}

template <class T, class W, class Cell, int R>
__global__ void __launch_bounds__(kThreads, 1) surnn_backward(const __grid_constant__ Scan p, int groups) {
    extern __shared__ __align__(16) char memory[];
    Block block(memory);
    Backward<T, W, Cell, R>(p, block, groups).run(block);
}

template <class T, class W, class Cell, int R>
const char* start(bool back, const Scan& p, void* stream) {
    const int blocks = static_cast<int>((p.batch + R - 1) / R), groups = groups_of(p, kWorkers);
    const int64_t bytes = bytes_of<T, Cell>(back, p, R, groups);
    if (bytes > kMostBytes) return "too many neurons for the memory of a block";
    const void* kernel = back ? reinterpret_cast<const void*>(&surnn_backward<T, W, Cell, R>)
                              : reinterpret_cast<const void*>(&surnn_forward<T, W, Cell, R>);
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(bytes));
    if (error == cudaSuccess) {
        auto* on = static_cast<cudaStream_t>(stream);
        if (back)
            surnn_backward<T, W, Cell, R><<<blocks, kThreads, bytes, on>>>(p, groups);
        else
            surnn_forward<T, W, Cell, R><<<blocks, kThreads, bytes, on>>>(p);
        error = cudaGetLastError();
    }
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

#else

template <class T, class W, class Cell, int R>
const char* start(bool back, const Scan& p, void*) {
    const int blocks = static_cast<int>((p.batch + R - 1) / R), groups = groups_of(p, kWorkers);
    if (bytes_of<T, Cell>(back, p, R, groups_of(p, kOnDevice)) > kMostBytes)
        return "too many neurons for the memory of a block";
    for (int index : drawn(blocks)) {
        Block block(index, kWorkers + 1, bytes_of<T, Cell>(back, p, R, groups));
        if (back)
            Backward<T, W, Cell, R>(p, block, groups).run(block);
        else
            forward<T, W, Cell, R>(p, block);
        if (block.left() != 0) now.report("another amount of shared memory than was asked for");
    }
    return now.problem.empty() ? nullptr : now.problem.c_str();
}

#endif

template <class T, class W, class Cell>
const char* with_rows(bool back, const Scan& p, void* stream) {
    switch (p.rows) {
        case 1: return start<T, W, Cell, 1>(back, p, stream);
        case 2: return start<T, W, Cell, 2>(back, p, stream);
        case 4: return start<T, W, Cell, 4>(back, p, stream);
        default: return "unknown number of rows";
    }
}

template <int NUMBER> struct Numbered;
template <> struct Numbered<kTanh> { using Cell = Tanh; };
template <> struct Numbered<kGru> { using Cell = Gru; };
template <> struct Numbered<kLstm> { using Cell = Lstm<false>; };
template <> struct Numbered<kPeephole> { using Cell = Lstm<true>; };

}  // namespace

template <> const char* launch<SURNN_CELL>(bool back, const Scan& p, void* stream) {
    using Cell = Numbered<SURNN_CELL>::Cell;
    if (p.batch == 0 || (p.steps == 0 && !back)) return nullptr;
    if (p.table == kPerExample && p.rows != 1) return "unknown number of rows";
    switch (p.width) {
        case kFloat: return with_rows<float, float, Cell>(back, p, stream);
        case kRounded: return with_rows<float, Bfloat16, Cell>(back, p, stream);
        case kDouble:
            if (p.rows != 1) return "unknown number of rows";
            return start<double, double, Cell, 1>(back, p, stream);
        default: return "unknown type";
    }
}

}  // namespace surnn
