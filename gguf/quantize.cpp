#include "gguf/quantize.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

#include "gguf/error.h"
#include "gguf/gguf_stream_writer.h"
#include "gguf/gguf_writer.h"
#include "gguf/printable.h"
#include "gguf/quants/all.h"
#include "gguf/quants/encode.h"
#include "gguf/split.h"

namespace dsctl::gguf {
namespace {

/// f32 values that a thread works on at once: they and their codes stay in a core's cache.
constexpr int64_t kPieceElems = 128 * 1024;

bool is_quantized(DType dtype) {
  return dtype_info(dtype).block_elems > 1;
}

bool is_float(DType dtype) {
  return dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F64;
}

/// The layer in a tensor's name; -1 for those before and after the layers.
int layer_of(std::string_view name) {
  int layer = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

/// llama.cpp's order: by layer, then by name; with shards, as they lie.
std::vector<TensorInfo> ordered_tensors(const GgufFile& file, bool keep_split) {
  std::vector<TensorInfo> tensors(file.tensors().begin(), file.tensors().end());
  std::sort(tensors.begin(), tensors.end(), [&](const TensorInfo& a, const TensorInfo& b) {
    if (keep_split) {
      return std::pair(a.shard_idx, a.offset_bytes) < std::pair(b.shard_idx, b.offset_bytes);
    }
    return std::pair(layer_of(a.name), a.name) < std::pair(layer_of(b.name), b.name);
  });
  return tensors;
}

/// The importance of a tensor's columns; empty when the matrix has nothing for it.
std::vector<float> importance_for(const TensorInfo& tensor, const ImportanceMatrix& matrix) {
  const ImportanceEntry* entry = matrix.find(tensor.name);
  if (entry == nullptr) return {};
  const int64_t wanted = tensor.dims[0] * tensor.dims[2];
  const auto found = static_cast<int64_t>(entry->sums.size());
  if (found == wanted) return mean_squares(*entry);
  if (tensor.name == "token_embd.weight") return {};
  throw Error(printable(tensor.name) + ": the importance matrix has " + std::to_string(found) +
              " values, expected " + std::to_string(wanted) + ": it was made from another model");
}

bool needs_matrix(const TensorInfo& tensor, DType dtype, const FileType& file_type) {
  return dtype == DType::Q2_K && file_type.name == "Q2_K_S" && tensor.name != "token_embd.weight" &&
         tensor.name != "per_layer_token_embd.weight" && tensor.name != "output.weight";
}

QuantizeStep plan_step(const TensorInfo& tensor, const TypeChoice& choice,
                       const QuantizeOptions& options) {
  QuantizeStep step;
  step.source = tensor;
  step.choice = choice;
  step.size_bytes = row_size_bytes(choice.dtype, tensor.dims[0]) * tensor.n_rows();
  if (choice.dtype == tensor.dtype) return step;

  const std::string name = printable(tensor.name);
  const std::string from(dtype_info(tensor.dtype).name);
  if (!can_quantize(choice.dtype)) {
    throw Error(name + ": can't quantise to " + std::string(dtype_info(choice.dtype).name) +
                ": there is no encoder for it");
  }
  if (!is_float(tensor.dtype) && !is_quantized(tensor.dtype)) {
    throw Error(name + ": type " + from + ", expected floats: can't be quantised");
  }
  step.is_requantized = is_quantized(tensor.dtype);
  if (step.is_requantized && !options.allow_requantize) {
    throw Error(name + ": is " + from +
                " already, and quantising again loses quality: start from the F16, BF16 or F32 "
                "model, or give --allow-requantize");
  }
  if (options.matrix != nullptr && is_quantized(choice.dtype)) {
    step.importance = importance_for(tensor, *options.matrix);
    step.lacks_importance = step.importance.empty();
  }
  if (step.importance.empty() && needs_matrix(tensor, choice.dtype, options.file_type)) {
    throw Error(name + ": " + std::string(options.file_type.name) + " needs an importance matrix" +
                (options.matrix != nullptr ? " with an entry for this tensor"
                                           : ": give --imatrix, or take Q2_K"));
  }
  return step;
}

/// Metadata of the result: the source's, with what quantising changes at the end, as llama.cpp
/// writes it.
void add_metadata(GgufWriter& writer, const GgufFile& file, const QuantizeOptions& options) {
  const std::set<std::string_view> replaced{"general.quantization_version",
                                            "general.file_type",
                                            "general.alignment",
                                            "split.no",
                                            "split.count",
                                            "split.tensors.count"};
  const bool has_matrix = options.matrix != nullptr;
  for (const KeyValue& entry : file.metadata()) {
    if (replaced.contains(entry.key)) continue;
    if (has_matrix && entry.key.starts_with("quantize.imatrix.")) continue;
    writer.add_value(entry.key, entry.value);
  }
  writer.add("general.quantization_version", uint32_t{2});
  writer.add("general.file_type", options.file_type.id);
  if (!has_matrix) return;
  writer.add("quantize.imatrix.file", options.matrix_name);
  if (!options.matrix->datasets.empty()) {
    writer.add("quantize.imatrix.dataset", options.matrix->datasets.front());
  }
  writer.add("quantize.imatrix.entries_count",
             static_cast<uint32_t>(options.matrix->entries.size()));
  if (options.matrix->n_chunks > 0) {
    writer.add("quantize.imatrix.chunks_count", options.matrix->n_chunks);
  }
}

/// Rows of one tensor.
struct Piece {
  const QuantizeStep* step = nullptr;
  int64_t first_row = 0;
  int64_t n_rows = 0;
};

std::vector<Piece> pieces_of(const QuantizePlan& plan) {
  std::vector<Piece> pieces;
  for (const QuantizeStep& step : plan.steps) {
    const int64_t at_once = std::max<int64_t>(kPieceElems / step.source.dims[0], 1);
    // Experts have an importance of their own: a piece stays within a matrix.
    const int64_t per_matrix = step.source.dims[1];
    for (int64_t matrix = 0; matrix < step.source.n_rows(); matrix += per_matrix) {
      for (int64_t row = 0; row < per_matrix; row += at_once)
        pieces.push_back({&step, matrix + row, std::min(at_once, per_matrix - row)});
    }
  }
  return pieces;
}

/// Gives the pages within `bytes` of a mapping back to the system: they will not be read again.
void release_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size()) / page * page;
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

void check_finite(const Piece& piece, std::span<const float> values) {
  uint32_t is_bad = 0;
  for (const float value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    is_bad |= static_cast<uint32_t>((bits & 0x7f800000U) == 0x7f800000U);
  }
  if (is_bad == 0) return;
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  const auto idx = static_cast<int64_t>(bad - values.begin());
  const int64_t n_cols = piece.step->source.dims[0];
  throw Error(printable(piece.step->source.name) + ": value " + std::to_string(idx % n_cols) +
              " of row " + std::to_string(piece.first_row + idx / n_cols) +
              " is not finite: the model is damaged");
}

/// A value too large for f16 became infinite.
void check_half(const Piece& piece, std::span<const std::byte> halves) {
  for (size_t i = 0; i < halves.size(); i += 2) {
    uint16_t bits;
    std::memcpy(&bits, halves.data() + i, sizeof(bits));
    if ((bits & 0x7c00U) == 0x7c00U) {
      throw Error(printable(piece.step->source.name) +
                  ": has a value beyond the range of F16 (65504): take BF16");
    }
  }
}

/// The threads' common work: pieces are taken in order, the first failure stops all.
class Conversion {
 public:
  Conversion(const std::vector<Piece>& pieces,
             std::vector<std::unique_ptr<GgufStreamWriter>>& writers, int n_threads)
      : pieces_(pieces), writers_(writers), n_running_(n_threads) {
    for (int i = 0; i < n_threads; ++i)
      threads_.emplace_back([this] { work(); });
  }
  ~Conversion() { stop_ = true; }  // the threads are joined after this

  /// Returns when all is done; `progress` as in QuantizeRun. Throws what a thread threw.
  void wait(const QuantizeRun& run, int64_t total_bytes) {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, std::chrono::milliseconds(100),
                              [this] { return n_running_ == 0; })) {
      lock.unlock();
      const bool goes_on = !run.progress || run.progress(done_bytes_, total_bytes);
      lock.lock();
      if (!goes_on) {
        stop_ = true;
        changed_.wait(lock, [this] { return n_running_ == 0; });
        throw Error("interrupted: nothing was written");
      }
    }
    if (failure_) std::rethrow_exception(failure_);
    if (run.progress) run.progress(done_bytes_, total_bytes);
  }

 private:
  void work() {
    try {
      while (!stop_) {
        const size_t idx = next_++;
        if (idx >= pieces_.size()) break;
        convert(pieces_[idx]);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      stop_ = true;
    }
    const std::lock_guard lock(mutex_);
    --n_running_;
    changed_.notify_all();
  }

  void convert(const Piece& piece) {
    thread_local std::vector<float> values;
    thread_local std::vector<std::byte> result;
    const QuantizeStep& step = *piece.step;
    const TensorInfo& source = step.source;
    const int64_t n_cols = source.dims[0];
    const int64_t row_bytes = row_size_bytes(source.dtype, n_cols);
    const std::span<const std::byte> from(source.data + piece.first_row * row_bytes,
                                          static_cast<size_t>(piece.n_rows * row_bytes));
    std::span<const std::byte> bytes = from;
    const int64_t new_row_bytes = row_size_bytes(step.choice.dtype, n_cols);
    if (step.choice.dtype != source.dtype) {
      values.resize(static_cast<size_t>(piece.n_rows * n_cols));
      result.resize(static_cast<size_t>(piece.n_rows * new_row_bytes));
      dequantize_row(source.dtype, from.data(), values.data(), piece.n_rows * n_cols);
      check_finite(piece, values);
      const float* importance = nullptr;
      if (!step.importance.empty()) {
        importance =
            step.importance.data() + piece.first_row / source.dims[1] % source.dims[2] * n_cols;
      }
      quantize_rows(step.choice.dtype, values.data(), result.data(), piece.n_rows, n_cols,
                    importance);
      if (step.choice.dtype == DType::F16) check_half(piece, result);
      bytes = result;
    }
    writers_[step.shard_idx]->write(step.tensor_idx, piece.first_row * new_row_bytes, bytes);
    release_pages(from);
    done_bytes_ += static_cast<int64_t>(from.size());
  }

  const std::vector<Piece>& pieces_;
  std::vector<std::unique_ptr<GgufStreamWriter>>& writers_;
  std::atomic<size_t> next_{0};
  std::atomic<int64_t> done_bytes_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  int n_running_;
  std::exception_ptr failure_;
  std::vector<std::jthread> threads_;  // last: joined before the rest goes
};

std::vector<GgufWriter> headers_of(const GgufFile& file, const QuantizePlan& plan) {
  std::vector<GgufWriter> headers(static_cast<size_t>(plan.n_shards));
  add_metadata(headers[0], file, plan.options);
  if (plan.n_shards > 1) {
    for (size_t i = 0; i < headers.size(); ++i) {
      headers[i].add("split.no", static_cast<uint16_t>(i));
      headers[i].add("split.count", static_cast<uint16_t>(plan.n_shards));
      headers[i].add("split.tensors.count", static_cast<int32_t>(plan.steps.size()));
    }
  }
  for (const QuantizeStep& step : plan.steps) {
    headers[step.shard_idx].declare_tensor(
        step.source.name, step.choice.dtype,
        std::span(step.source.dims.data(), static_cast<size_t>(step.source.n_dims)));
  }
  return headers;
}

void refuse_own_source(const GgufFile& file, const std::vector<std::filesystem::path>& paths) {
  for (const MappedFile& shard : file.shards()) {
    for (const auto& path : paths) {
      std::error_code ignored;
      if (std::filesystem::equivalent(shard.path(), path, ignored)) {
        throw Error(path.string() + ": is the model that is read: choose another name");
      }
    }
  }
}

}  // namespace

QuantizePlan plan_quantize(const GgufFile& file, const QuantizeOptions& options) {
  QuantizePlan plan;
  plan.options = options;
  plan.options.mixture.has_matrix = options.matrix != nullptr;
  const auto tensors = ordered_tensors(file, options.keep_split);
  const auto choices = choose_types(file, tensors, options.file_type, plan.options.mixture);
  if (options.keep_split) plan.n_shards = static_cast<int>(file.shards().size());
  std::vector<size_t> n_tensors(static_cast<size_t>(plan.n_shards));
  for (size_t i = 0; i < tensors.size(); ++i) {
    QuantizeStep step = plan_step(tensors[i], choices[i], options);
    step.shard_idx = options.keep_split ? static_cast<size_t>(tensors[i].shard_idx) : 0;
    step.tensor_idx = n_tensors[step.shard_idx]++;
    plan.source_bytes += step.source.size_bytes;
    plan.result_bytes += step.size_bytes;
    plan.steps.push_back(std::move(step));
  }
  return plan;
}

std::vector<std::filesystem::path> result_paths(const QuantizePlan& plan,
                                                const std::filesystem::path& path) {
  if (plan.n_shards == 1) return {path};
  std::string prefix = path.filename().string();
  if (prefix.ends_with(".gguf")) prefix.resize(prefix.size() - 5);
  std::vector<std::filesystem::path> paths;
  for (int i = 0; i < plan.n_shards; ++i)
    paths.push_back(path.parent_path() / shard_file_name({prefix, i, plan.n_shards}));
  return paths;
}

std::vector<std::filesystem::path> quantize(const GgufFile& file, const QuantizePlan& plan,
                                            const std::filesystem::path& path,
                                            const QuantizeRun& run) {
  const auto paths = result_paths(plan, path);
  refuse_own_source(file, paths);
  const auto headers = headers_of(file, plan);
  std::vector<std::unique_ptr<GgufStreamWriter>> writers;
  for (size_t i = 0; i < headers.size(); ++i)
    writers.push_back(std::make_unique<GgufStreamWriter>(paths[i], headers[i]));
  const auto pieces = pieces_of(plan);
  const int n_threads = run.n_threads > 0
                            ? run.n_threads
                            : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  Conversion(pieces, writers, n_threads).wait(run, plan.source_bytes);
  for (const auto& writer : writers)
    writer->finish();
  return paths;
}

}  // namespace dsctl::gguf
