// The binding to XLA: decodes buffers and checks their sizes.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "kernel.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using surnn::Problem;

std::atomic<int> most_threads{0};  // 0: as many as XLA has

// XLA's own threads. The caller works too and waits only for tasks that have begun, so a pool whose
// threads are all busy, even with callers of this, cannot stall it.
class XlaPool : public surnn::Pool {
  public:
    explicit XlaPool(ffi::ThreadPool& pool) : pool_(pool) {
        const int64_t have = pool.num_threads(), most = most_threads;
        threads_ = static_cast<int>(most > 0 && most < have ? most : have);
        if (threads_ < 1) threads_ = 1;
    }

    int threads() const override { return threads_; }

    void run(int count, void (*task)(void*, int), void* data) override {
        if (count == 1 || threads_ == 1) {
            for (int i = 0; i < count; ++i) task(data, i);
            return;
        }
        auto job = std::make_shared<Job>();
        job->count = count;
        job->task = task;
        job->data = data;
        for (int i = 1; i < count && i < threads_; ++i) pool_.Schedule([job] { job->work(); });
        job->work();
        std::unique_lock<std::mutex> lock(job->mutex);
        job->finished.wait(lock, [&] { return job->done == count; });
    }

  private:
    struct Job {
        int count = 0;
        void (*task)(void*, int) = nullptr;
        void* data = nullptr;
        std::atomic<int> next{0};
        int done = 0;
        std::mutex mutex;
        std::condition_variable finished;

        void work() {
            for (int i; (i = next.fetch_add(1)) < count;) {
                task(data, i);
                std::lock_guard<std::mutex> lock(mutex);
                if (++done == count) finished.notify_all();
            }
        }
    };
    ffi::ThreadPool& pool_;
    int threads_;
};

// Takes buffers in order, each with the size it must have; an empty one is an absent one.
template <class List, class Get> class Reader {
  public:
    Reader(List list, Get get, ffi::DataType type) : list_(list), get_(get), type_(type) {}

    void* next(int64_t count, bool optional = false, bool flags = false) {
        if (at_ >= list_.size()) return fail("too few buffers");
        ffi::ErrorOr<ffi::AnyBuffer> buffer = get_(list_, at_++);
        if (!buffer.has_value()) return fail("unreadable buffer");
        const int64_t have = static_cast<int64_t>(buffer->element_count());
        if (optional && have == 0) return nullptr;
        if (have != count) return fail("size");
        if (buffer->element_type() != (flags ? ffi::DataType::PRED : type_)) return fail("type");
        return buffer->untyped_data();
    }
    bool done() const { return problem.empty() && at_ == list_.size(); }
    std::string problem;

  private:
    void* fail(const char* what) {
        if (problem.empty())
            problem = "surnn native: buffer " + std::to_string(at_) + ": wrong " + what;
        return nullptr;
    }
    List list_;
    Get get_;
    ffi::DataType type_;
    size_t at_ = 0;
};

using surnn::kCarries, surnn::kGates, surnn::kVectors;

auto get_result = [](const ffi::RemainingRets& list, size_t i) -> ffi::ErrorOr<ffi::AnyBuffer> {
    auto r = list.get<ffi::AnyBuffer>(i);
    if (!r.has_value()) return ffi::Unexpected(r.error());
    return *r.value();
};
auto get_argument = [](const ffi::RemainingArgs& list, size_t i) { return list.get<ffi::AnyBuffer>(i); };

ffi::Error run(bool back, ffi::ThreadPool& threads, int64_t cell, int64_t table, int64_t slope,
               double shape, int64_t rows, ffi::AnyBuffer x, ffi::RemainingArgs args,
               ffi::RemainingRets results) {
    Problem p{};
    if (cell < 0 || cell > surnn::kPeephole || table < 0 || table > surnn::kPerExample ||
        x.dimensions().size() != 3)
        return ffi::Error::InvalidArgument("surnn native: unknown cell or table, or x not [T, B, D]");
    p.steps = x.dimensions()[0], p.batch = x.dimensions()[1], p.inputs = x.dimensions()[2];
    p.cell = static_cast<int>(cell), p.table = static_cast<int>(table);
    p.is_double = x.element_type() == ffi::DataType::F64;
    if (!p.is_double && x.element_type() != ffi::DataType::F32)
        return ffi::Error::InvalidArgument("surnn native: x must be float32 or float64");
    p.x = x.untyped_data();
    if (args.size() < 5) return ffi::Error::InvalidArgument("surnn native: too few arguments");
    const auto bias = args.get<ffi::AnyBuffer>(args.size() - 1);  // the last argument is [H]
    if (!bias.has_value()) return bias.error();
    p.features = static_cast<int64_t>(bias->element_count());
    p.slope = static_cast<int>(slope), p.shape = shape, p.rows = rows;

    const int64_t t = p.steps, b = p.batch, d = p.inputs, h = p.features;
    const int carries = kCarries[cell];
    Reader in(args, get_argument, x.element_type());
    Reader out(results, get_result, x.element_type());
    p.logits = in.next(table == surnn::kPerExample ? t * b * h : t * h, true);
    p.keep = static_cast<const uint8_t*>(in.next(t * b, true, true));
    p.resets = static_cast<const uint8_t*>(in.next(t * b, true, true));
    for (int c = 0; c < carries; ++c) p.start[c] = in.next(b * h);
    for (int c = 0; c < carries; ++c) p.fresh[c] = in.next(b * h);
    for (int c = 0; c < carries; ++c)
        if (back) p.carries[c] = in.next(t * b * h);
    for (int c = 0; c < carries; ++c)
        if (back) p.cotangent[c] = in.next(t * b * h, true);
    for (int g = 0; g < kGates[cell]; ++g) p.input[g] = in.next(d * h);
    for (int g = 0; g < kGates[cell]; ++g) p.recurrent[g] = in.next(h * h);
    for (int v = 0; v < kVectors[cell]; ++v) p.vector[v] = in.next(h);
    if (back) {
        p.dx = out.next(t * b * d, true);
        p.dlogits = out.next(table == surnn::kPerExample ? t * b * h : t * h, true);
        for (int c = 0; c < carries; ++c) p.dstart[c] = out.next(b * h);
        for (int c = 0; c < carries; ++c) p.dfresh[c] = out.next(b * h);
        for (int g = 0; g < kGates[cell]; ++g) p.dinput[g] = out.next(d * h);
        for (int g = 0; g < kGates[cell]; ++g) p.drecurrent[g] = out.next(h * h);
        for (int v = 0; v < kVectors[cell]; ++v) p.dvector[v] = out.next(h);
    } else {
        for (int c = 0; c < carries; ++c) p.carries[c] = out.next(t * b * h);
    }
    if (!in.done() || !out.done())
        return ffi::Error::InvalidArgument(in.problem.empty() ? out.problem.empty()
            ? "surnn native: wrong number of buffers" : out.problem + " (result)" : in.problem);
    XlaPool pool(threads);
    const surnn::Kernels& kernels = surnn::chosen();
    if (!(back ? kernels.backward : kernels.forward)(p, pool))
        return ffi::Error(ffi::ErrorCode::kResourceExhausted, "surnn native: out of memory");
    return ffi::Error::Success();
}

ffi::Error forward(ffi::ThreadPool threads, int64_t cell, int64_t table, ffi::AnyBuffer x,
                   ffi::RemainingArgs args, ffi::RemainingRets results) {
    return run(false, threads, cell, table, 0, 0, 0, x, args, results);
}

ffi::Error backward(ffi::ThreadPool threads, int64_t cell, int64_t table, int64_t slope, double shape,
                    int64_t rows, ffi::AnyBuffer x, ffi::RemainingArgs args,
                    ffi::RemainingRets results) {
    return run(true, threads, cell, table, slope, shape, rows, x, args, results);
}

// Arguments: scale and, if the layer is more than a norm, gate, value and out; then, backward, the
// cotangent of y. Results: y, or what belongs to x and to the parameters.
ffi::Error feed_forward(ffi::ThreadPool threads, double epsilon, ffi::AnyBuffer x,
                        ffi::RemainingArgs args, ffi::RemainingRets results) {
    if (x.dimensions().size() != 2 || args.size() < 1)
        return ffi::Error::InvalidArgument("surnn native: x not [N, M], or too few arguments");
    surnn::FeedForward p{};
    p.rows = x.dimensions()[0], p.width = x.dimensions()[1];
    p.is_double = x.element_type() == ffi::DataType::F64;
    if (!p.is_double && x.element_type() != ffi::DataType::F32)
        return ffi::Error::InvalidArgument("surnn native: x must be float32 or float64");
    p.epsilon = epsilon;
    p.x = x.untyped_data();
    if (args.size() >= 4) {
        const auto gate = args.get<ffi::AnyBuffer>(1);
        if (!gate.has_value()) return gate.error();
        if (gate->dimensions().size() != 2)
            return ffi::Error::InvalidArgument("surnn native: the gate's kernel is not a matrix");
        p.hidden = gate->dimensions()[1];
    }
    const int64_t size = p.rows * p.width, weights = p.width * p.hidden;
    Reader in(args, get_argument, x.element_type());
    Reader out(results, get_result, x.element_type());
    p.scale = in.next(p.width);
    if (p.hidden > 0) p.gate = in.next(weights), p.value = in.next(weights), p.out = in.next(weights);
    if (args.size() == (p.hidden > 0 ? 5 : 2)) {
        p.cotangent = in.next(size);
        p.dx = out.next(size), p.dscale = out.next(p.width);
        if (p.hidden > 0)
            p.dgate = out.next(weights), p.dvalue = out.next(weights), p.dout = out.next(weights);
    } else {
        p.y = out.next(size);
    }
    if (!in.done() || !out.done())
        return ffi::Error::InvalidArgument("surnn native: feed-forward layer: " + in.problem +
                                           out.problem);
    XlaPool pool(threads);
    if (!surnn::chosen().feed_forward(p, pool))
        return ffi::Error(ffi::ErrorCode::kResourceExhausted, "surnn native: out of memory");
    return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(feed_forward_handler, feed_forward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<double>("epsilon")
                           .Arg<ffi::AnyBuffer>()
                           .RemainingArgs()
                           .RemainingRets());

XLA_FFI_DEFINE_HANDLER(forward_handler, forward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<int64_t>("cell")
                           .Attr<int64_t>("table")
                           .Arg<ffi::AnyBuffer>()
                           .RemainingArgs()
                           .RemainingRets());

XLA_FFI_DEFINE_HANDLER(backward_handler, backward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<int64_t>("cell")
                           .Attr<int64_t>("table")
                           .Attr<int64_t>("slope")
                           .Attr<double>("shape")
                           .Attr<int64_t>("rows")
                           .Arg<ffi::AnyBuffer>()
                           .RemainingArgs()
                           .RemainingRets());

// Asked which version of the interface it speaks, a handler names that of the headers it was compiled
// with, and an older XLA refuses it. These use nothing that any XLA of the same major version lacks, so
// they speak the version of the two that is older.
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

extern "C" XLA_FFI_Error* surnn_forward(XLA_FFI_CallFrame* frame) {
    return answer(forward_handler, frame);
}

extern "C" XLA_FFI_Error* surnn_backward(XLA_FFI_CallFrame* frame) {
    return answer(backward_handler, frame);
}

extern "C" XLA_FFI_Error* surnn_feed_forward(XLA_FFI_CallFrame* frame) {
    return answer(feed_forward_handler, frame);
}

// At most so many threads; 0 for as many as XLA has.
extern "C" void surnn_threads(int most) { most_threads = most; }
