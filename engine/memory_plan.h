// MemoryPlan: whether a model fits a machine, split over its GPUs as this engine splits it, with
// how long a context, and how fast one sequence will be. Pure arithmetic over headers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/gpu_cards.h"
#include "engine/model_footprint.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

/// How a value of the KV cache is stored.
enum class KvType { kF32, kF16, kBf16, kQ8_0, kFp8, kQ4_0 };

/// "f16".
std::string_view kv_type_name(KvType type);
/// The type called `name`, in any case; Throws Error listing the names.
KvType parse_kv_type(std::string_view name);
/// Bytes of `n_values` values, rounded up.
int64_t kv_bytes(KvType type, int64_t n_values);

/// What is to be planned for. Without GPUs the model lies in the host's memory.
struct Machine {
  std::vector<GpuSpec> gpus;  // of one kind
  int64_t host_bytes = 0;
  double host_bandwidth_gb_s = 0;  // 0: not known
  int host_cores = 0;              // that run the model when there are no GPUs; 0: not known
};

struct PlanRequest {
  int64_t n_context = 0;  // tokens, of all sequences together
  KvType kv_type = KvType::kF16;
  int tp_size = 0;  // GPUs to use; 0: the fewest that hold the model
};

/// What one GPU, or the host, holds.
struct RankPlan {
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t reserve_bytes = 0;  // driver, buffers, graphs: see kReserve... below
  int64_t capacity_bytes = 0;
  int64_t read_bytes = 0;  // of weights, by one token alone in its step

  int64_t used_bytes() const { return weight_bytes + kv_bytes + reserve_bytes; }
  bool fits() const { return used_bytes() <= capacity_bytes; }
};

/// How fast one sequence is generated, short of measuring it.
struct SpeedEstimate {
  double limit_tokens_s = 0;     // every byte once, at the full bandwidth, and nothing else
  double expected_tokens_s = 0;  // with the assumptions below
};

// Assumptions of `expected_tokens_s`, printed beside it. Weights and cache stream at a part of the
// data sheet's bandwidth; each layer costs a few kernel boundaries, and two sums over the ranks.
inline constexpr double kBandwidthShare = 0.6;
inline constexpr double kKernelUs = 3.0;
inline constexpr double kAllReduceUs = 6.0;
inline constexpr int kDenseKernels = 5;  // a layer
inline constexpr int kMoeKernels = 11;
// What one core multiplies in a second, GB of quantised weights: 8.4 (Q4_K) and 8.7 (Q4_1) were
// measured on one core with AVX-512.
inline constexpr double kCoreGbS = 8.0;

// What a GPU can't give to weights and cache: a part of its memory (the driver, fragmentation), and
// the context, graphs and buffers of a process.
inline constexpr double kReserveShare = 0.04;
inline constexpr int64_t kReserveBytes = 700'000'000;

// As fast as people read: what a processor should do to be of use.
inline constexpr double kUsefulTokensS = 5;

/// What a machine without GPUs needs to generate one sequence at a rate.
struct HostNeed {
  int n_cores = 0;
  double bandwidth_gb_s = 0;  // of the data sheet, of which kBandwidthShare is reached
};

/// For kUsefulTokensS of `model`, under the assumptions above.
HostNeed host_need(const ModelFootprint& model);

/// One way to lay the model out.
struct Layout {
  int n_gpus = 0;       // 0: in the host's memory
  std::string problem;  // why it can't be cut so; empty: it can
  std::vector<RankPlan> ranks;
  int64_t max_context = 0;  // tokens that fit, at most what the model was made for; 0: none
  SpeedEstimate speed;

  bool fits() const;
  /// The rank that is fullest.
  const RankPlan& worst() const;
};

/// A change after which the model fits, the least first.
struct Remedy {
  enum class Kind { kKvType, kContext, kGpus, kQuant, kCards } kind = Kind::kKvType;
  KvType kv_type = KvType::kF16;
  int64_t n_context = 0;
  int n_gpus = 0;              // kGpus: of the machine's kind; kCards: of `card`
  std::string card;            // of known machines up to eight cards that hold it the smallest
  double tokens_s = 0;         // kCards: what is to be expected of them
  double bits_per_weight = 0;  // a model of at most so many bits would fit
  std::string quant;           // the largest usual quant below that
};

struct MemoryPlan {
  PlanRequest request;
  Layout chosen;
  std::vector<Layout> layouts;   // 1, 2, 4 ... GPUs, and all of them; the host alone without GPUs
  std::vector<Remedy> remedies;  // empty when it fits
};

/// The bytes of weights of every rank of `tp_size`, as the engine's models cut them: heads, blocks
/// of the feed-forward network, experts or parts of them, the vocabulary of the head; the rest
/// replicated. Throws Error when there are fewer of one of these than ranks.
std::vector<int64_t> rank_weight_bytes(const gguf::GgufFile& file, const ModelFootprint& model,
                                       int tp_size);

/// Of 1, 2, 4 or 8 known cards the least memory that holds the model with request.n_context tokens;
/// nothing when no such machine does.
std::optional<Remedy> smallest_cards(const gguf::GgufFile& file, const ModelFootprint& model,
                                     const PlanRequest& request);

/// Plans. n_context is capped by the model's own length; 0 is the smaller of 8192 and that. Throws
/// Error when tp_size is more than the machine has.
MemoryPlan plan_memory(const gguf::GgufFile& file, const ModelFootprint& model,
                       const Machine& machine, const PlanRequest& request);

}  // namespace dsctl::engine
