// The binding to XLA: decodes buffers, checks their sizes, starts the kernels.
#include <algorithm>
#include <atomic>
#include <string>

#include "kernel.h"
#include "xla/ffi/api/ffi.h"
#ifdef SURNN_EMULATION
#include "block.cuh"
#endif

namespace {

namespace ffi = xla::ffi;
using surnn::Scan;

// Takes buffers in order, each with the size it must have; an empty one is an absent one.
template <class List, class Get> class Reader {
  public:
    Reader(List list, Get get, ffi::DataType type) : list_(list), get_(get), type_(type) {}

    void* next(int64_t count, bool optional = false) { return take(count, type_, optional); }
    const uint8_t* flags(int64_t count) {
        return static_cast<const uint8_t*>(take(count, ffi::DataType::PRED, true));
    }
    void* take(int64_t count, ffi::DataType type, bool optional) {
        if (at_ >= list_.size()) return fail("too few buffers");
        ffi::ErrorOr<ffi::AnyBuffer> buffer = get_(list_, at_++);
        if (!buffer.has_value()) return fail("unreadable buffer");
        const int64_t have = static_cast<int64_t>(buffer->element_count());
        if (optional && have == 0) return nullptr;
        if (have != count) return fail("wrong size");
        if (buffer->element_type() != type) return fail("wrong type");
        return buffer->untyped_data();
    }
    bool done() const { return problem.empty() && at_ == list_.size(); }
    std::string problem;

  private:
    void* fail(const char* what) {
        if (problem.empty())
            problem = "surnn cuda: buffer " + std::to_string(at_) + ": " + what;
        return nullptr;
    }
    List list_;
    Get get_;
    ffi::DataType type_;
    size_t at_ = 0;
};

auto get_result = [](const ffi::RemainingRets& list, size_t i) -> ffi::ErrorOr<ffi::AnyBuffer> {
    auto r = list.get<ffi::AnyBuffer>(i);
    if (!r.has_value()) return ffi::Unexpected(r.error());
    return *r.value();
};
auto get_argument = [](const ffi::RemainingArgs& list, size_t i) {
    return list.get<ffi::AnyBuffer>(i);
};

const char* launch(bool back, const Scan& p, void* stream) {
#ifdef SURNN_ONLY
    return p.cell == SURNN_ONLY ? surnn::launch<SURNN_ONLY>(back, p, stream) : "not compiled";
#else
    switch (p.cell) {
        case surnn::kTanh: return surnn::launch<surnn::kTanh>(back, p, stream);
        case surnn::kGru: return surnn::launch<surnn::kGru>(back, p, stream);
        case surnn::kLstm: return surnn::launch<surnn::kLstm>(back, p, stream);
        default: return surnn::launch<surnn::kPeephole>(back, p, stream);
    }
#endif
}

// The arguments are z, logits, masks, then forward start and fresh, backward u, old and cotangent,
// then packed and vectors. The results are forward the carries, backward d_pre, gap, dstart, dfresh.
ffi::Error run(bool back, void* stream, int64_t cell, int64_t table, int64_t rows, Scan p,
               ffi::AnyBuffer z, ffi::RemainingArgs args, ffi::RemainingRets results) {
    if (cell < 0 || cell > surnn::kPeephole || table < 0 || table > surnn::kPerExample ||
        z.dimensions().size() != 3)
        return ffi::Error::InvalidArgument("surnn cuda: unknown cell or table, or z not [T, B, H]");
    const int64_t t = z.dimensions()[0], b = z.dimensions()[1], h = z.dimensions()[2];
    const bool wide = z.element_type() == ffi::DataType::F64;
    if (!wide && z.element_type() != ffi::DataType::F32)
        return ffi::Error::InvalidArgument("surnn cuda: z must be float32 or float64");
    if (h < 1 || h > 1 << 20) return ffi::Error::InvalidArgument("surnn cuda: too many neurons");
    p.steps = t, p.batch = b, p.features = static_cast<int>(h);
    p.quads = static_cast<int>((h + 3) / 4);
    p.cell = static_cast<int>(cell), p.table = static_cast<int>(table);
    p.rows = static_cast<int>(rows);
    p.z[0] = z.untyped_data();

    const int carries = surnn::kCarries[cell], gates = surnn::kGates[cell];
    Reader in(args, get_argument, z.element_type());
    Reader out(results, get_result, z.element_type());
    for (int g = 1; g < gates; ++g) p.z[g] = in.next(t * b * h);
    p.logits = in.next(table == surnn::kPerExample ? t * b * h : t * h, true);
    p.keep = in.flags(t * b);
    p.resets = in.flags(t * b);
    if (back) {
        for (int g = 0; g < gates; ++g) p.u[g] = in.next(t * b * h);
        for (int c = 0; c < carries; ++c) p.old[c] = in.next(t * b * h);
        for (int c = 0; c < carries; ++c) p.cotangent[c] = in.next(t * b * h, true);
    } else {
        for (int c = 0; c < carries; ++c) p.start[c] = in.next(b * h);
        for (int c = 0; c < carries; ++c) p.fresh[c] = in.next(b * h);
    }
    const auto last = args.get<ffi::AnyBuffer>(args.size() - 1 - surnn::kVectors[cell]);
    const bool halved = last.has_value() && last->element_type() == ffi::DataType::BF16;
    if (halved && wide) return ffi::Error::InvalidArgument("surnn cuda: bfloat16 with float64");
    p.width = wide ? surnn::kDouble : halved ? surnn::kRounded : surnn::kFloat;
    p.packed = in.take(h * gates * 4 * p.quads, halved ? ffi::DataType::BF16 : z.element_type(), false);
    for (int v = 0; v < surnn::kVectors[cell]; ++v) p.vector[v] = in.next(h);
    if (back) {
        for (int q = 0; q < surnn::kProducts[cell]; ++q) p.d_pre[q] = out.next(t * b * h);
        p.gap = out.next(t * b * h, true);
        if (p.gap == nullptr) p.teach = 0;
        for (int c = 0; c < carries; ++c) p.dstart[c] = out.next(b * h);
        for (int c = 0; c < carries; ++c) p.dfresh[c] = out.next(b * h);
    } else {
        for (int c = 0; c < carries; ++c) p.carries[c] = out.next(t * b * h);
    }
    if (!in.done() || !out.done())
        return ffi::Error::InvalidArgument(
            !in.problem.empty() ? in.problem
                                : !out.problem.empty() ? out.problem + " (result)"
                                                       : "surnn cuda: wrong number of buffers");
    if (const char* problem = launch(back, p, stream))
        return ffi::Error::Internal(std::string("surnn cuda: ") + problem);
    return ffi::Error::Success();
}

ffi::Error run_forward(void* stream, int64_t cell, int64_t table, int64_t rows, ffi::AnyBuffer z,
                       ffi::RemainingArgs args, ffi::RemainingRets results) {
    return run(false, stream, cell, table, rows, Scan{}, z, args, results);
}

ffi::Error run_backward(void* stream, int64_t cell, int64_t table, int64_t rows, double low,
                        int64_t teach, ffi::AnyBuffer z, ffi::RemainingArgs args,
                        ffi::RemainingRets results) {
    Scan p{};
    p.low = low, p.teach = teach;
    return run(true, stream, cell, table, rows, p, z, args, results);
}

#ifdef SURNN_EMULATION

std::atomic<uint64_t> order{0};

template <class... More> ffi::Error emulated(ffi::Error (*call)(void*, More...), More... more) {
    surnn::now = {};
    surnn::now.order = order;
    return call(nullptr, more...);
}
ffi::Error forward(int64_t cell, int64_t table, int64_t rows, ffi::AnyBuffer z,
                   ffi::RemainingArgs args, ffi::RemainingRets results) {
    return emulated(run_forward, cell, table, rows, z, args, results);
}
ffi::Error backward(int64_t cell, int64_t table, int64_t rows, double low, int64_t teach,
                    ffi::AnyBuffer z, ffi::RemainingArgs args, ffi::RemainingRets results) {
    return emulated(run_backward, cell, table, rows, low, teach, z, args, results);
}
#define SURNN_BIND ffi::Ffi::Bind()

#else

constexpr auto forward = run_forward;
constexpr auto backward = run_backward;
#define SURNN_BIND ffi::Ffi::Bind().Ctx<ffi::PlatformStream<void*>>()

#endif

XLA_FFI_DEFINE_HANDLER(forward_handler, forward,
                       SURNN_BIND.Attr<int64_t>("cell")
                           .Attr<int64_t>("table")
                           .Attr<int64_t>("rows")
                           .Arg<ffi::AnyBuffer>()
                           .RemainingArgs()
                           .RemainingRets());

XLA_FFI_DEFINE_HANDLER(backward_handler, backward,
                       SURNN_BIND.Attr<int64_t>("cell")
                           .Attr<int64_t>("table")
                           .Attr<int64_t>("rows")
                           .Attr<double>("low")
                           .Attr<int64_t>("teach")
                           .Arg<ffi::AnyBuffer>()
                           .RemainingArgs()
                           .RemainingRets());

// Speaks the older of the two versions of the interface, see ../../native/src/ffi.cc.
XLA_FFI_Error* answer(XLA_FFI_Handler* handler, XLA_FFI_CallFrame* frame) {
    XLA_FFI_Error* error = handler(frame);
    auto* extension = frame->extension_start;
    if (error == nullptr && extension != nullptr && extension->type == XLA_FFI_Extension_Metadata) {
        auto* told = reinterpret_cast<XLA_FFI_Metadata_Extension*>(extension)->metadata;
        const XLA_FFI_Api_Version& theirs = frame->api->api_version;
        XLA_FFI_Api_Version& ours = told->api_version;
        if (ours.major_version == theirs.major_version)
            ours.minor_version = std::min(ours.minor_version, theirs.minor_version);
    }
    return error;
}

}  // namespace

extern "C" XLA_FFI_Error* surnn_cuda_forward(XLA_FFI_CallFrame* frame) {
    return answer(forward_handler, frame);
}

extern "C" XLA_FFI_Error* surnn_cuda_backward(XLA_FFI_CallFrame* frame) {
    return answer(backward_handler, frame);
}

#ifdef SURNN_EMULATION
// Draws the order of threads from this number from now on; 0 for that of their numbers.
extern "C" void surnn_cuda_order(uint64_t seed) { order = seed; }
#endif
