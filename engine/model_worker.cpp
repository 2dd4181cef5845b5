#include "engine/model_worker.h"

#include <algorithm>
#include <new>
#include <string>

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/cpu_ops.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/observing_kernels.h"
#include "engine/cuda/cuda_library.h"
#include "engine/error.h"
#include "engine/lora.h"
#include "engine/tokenizer/vocabulary.h"
#include "engine/weights.h"

namespace dsctl::engine {

// The reference keeps every bit. For others f16 rounds keys and values by up to 2^-11, which costs
// a KL of 6e-7 (SmolLM2-135M) to 8e-7 (Gemma-3-270M), and makes a token behind 2048 others 1.06 to
// 1.27 times as fast (two busy cores). The latent kernels read f32.
gguf::DType cpu_kv_dtype(const gguf::GgufFile& file, const EngineOptions& options) {
  const ModelConfig config = find_architecture(file).read_config(ConfigReader(file));
  const bool is_latent = config.mla.latent_dim > 0;
  const bool is_fast = &select_kernels(options.cpu_kernels) != &reference_kernels();
  switch (options.kv_cache_type) {
    case KvCacheType::kAuto:
      return is_fast && !is_latent ? gguf::DType::F16 : gguf::DType::F32;
    case KvCacheType::kF32:
      return gguf::DType::F32;
    case KvCacheType::kF16:
      if (is_latent && is_fast) {
        throw Error("kv cache of latent attention: f16 on the CPU, expected auto or f32");
      }
      return gguf::DType::F16;
  }
  return gguf::DType::F32;
}

namespace {

/// On a GPU the cache is read at every token and its bytes are what long contexts cost.
gguf::DType cuda_kv_type(const EngineOptions& options) {
  return options.kv_cache_type == KvCacheType::kF32 ? gguf::DType::F32 : gguf::DType::F16;
}

void check_options(const EngineOptions& options) {
  const auto positive = [](int value, const char* name) {
    if (value >= 1) return;
    throw Error(std::string(name) + ": " + std::to_string(value) + ", expected at least 1");
  };
  positive(options.tp_size, "tp_size");
  positive(options.max_model_len, "max_model_len");
  positive(options.max_num_seqs, "max_num_seqs");
  positive(options.max_num_batched_tokens, "max_num_batched_tokens");
  positive(options.block_size, "block_size");
}

/// What computes the products: the kernels of `options`, watched by `observer` if there is one.
OpsBackend cpu_backend(const gguf::GgufFile& file, const EngineOptions& options,
                       MatmulObserver* observer) {
  const int n_threads = options.n_threads > 0 ? options.n_threads : cpu_features().n_physical_cores;
  const KernelSet* kernels = &select_kernels(options.cpu_kernels);
  // Shared by the copies of make_ops: the worker's lives as long as the Ops that read it.
  std::shared_ptr<const KernelSet> watched;
  if (observer != nullptr) {
    watched = std::make_shared<ObservingKernels>(*kernels, *observer);
    kernels = watched.get();
  }
  const int n_rank_threads = std::max(1, n_threads / options.tp_size);
  return {.make_ops =
              [kernels, watched, n_rank_threads](Communicator& comm, const OpsLimits& limits) {
                return std::make_unique<CpuOps>(*kernels, comm,
                                                CpuOpsOptions{.n_threads = n_rank_threads,
                                                              .max_tokens = limits.max_tokens,
                                                              .max_rows = limits.max_rows,
                                                              .max_context = limits.max_context});
              },
          .kv_dtype = cpu_kv_dtype(file, options),
          .free_bytes = free_host_bytes()};
}

/// Throws Error with the reason when there is no GPU to use.
OpsBackend cuda_backend(const gguf::GgufFile& file, const EngineOptions& options) {
  const CudaStatus status = query_cuda();
  if (!status.available) throw Error("device cuda: " + status.reason);
  if (options.tp_size > 1) {
    throw Error("device cuda: tp_size " + std::to_string(options.tp_size) +
                ", this version uses one GPU");
  }
  int64_t weight_bytes = 0;
  for (const gguf::TensorInfo& tensor : file.tensors())
    weight_bytes += tensor.size_bytes;
  return {.make_ops =
              [](Communicator& /*comm*/, const OpsLimits& limits) {
                return make_cuda_ops({.max_tokens = limits.max_tokens,
                                      .max_rows = limits.max_rows,
                                      .max_context = limits.max_context});
              },
          .kv_dtype = cuda_kv_type(options),
          .free_bytes = std::max<int64_t>(0, status.devices[0].free_bytes - weight_bytes)};
}

OpsBackend choose_backend(const gguf::GgufFile& file, const EngineOptions& options,
                          MatmulObserver* observer) {
  if (observer != nullptr && options.device == Device::kCuda) {
    throw Error("device cuda: products are observed on the CPU only, give device cpu");
  }
  switch (options.device) {
    case Device::kCuda:
      return cuda_backend(file, options);
    case Device::kAuto:  // the GPU path has to prove itself before it is chosen unasked
    case Device::kCpu:
      break;
  }
  return cpu_backend(file, options, observer);
}

void require(bool holds, const char* what) {
  if (!holds) throw Error(std::string("batch: ") + what);
}

/// Tokens that end a generation; none when the file has no vocabulary.
std::vector<int32_t> eog_tokens(const gguf::GgufFile& file) {
  if (file.find("tokenizer.ggml.model") == nullptr) return {};
  return read_vocabulary(file).eog;
}

}  // namespace

struct ModelWorker::Rank {
  std::unique_ptr<Ops> ops;
  std::unique_ptr<Model> model;
};

ModelWorker::ModelWorker(const gguf::GgufFile& file, const EngineOptions& options,
                         MatmulObserver* observer)
    : ModelWorker(file, options,
                  (check_options(options), choose_backend(file, options, observer))) {}

ModelWorker::ModelWorker(const gguf::GgufFile& file, const EngineOptions& options,
                         const OpsBackend& backend)
    : make_ops_(backend.make_ops),
      group_((check_options(options), options.tp_size)),
      threads_(group_) {
  const Architecture& architecture = find_architecture(file);
  const ModelConfig config = architecture.read_config(ConfigReader(file));
  for (const LoraAdapter& adapter : options.adapters)
    adapters_.push_back({open_adapter(adapter.path, config.architecture), adapter.scale});
  max_tokens_ = options.max_num_batched_tokens;
  max_rows_ = std::min(options.max_num_seqs, options.max_num_batched_tokens);
  limits_.vocab_size = config.vocab_size;
  limits_.max_model_len = std::min(options.max_model_len, config.context_length);
  limits_.block_size = options.block_size;
  limits_.eog_token_ids = eog_tokens(file);

  const KvLayout whole{backend.kv_dtype, config.n_layers, 1, options.block_size, config.kv_shape()};
  // Ranks share the heads, but each has all of a latent cache.
  const int n_copies = config.mla.latent_dim > 0 ? options.tp_size : 1;
  const int64_t block_bytes = whole.block_bytes() * n_copies;
  limits_.n_kv_blocks =
      choose_n_kv_blocks(options, limits_.max_model_len, block_bytes, backend.free_bytes);
  limits_.kv_bytes = block_bytes * limits_.n_kv_blocks;

  ranks_.resize(static_cast<size_t>(options.tp_size));
  threads_.run([&](int rank) { load_rank(file, backend, config, architecture, rank); });
  for (const auto& rank : ranks_)
    limits_.weight_bytes += rank->ops->weight_bytes();
  limits_.device = ranks_[0]->ops->device_name();
  if (ranks_[0]->ops->gives_states()) limits_.state_dim = config.dim;
  limits_.rank_head = RankHead::read(file, config.dim);
}

ModelWorker::~ModelWorker() = default;

bool ModelWorker::alive() const {
  return std::ranges::all_of(ranks_, [](const auto& rank) { return rank->ops->alive(); });
}

void ModelWorker::load_rank(const gguf::GgufFile& file, const OpsBackend& backend,
                            const ModelConfig& config, const Architecture& architecture, int rank) {
  auto loaded = std::make_unique<Rank>();
  loaded->ops = make_ops_(
      group_.rank(rank),
      {.max_tokens = max_tokens_, .max_rows = max_rows_, .max_context = limits_.max_model_len});
  if (!adapters_.empty() && !loaded->ops->takes_loras()) {
    throw Error("LoRA adapters are not supported on " + loaded->ops->device_name());
  }
  LoraSet loras(adapters_);
  WeightLoader loader(file, {rank, group_.size()}, *loaded->ops, &loras);
  loaded->model = architecture.load(config, {.max_model_len = limits_.max_model_len}, loader);
  loras.check_all_used();
  loaded->ops->finish_loading({.dtype = backend.kv_dtype,
                               .n_layers = config.n_layers,
                               .n_blocks = limits_.n_kv_blocks,
                               .block_size = limits_.block_size,
                               .shape = loaded->model->kv_shape()},
                              config.vocab_size);
  ranks_[static_cast<size_t>(rank)] = std::move(loaded);
}

/// The scheduler keeps these promises; a batch from elsewhere would write out of bounds.
void ModelWorker::check(const Batch& batch) const {
  const auto n_tokens = static_cast<size_t>(batch.n_tokens());
  require(n_tokens >= 1 && n_tokens <= static_cast<size_t>(max_tokens_),
          "more tokens than max_num_batched_tokens, or none");
  require(batch.positions.size() == n_tokens && batch.slot_mapping.size() == n_tokens,
          "as many positions and slots as tokens expected");
  const int n_slots = limits_.n_kv_blocks * limits_.block_size;
  for (size_t i = 0; i < n_tokens; ++i) {
    require(batch.token_ids[i] >= 0 && batch.token_ids[i] < limits_.vocab_size,
            "token outside of the vocabulary");
    require(batch.positions[i] >= 0 && batch.positions[i] < limits_.max_model_len,
            "position beyond max_model_len");
    require(batch.slot_mapping[i] >= 0 && batch.slot_mapping[i] < n_slots,
            "slot outside of the cache");
  }
  check_tables(batch);
  require(batch.sample_rows.size() <= static_cast<size_t>(max_rows_),
          "more rows to sample than max_num_seqs");
  int previous = -1;
  for (const SampleRow& row : batch.sample_rows) {
    require(row.token_idx > previous && row.token_idx < batch.n_tokens(),
            "rows to sample don't ascend");
    previous = row.token_idx;
  }
  require(batch.state_rows.empty() || limits_.state_dim > 0, "states are not to be had here");
  previous = -1;
  for (const int32_t row : batch.state_rows) {
    require(row > previous && row < batch.n_tokens(), "rows of states don't ascend");
    previous = row;
  }
}

/// Each sequence has the blocks that attention will read: up to its last token's position.
void ModelWorker::check_tables(const Batch& batch) const {
  require(batch.query_starts.size() == batch.context_lens.size() + 1 &&
              batch.query_starts.front() == 0 && batch.query_starts.back() == batch.n_tokens(),
          "query_starts does not cover the tokens");
  require(batch.max_blocks_per_seq >= 0 &&
              batch.block_tables.size() ==
                  batch.context_lens.size() * static_cast<size_t>(batch.max_blocks_per_seq),
          "block_tables has another size than its sequences");
  for (size_t seq = 0; seq < batch.context_lens.size(); ++seq) {
    const int32_t begin = batch.query_starts[seq];
    const int32_t end = batch.query_starts[seq + 1];
    require(begin < end && end <= batch.n_tokens(), "query_starts does not ascend");
    const int last =
        *std::max_element(batch.positions.begin() + begin, batch.positions.begin() + end);
    const int n_blocks = last / limits_.block_size + 1;
    require(n_blocks <= batch.max_blocks_per_seq, "block_tables too short for a position");
    const auto table =
        batch.block_tables.begin() + static_cast<std::ptrdiff_t>(seq) * batch.max_blocks_per_seq;
    const bool in_cache = std::all_of(table, table + n_blocks, [&](int32_t block) {
      return block >= 0 && block < limits_.n_kv_blocks;
    });
    require(in_cache, "a sequence lacks a block or has one outside of the cache");
  }
}

void ModelWorker::forward(const Batch& batch) {
  check(batch);
  threads_.run([&](int rank) {
    const Rank& own = *ranks_[static_cast<size_t>(rank)];
    own.ops->begin(batch);
    own.model->forward(*own.ops);
  });
}

std::vector<SampledToken> ModelWorker::run(const Batch& batch) {
  forward(batch);
  if (batch.sample_rows.empty()) return {};
  return ranks_[0]->ops->sample();
}

std::span<const float> ModelWorker::states() {
  return ranks_[0]->ops->states();
}

std::vector<std::span<const float>> ModelWorker::logit_rows(const Batch& batch) {
  forward(batch);
  std::vector<std::span<const float>> rows;
  for (size_t i = 0; i < batch.sample_rows.size(); ++i)
    rows.push_back(ranks_[0]->ops->logits(static_cast<int>(i)));
  return rows;
}

std::vector<float> ModelWorker::run_logits(const Batch& batch) {
  std::vector<float> all;
  for (const auto row : logit_rows(batch))
    all.insert(all.end(), row.begin(), row.end());
  return all;
}

std::unique_ptr<Worker> make_worker(const gguf::GgufFile& file, const EngineOptions& options) {
  try {
    return std::make_unique<ModelWorker>(file, options);
  } catch (const std::bad_alloc&) {
    throw Error("memory does not suffice for the model and a step of its tokens");
  }
}

}  // namespace dsctl::engine
