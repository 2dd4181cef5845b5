// Stream: where all work of one Ops is queued, and how a failure there becomes an Error that names
// the kernel and the layer.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/error.h"

namespace dsctl::engine::cuda {

/// Throws Error "cuda: <what>: <CUDA's text>" unless `status` is success.
void check_cuda(cudaError_t status, const std::string& what);

/// How kernels are started.
struct StreamOptions {
  /// Programmatic dependent launch: a kernel's blocks start while the previous kernel ends. Needs
  /// compute capability 9.0.
  bool dependent_launch = false;
  /// Waits for each kernel, so that an error names the one that caused it.
  bool sync_each_kernel = false;
  /// Measures every kernel with events; only where no graph is captured.
  bool profile = false;
};

/// What all starts of one kernel took together.
struct KernelTime {
  int64_t n_launches = 0;
  double total_us = 0.0;
};

/// One thread at a time. A CUDA error is for good: after it every call throws the same message.
class Stream {
 public:
  explicit Stream(const StreamOptions& options);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  bool alive() const { return failure_.empty(); }

  /// What the kernels that follow belong to, for messages: "attention of layer 3". The text is a
  /// literal; layer_idx < 0: none.
  void enter(const char* operation, int layer_idx = -1) {
    operation_ = operation;
    layer_idx_ = layer_idx;
  }

  /// Starts `kernel` on `grid` blocks of `n_threads`.
  template <typename... Params, typename... Args>
  void launch(const char* kernel_name, void (*kernel)(Params...), dim3 grid, int n_threads,
              size_t shared_bytes, const Args&... args) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(static_cast<unsigned>(n_threads));
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream_;
    config.attrs = &attribute;
    config.numAttrs = options_.dependent_launch ? 1 : 0;
    if (options_.profile) mark_time("");
    after_launch(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), kernel_name);
  }

  void copy_to_device(void* to, const void* from, size_t n_bytes);
  void copy_to_host(void* to, const void* from, size_t n_bytes);
  void fill_zero(void* to, size_t n_bytes);
  /// Waits until all queued work is done.
  void synchronize();
  /// Throws Error when `status` is none; `what` says what was tried.
  void check(cudaError_t status, const char* what);

  void begin_capture();
  cudaGraphExec_t end_capture();
  void launch_graph(cudaGraphExec_t graph);
  bool capturing() const { return capturing_; }

  /// The kernels measured since the last call, by name. Waits for them.
  std::map<std::string, KernelTime> take_profile();

 private:
  /// A time on the GPU: the end of `kernel_name`, or the begin of the next one when it is empty.
  struct TimeMark {
    const char* kernel_name;
    cudaEvent_t event;
  };

  void after_launch(cudaError_t status, const char* kernel_name);
  void mark_time(const char* kernel_name);

  StreamOptions options_;
  cudaStream_t stream_ = nullptr;
  bool capturing_ = false;
  const char* operation_ = "loading";
  int layer_idx_ = -1;
  const char* last_kernel_ = "none";
  std::string failure_;
  std::vector<TimeMark> time_marks_;
};

}  // namespace dsctl::engine::cuda
