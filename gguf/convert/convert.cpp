#include "gguf/convert/convert.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "gguf/convert/architecture.h"
#include "gguf/convert/int4_weight.h"
#include "gguf/convert/mixture.h"
#include "gguf/convert/provenance.h"
#include "gguf/convert/sources.h"
#include "gguf/convert/special_tokens.h"
#include "gguf/error.h"
#include "gguf/gguf_stream_writer.h"
#include "gguf/printable.h"
#include "gguf/quants/encode.h"

namespace dsctl::gguf::convert {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPieceBytes = 4 << 20;  // of f32, for each thread
constexpr int64_t kPackedRows = 128;      // of packed codes: a cache line holds 128 of them

/// general.file_type of a file whose matrices are of that type.
uint32_t file_type_of(DType dtype) {
  const auto type = file_type_from_name(dtype_info(dtype).name);
  return type ? type->id : 1024;  // "guessed"
}

DType float_type(OutType out_type, const Checkpoint& checkpoint) {
  switch (out_type) {
    case OutType::kF32:
      return DType::F32;
    case OutType::kF16:
      return DType::F16;
    case OutType::kBF16:
      return DType::BF16;
    case OutType::kQ8_0:
      return DType::Q8_0;
    case OutType::kAuto:
      break;
  }
  for (const SafeTensor& tensor : checkpoint.tensors()) {
    if (tensor.shape.size() < 2) continue;
    if (tensor.type == ScalarType::kBF16) return DType::BF16;
    if (tensor.type == ScalarType::kF16) return DType::F16;
  }
  return DType::F16;
}

/// Vectors, norms, routers and what is no weight stay in f32.
bool is_always_f32(const PlannedWeight& planned) {
  return planned.weight->shape().size() < 2 || planned.name.ends_with("_norm.weight") ||
         planned.name.ends_with(".ffn_gate_inp.weight") || !planned.name.ends_with(".weight");
}

class TypeChooser {
 public:
  TypeChooser(const ConvertOptions& options, DType float_dtype)
      : options_(options), float_dtype_(float_dtype) {}

  DType choose(const PlannedWeight& planned) const {
    const Weight& weight = *planned.weight;
    if (is_always_f32(planned)) return DType::F32;
    const bool keeps_codes = options_.out_type == OutType::kAuto && !options_.quantize;
    if (weight.is_quantized() && keeps_codes) {
      const DType exact = exact_dtype(weight);
      return exact == DType::F32 && options_.rounding == Rounding::kNearest ? float_dtype_ : exact;
    }
    // Rows that are no whole blocks.
    const bool is_whole = weight.n_cols() % dtype_info(float_dtype_).block_elems == 0;
    return is_whole ? float_dtype_ : DType::F16;
  }

  /// The type under a mixture that wants `mixed`: codes keep their values in a type that was asked
  /// for by name.
  DType choose_mixed(const PlannedWeight& planned, DType mixed) const {
    const bool is_kept =
        planned.weight->is_quantized() && is_type_of_codes(options_.quantize->dtype);
    return is_kept && !is_always_f32(planned) ? choose_for_codes(planned) : mixed;
  }

 private:
  static bool is_type_of_codes(DType dtype) {
    return dtype == DType::Q4_0 || dtype == DType::Q4_1 || dtype == DType::Q5_0;
  }

  /// The type was asked for by name, so it must be exact.
  DType choose_for_codes(const PlannedWeight& planned) const {
    const Weight& weight = *planned.weight;
    const DType wanted = options_.quantize->dtype;
    if (weight.is_exact_in(wanted)) return wanted;
    const bool takes_nearest = options_.rounding == Rounding::kNearest;
    const DType exact = exact_dtype(weight);
    // Rows that run across the groups are numbers, no codes.
    if (exact == DType::F32) return takes_nearest ? float_dtype_ : exact;
    if (takes_nearest && weight.can_approximate(wanted)) return wanted;
    throw Error("tensor \"" + printable(planned.source) + "\": its " + weight.stored_type() +
                " codes can't be held exactly in " + std::string(dtype_info(wanted).name) + ", " +
                std::string(dtype_info(exact).name) +
                " can; take --outtype auto for exact types, or --inexact for the nearest values");
  }

  const ConvertOptions& options_;
  DType float_dtype_;
};

ParameterCount count_parameters(const std::vector<ConvertedTensor>& tensors) {
  ParameterCount count;
  int64_t expert_sum = 0;
  int64_t n_expert_tensors = 0;
  for (const ConvertedTensor& tensor : tensors) {
    int64_t n = 1;
    for (const int64_t dim : tensor.dims)
      n *= dim;
    count.total += n;
    if (tensor.name.find("_exps.") != std::string::npos && tensor.dims.size() >= 3) {
      count.experts += n / tensor.dims[2];
      expert_sum += tensor.dims[2];
      ++n_expert_tensors;
    } else {
      count.shared += n;
    }
  }
  if (n_expert_tensors > 0) count.n_experts = expert_sum / n_expert_tensors;
  return count;
}

/// The type of most bytes among the matrices.
DType main_type(const std::vector<ConvertedTensor>& tensors) {
  std::map<DType, int64_t> bytes;
  for (const ConvertedTensor& tensor : tensors) {
    if (tensor.dims.size() > 1) bytes[tensor.dtype] += tensor.size_bytes;
  }
  DType main = DType::F32;
  int64_t most = 0;
  for (const auto& [dtype, size] : bytes) {
    if (size > most) main = dtype;
    most = std::max(most, size);
  }
  return main;
}

void add_tokenizer(const fs::path& dir, const HfConfig& config, const Architecture& architecture,
                   const ConvertOptions& options, MetadataList& metadata,
                   std::vector<std::string>& notes) {
  TokenizerRequest request{.dir = dir,
                           .vocab_size = config.get_uint("vocab_size"),
                           .pre_tokenizer = options.pre_tokenizer,
                           .notes = {}};
  TokenizerTables tables = read_tokenizer(request);
  notes.insert(notes.end(), request.notes.begin(), request.notes.end());
  if (architecture.name == "llama") {
    const auto tokenizer_config = read_json(dir / "tokenizer_config.json", kMaxConfigBytes);
    const auto prefix = bool_member(tokenizer_config.value_or(Json()), "add_prefix_space");
    if (prefix) metadata.set("tokenizer.ggml.add_space_prefix", *prefix);
  }
  metadata.set("tokenizer.ggml.model", tables.model);
  metadata.set("tokenizer.ggml.pre", tables.pre);
  metadata.set("tokenizer.ggml.tokens", tables.tokens);
  metadata.set("tokenizer.ggml.scores", tables.scores);
  metadata.set("tokenizer.ggml.token_type", tables.types);
  const bool is_sentencepiece = tables.model == "llama";
  add_special_tokens({.dir = dir,
                      .vocab_size = is_sentencepiece ? request.vocab_size : 0,
                      .merges = tables.merges},
                     metadata);
  if (is_sentencepiece && architecture.has_no_space_prefix) {
    metadata.set("tokenizer.ggml.add_space_prefix", false);
  }
  if (is_sentencepiece || !options.pre_tokenizer.empty() || !options.name_pre_tokenizer) return;
  if (const MetadataValue* bos = metadata.find("tokenizer.ggml.bos_token_id")) {
    tables.bos = static_cast<int32_t>(std::get<uint32_t>(*bos));
  }
  const MetadataValue* adds_bos = metadata.find("tokenizer.ggml.add_bos_token");
  tables.adds_bos = adds_bos && std::get<bool>(*adds_bos);
  if (const auto name = options.name_pre_tokenizer(tables)) {
    metadata.set("tokenizer.ggml.pre", *name);
  } else {
    notes.push_back(
        "the vocabulary is not among the published ones; its pre-tokenizer splits as \"" +
        tables.pre + "\" does");
  }
}

void set_type(ConvertedTensor& tensor, const PlannedWeight& planned, DType dtype) {
  tensor.dtype = dtype;
  tensor.size_bytes = row_size_bytes(dtype, tensor.dims[0]) * planned.weight->n_rows();
}

/// A run of rows of one tensor.
struct Piece {
  size_t tensor_idx = 0;
  int64_t begin = 0;
  int64_t end = 0;
};

/// Hands out pieces in order.
class PieceQueue {
 public:
  explicit PieceQueue(const std::vector<ConvertedTensor>& tensors,
                      const std::vector<PlannedWeight>& planned)
      : tensors_(tensors), planned_(planned) {}

  std::optional<Piece> next() {
    const std::lock_guard lock(mutex_);
    while (tensor_idx_ < tensors_.size()) {
      const Weight& weight = *planned_[tensor_idx_].weight;
      const int64_t n_rows = weight.n_rows();
      if (row_ >= n_rows || weight.n_cols() == 0) {
        ++tensor_idx_;
        row_ = 0;
        continue;
      }
      const int64_t row_bytes = weight.n_cols() * static_cast<int64_t>(sizeof(float));
      int64_t n = std::max<int64_t>(kPieceBytes / row_bytes, 1);
      if (weight.is_quantized()) n = (n + kPackedRows - 1) / kPackedRows * kPackedRows;
      const Piece piece{tensor_idx_, row_, std::min(n_rows, row_ + n)};
      row_ = piece.end;
      return piece;
    }
    return std::nullopt;
  }

 private:
  const std::vector<ConvertedTensor>& tensors_;
  const std::vector<PlannedWeight>& planned_;
  std::mutex mutex_;
  size_t tensor_idx_ = 0;
  int64_t row_ = 0;
};

}  // namespace

struct Conversion::State {
  Checkpoint checkpoint;
  std::string architecture;
  std::vector<PlannedWeight> planned;
  std::vector<ConvertedTensor> tensors;
  MetadataList metadata;
  std::vector<std::string> notes;
  int n_threads = 0;

  /// Gives the tensors the types, and the file the order and metadata, of llama-quantize.
  void mix(const FileType& file_type, const TypeChooser& chooser) {
    std::vector<PlannedWeight> ordered_weights;
    std::vector<ConvertedTensor> ordered;
    for (const MixtureChoice& choice : choose_mixture(metadata, tensors, file_type)) {
      PlannedWeight& weight = planned[choice.tensor_idx];
      ConvertedTensor& tensor = tensors[choice.tensor_idx];
      set_type(tensor, weight, chooser.choose_mixed(weight, choice.dtype));
      ordered_weights.push_back(std::move(weight));
      ordered.push_back(std::move(tensor));
    }
    planned = std::move(ordered_weights);
    tensors = std::move(ordered);
    metadata.remove("general.quantization_version");
    metadata.remove("general.file_type");
    metadata.set("general.quantization_version", uint32_t{2});
    metadata.set("general.file_type", file_type.id);
  }

  /// Rows of one tensor in the type of the file.
  void encode(const Piece& piece, std::vector<float>& rows, std::vector<std::byte>& bytes) const {
    const Weight& weight = *planned[piece.tensor_idx].weight;
    const DType dtype = tensors[piece.tensor_idx].dtype;
    const int64_t n_elems = (piece.end - piece.begin) * weight.n_cols();
    bytes.resize(static_cast<size_t>(row_size_bytes(dtype, n_elems)));
    if (weight.is_exact_in(dtype) || weight.can_approximate(dtype)) {
      weight.copy_rows(dtype, piece.begin, piece.end, bytes.data());
      return;
    }
    rows.resize(static_cast<size_t>(n_elems));
    weight.read_rows(piece.begin, piece.end, rows.data());
    quantize_row(dtype, rows.data(), bytes.data(), n_elems);
  }
};

Conversion::Conversion(std::unique_ptr<State> state) : state_(std::move(state)) {}
Conversion::~Conversion() = default;
Conversion::Conversion(Conversion&&) noexcept = default;
Conversion& Conversion::operator=(Conversion&&) noexcept = default;

Conversion Conversion::plan(const fs::path& dir, const ConvertOptions& options) {
  HfConfig config = HfConfig::open(dir);
  const Architecture& architecture = find_architecture(config.class_name());
  architecture.set_defaults(config);
  auto state = std::make_unique<State>();
  state->architecture = architecture.name;
  state->n_threads = options.n_threads;
  state->checkpoint = Checkpoint::open(dir);
  state->planned = architecture.plan(config, read_sources(state->checkpoint, config, architecture));
  const DType float_dtype = float_type(options.out_type, state->checkpoint);
  const TypeChooser chooser(options, float_dtype);
  for (const PlannedWeight& planned : state->planned) {
    const auto& shape = planned.weight->shape();
    ConvertedTensor tensor{.name = planned.name,
                           .source = planned.source,
                           .stored_type = planned.weight->stored_type(),
                           .dtype = DType::F32,
                           .dims = {shape.rbegin(), shape.rend()},
                           .size_bytes = 0};
    if (tensor.dims.empty()) tensor.dims = {1};
    set_type(tensor, planned, chooser.choose(planned));
    state->tensors.push_back(std::move(tensor));
  }
  const bool has_codes =
      std::any_of(state->planned.begin(), state->planned.end(),
                  [](const PlannedWeight& planned) { return planned.weight->is_quantized(); });
  const bool keeps_codes = has_codes && options.out_type == OutType::kAuto && !options.quantize;
  const uint32_t file_type = file_type_of(keeps_codes ? main_type(state->tensors) : float_dtype);

  MetadataList& metadata = state->metadata;
  metadata.set("general.architecture", state->architecture);
  add_provenance(dir, config, count_parameters(state->tensors), options.name, metadata);
  add_common_parameters(config, architecture.name, file_type, metadata);
  architecture.add_parameters(config, metadata);
  metadata.set("general.quantization_version", uint32_t{2});
  add_tokenizer(dir, config, architecture, options, metadata, state->notes);
  if (options.quantize) state->mix(*options.quantize, chooser);
  return Conversion(std::move(state));
}

const std::string& Conversion::architecture() const {
  return state_->architecture;
}
const MetadataList& Conversion::metadata() const {
  return state_->metadata;
}
const std::vector<ConvertedTensor>& Conversion::tensors() const {
  return state_->tensors;
}
const std::vector<std::string>& Conversion::notes() const {
  return state_->notes;
}

int64_t Conversion::data_bytes() const {
  int64_t size = 0;
  for (const ConvertedTensor& tensor : state_->tensors)
    size += tensor.size_bytes;
  return size;
}

void Conversion::write(const fs::path& path, const ConvertProgress& progress) const {
  GgufWriter header;
  state_->metadata.write_to(header);
  for (const ConvertedTensor& tensor : state_->tensors)
    header.declare_tensor(tensor.name, tensor.dtype, tensor.dims);
  GgufStreamWriter writer(path, header);

  PieceQueue queue(state_->tensors, state_->planned);
  const int64_t total = data_bytes();
  std::mutex mutex;
  std::condition_variable_any changed;
  int64_t done = 0;
  int n_running = 0;
  std::exception_ptr error;
  const auto work = [&](std::stop_token stop) {
    std::vector<float> rows;
    std::vector<std::byte> bytes;
    try {
      while (!stop.stop_requested()) {
        const auto piece = queue.next();
        if (!piece) break;
        state_->encode(*piece, rows, bytes);
        const ConvertedTensor& tensor = state_->tensors[piece->tensor_idx];
        writer.write(piece->tensor_idx, piece->begin * row_size_bytes(tensor.dtype, tensor.dims[0]),
                     bytes);
        const std::lock_guard lock(mutex);
        done += static_cast<int64_t>(bytes.size());
        changed.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
    const std::lock_guard lock(mutex);
    --n_running;
    changed.notify_all();
  };

  const unsigned n_processors = std::max(1U, std::thread::hardware_concurrency());
  n_running = state_->n_threads > 0 ? state_->n_threads : static_cast<int>(n_processors);
  {
    std::vector<std::jthread> threads;
    for (int i = 0, n = n_running; i < n; ++i)
      threads.emplace_back(work);
    std::unique_lock lock(mutex);
    while (n_running > 0 && !error) {
      changed.wait_for(lock, std::chrono::milliseconds(200));
      const int64_t so_far = done;
      lock.unlock();
      if (progress) progress(so_far, total);  // may throw: the threads are stopped and joined
      lock.lock();
    }
    for (std::jthread& thread : threads)
      thread.request_stop();
  }
  if (error) std::rethrow_exception(error);
  if (progress) progress(total, total);  // the last chance to stop
  writer.finish();
}

bool is_checkpoint(const fs::path& dir) {
  std::error_code error;
  if (!fs::exists(dir / "config.json", error)) return false;
  if (fs::exists(dir / "model.safetensors.index.json", error)) return true;
  for (fs::directory_iterator entry(dir, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with("model") && name.ends_with(".safetensors")) return true;
  }
  return false;
}

}  // namespace dsctl::gguf::convert
