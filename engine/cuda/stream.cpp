#include "engine/cuda/stream.h"

namespace dsctl::engine::cuda {

void check_cuda(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is not for good shall not be found by a later call
  throw Error("cuda: " + what + ": " + cudaGetErrorString(status));
}

Stream::Stream(const StreamOptions& options) : options_(options) {
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
}

Stream::~Stream() {
  for (const TimeMark& mark : time_marks_)
    cudaEventDestroy(mark.event);
  cudaStreamDestroy(stream_);
}

void Stream::check(cudaError_t status, const char* what) {
  if (!alive()) throw Error(failure_);
  if (status == cudaSuccess) return;
  failure_ = std::string("cuda: ") + what + " in " + operation_;
  if (layer_idx_ >= 0) failure_ += " of layer " + std::to_string(layer_idx_);
  failure_ += std::string(": ") + cudaGetErrorString(status) +
              " (last kernel started: " + last_kernel_ + ")";
  if (!options_.sync_each_kernel) failure_ += ", set DSCTL_CUDA_SYNC=1 to find the kernel";
  throw Error(failure_);
}

void Stream::after_launch(cudaError_t status, const char* kernel_name) {
  last_kernel_ = kernel_name;
  check(status, kernel_name);
  if (options_.profile) mark_time(kernel_name);
  if (options_.sync_each_kernel && !capturing_) {
    check(cudaStreamSynchronize(stream_), kernel_name);
  }
}

void Stream::mark_time(const char* kernel_name) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, 0), "creating an event");
  time_marks_.push_back({kernel_name, event});
  check(cudaEventRecord(event, stream_), "recording an event");
}

std::map<std::string, KernelTime> Stream::take_profile() {
  synchronize();
  std::map<std::string, KernelTime> times;
  for (size_t i = 0; i + 1 < time_marks_.size(); i += 2) {
    float milliseconds = 0.0f;
    check(cudaEventElapsedTime(&milliseconds, time_marks_[i].event, time_marks_[i + 1].event),
          "reading a time");
    KernelTime& time = times[time_marks_[i + 1].kernel_name];
    ++time.n_launches;
    time.total_us += 1e3 * static_cast<double>(milliseconds);
  }
  for (const TimeMark& mark : time_marks_)
    cudaEventDestroy(mark.event);
  time_marks_.clear();
  return times;
}

void Stream::copy_to_device(void* to, const void* from, size_t n_bytes) {
  check(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyHostToDevice, stream_), "copying to the GPU");
}

void Stream::copy_to_host(void* to, const void* from, size_t n_bytes) {
  check(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDeviceToHost, stream_),
        "copying from the GPU");
}

void Stream::fill_zero(void* to, size_t n_bytes) {
  check(cudaMemsetAsync(to, 0, n_bytes, stream_), "clearing memory");
}

void Stream::synchronize() {
  check(cudaStreamSynchronize(stream_), "waiting for the GPU");
}

void Stream::begin_capture() {
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "beginning a graph");
  capturing_ = true;
}

cudaGraphExec_t Stream::end_capture() {
  capturing_ = false;
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream_, &graph), "ending a graph");
  cudaGraphExec_t exec = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "making a graph");
  return exec;
}

void Stream::launch_graph(cudaGraphExec_t graph) {
  last_kernel_ = "a graph of the step";
  check(cudaGraphLaunch(graph, stream_), "starting a graph");
}

}  // namespace dsctl::engine::cuda
