#include "engine/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/error.h"
#include "engine/shard.h"

namespace dsctl::engine {
namespace {

constexpr int64_t kDefaultContext = 8192;
constexpr int64_t kMinUsefulContext = 1024;
constexpr int kMaxPlannedGpus = 64;

struct KvTypeInfo {
  KvType type;
  std::string_view name;
  int64_t block_bytes;  // of 32 values
};
constexpr KvTypeInfo kKvTypes[] = {
    {KvType::kF32, "f32", 128},  {KvType::kF16, "f16", 64}, {KvType::kBf16, "bf16", 64},
    {KvType::kQ8_0, "q8_0", 34}, {KvType::kFp8, "fp8", 32}, {KvType::kQ4_0, "q4_0", 18},
};

const KvTypeInfo& info_of(KvType type) {
  return kKvTypes[static_cast<size_t>(type)];
}

/// Mean bits of the usual quants of whole models, the largest first. A model's own mix differs by a
/// few percent.
struct QuantBits {
  std::string_view name;
  double bits;
};
constexpr QuantBits kQuants[] = {
    {"Q8_0", 8.5},   {"Q6_K", 6.6},    {"Q5_K_M", 5.7}, {"Q4_K_M", 4.9},
    {"IQ4_XS", 4.4}, {"Q3_K_M", 4.0},  {"Q3_K_S", 3.6}, {"Q2_K", 3.1},
    {"IQ2_M", 2.8},  {"IQ2_XXS", 2.2}, {"IQ1_M", 1.9},  {"IQ1_S", 1.6},
};

bool ends_with(std::string_view name, std::string_view ending) {
  return name.ends_with(ending);
}

bool has(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

int64_t bytes_of_rows(const gguf::TensorInfo& tensor, int64_t n_rows) {
  return gguf::row_size_bytes(tensor.dtype, tensor.dims[0]) * n_rows;
}

/// Bytes of the columns `cols` (whole blocks) of all rows.
int64_t bytes_of_cols(const gguf::TensorInfo& tensor, Range cols) {
  return gguf::row_size_bytes(tensor.dtype, cols.size()) * tensor.n_rows();
}

/// The rules by which the models of engine/models cut their tensors.
class Cutter {
 public:
  Cutter(const gguf::GgufFile& file, const ModelFootprint& model, int tp_size)
      : file_(file), model_(model), tp_size_(tp_size) {
    output_block_ = largest_block("attn_output.weight");
    ffn_block_ = largest_block("ffn_down.weight");
    shared_block_ = largest_block("ffn_down_shexp.weight");
    expert_block_ = largest_block("ffn_down_exps.weight");
    if (const gguf::TensorInfo* down = find_any("ffn_down_exps.weight"))
      expert_dim_ = down->dims[0];
  }

  int64_t weight_bytes(int rank) const {
    const Shard shard{rank, tp_size_};
    int64_t total = 0;
    for (const gguf::TensorInfo& tensor : file_.tensors())
      total += tensor_bytes(tensor, shard);
    return total;
  }

 private:
  const gguf::TensorInfo* find_any(std::string_view suffix) const {
    for (const gguf::TensorInfo& tensor : file_.tensors()) {
      if (is_suffix(tensor.name, suffix)) return &tensor;
    }
    return nullptr;
  }

  static bool is_suffix(std::string_view name, std::string_view suffix) {
    return ends_with(name, suffix) && name.size() > suffix.size() &&
           name[name.size() - suffix.size() - 1] == '.';
  }

  int64_t largest_block(std::string_view suffix) const {
    int64_t largest = 1;
    for (const gguf::TensorInfo& tensor : file_.tensors()) {
      if (!is_suffix(tensor.name, suffix)) continue;
      largest = std::max<int64_t>(largest, gguf::dtype_info(tensor.dtype).block_elems);
    }
    return largest;
  }

  int64_t tensor_bytes(const gguf::TensorInfo& tensor, const Shard& shard) const {
    const std::string_view name = tensor.name;
    switch (weight_kind(name, model_.n_layers)) {
      case WeightKind::kAttention:
        return attention_bytes(tensor, shard);
      case WeightKind::kDenseFfn:
        return ffn_bytes(tensor, shard, "ffn_down.weight", ffn_block_);
      case WeightKind::kSharedExperts:
        return ffn_bytes(tensor, shard, "ffn_down_shexp.weight", shared_block_);
      case WeightKind::kRoutedExperts:
        return expert_bytes(tensor, shard);
      case WeightKind::kHead:
        return bytes_of_rows(tensor, shard.split(tensor.dims[1], "tokens").size());
      case WeightKind::kSkipped:
        return 0;
      case WeightKind::kEmbedding:
      case WeightKind::kRouter:
      case WeightKind::kOther:
        return tensor.size_bytes;
    }
    return tensor.size_bytes;
  }

  int64_t attention_bytes(const gguf::TensorInfo& tensor, const Shard& shard) const {
    const std::string_view name = tensor.name;
    const bool is_latent = model_.kv.latent_dim > 0;
    // Both are the first step down, before there are heads.
    if (has(name, ".attn_q_a") || has(name, ".attn_kv_a")) return tensor.size_bytes;
    const int64_t n_units = std::max(1, is_latent ? model_.kv.n_heads : model_.kv.n_kv_heads);
    const Range units = shard.split(n_units, is_latent ? "heads" : "key/value heads");
    if (is_suffix(name, "attn_output.weight")) {
      const int64_t per_unit = tensor.dims[0] / n_units;
      Range cols = widen(units.times(per_unit), output_block_);
      cols.end = std::min(cols.end, tensor.dims[0]);
      return bytes_of_cols(tensor, cols);
    }
    if (is_suffix(name, "attn_output.bias")) return tensor.size_bytes;
    // Matrices have their outputs by head; so have biases, which are one row.
    if (tensor.n_dims == 1) return tensor.size_bytes / n_units * units.size();
    return bytes_of_rows(tensor, tensor.n_rows() / n_units * units.size());
  }

  /// The columns of a network of `dim` that are a rank's, in whole blocks of the down projection.
  int64_t ffn_bytes(const gguf::TensorInfo& tensor, const Shard& shard, std::string_view down_name,
                    int64_t block) const {
    const bool is_down = is_suffix(tensor.name, down_name);
    if (!is_down && tensor.n_dims == 1) return tensor.size_bytes;
    const gguf::TensorInfo* down = &tensor;
    if (!is_down) {
      const std::string prefix(tensor.name.substr(0, tensor.name.find('.', 4) + 1));
      down = file_.find_tensor(prefix + std::string(down_name));
      if (!down) return tensor.size_bytes;
    }
    const int64_t ffn_dim = down->dims[0];
    const Range own = shard.split_blocks(ffn_dim, block, "blocks of the feed-forward network");
    if (is_down) return bytes_of_cols(tensor, own);
    // Gate and up may be one tensor of twice the rows.
    return bytes_of_rows(tensor, tensor.n_rows() / ffn_dim * own.size());
  }

  int64_t expert_bytes(const gguf::TensorInfo& tensor, const Shard& shard) const {
    const int64_t n_blocks = (expert_dim_ + expert_block_ - 1) / expert_block_;
    if (tensor.n_dims == 1 || expert_dim_ == 0) return tensor.size_bytes;
    if (n_blocks < shard.size) {
      const Range experts = shard.split(model_.n_experts, "experts");
      return tensor.size_bytes / std::max(1, model_.n_experts) * experts.size();
    }
    const Range own = shard.split_blocks(expert_dim_, expert_block_, "blocks of an expert");
    if (is_suffix(tensor.name, "ffn_down_exps.weight")) return bytes_of_cols(tensor, own);
    return bytes_of_rows(tensor, tensor.n_rows() / expert_dim_ * own.size());
  }

  const gguf::GgufFile& file_;
  const ModelFootprint& model_;
  int tp_size_ = 1;
  int64_t output_block_ = 1;
  int64_t ffn_block_ = 1;
  int64_t shared_block_ = 1;
  int64_t expert_block_ = 1;
  int64_t expert_dim_ = 0;
};

int64_t reserve_of(int64_t capacity_bytes) {
  return kReserveBytes + static_cast<int64_t>(kReserveShare * static_cast<double>(capacity_bytes));
}

/// Of a rank's weights what a token reads: all but the rows of the table and the experts that are
/// not chosen. Cut experts are read in the same share by all; whole ones as they come.
int64_t rank_read_bytes(const ModelFootprint& model, int64_t rank_bytes, int tp_size) {
  int64_t unread = model.of(WeightKind::kEmbedding).size_bytes;
  if (model.is_tied) {
    // The table is here whole, but as the head each rank reads its share.
    unread -= unread / tp_size;
  }
  const WeightTotal& experts = model.of(WeightKind::kRoutedExperts);
  unread += (experts.size_bytes - experts.read_bytes) / tp_size;
  return std::max<int64_t>(0, rank_bytes - unread);
}

int64_t rank_kv_values(const ModelFootprint& model, int tp_size, int rank, int64_t n_context) {
  const int64_t all = model.kv.values(n_context);
  if (tp_size == 1 || model.kv.latent_dim > 0 || model.kv.n_kv_heads == 0) return all;
  const Range own = Shard{rank, tp_size}.split(model.kv.n_kv_heads, "key/value heads");
  return all / model.kv.n_kv_heads * own.size();
}

SpeedEstimate estimate_speed(const ModelFootprint& model, const Layout& layout,
                             double bandwidth_gb_s, int host_cores) {
  SpeedEstimate speed;
  if (bandwidth_gb_s <= 0) return speed;
  int64_t bytes = 0;
  for (const RankPlan& rank : layout.ranks)
    bytes = std::max(bytes, rank.read_bytes);
  const double read_s = static_cast<double>(bytes) / (bandwidth_gb_s * 1e9);
  speed.limit_tokens_s = 1 / read_s;
  const int n_kernels = model.n_experts > 0 ? kMoeKernels : kDenseKernels;
  double other_us = layout.n_gpus > 0 ? model.n_layers * n_kernels * kKernelUs : 0;
  if (layout.n_gpus > 1) other_us += 2 * model.n_layers * kAllReduceUs;
  double step_s = read_s / kBandwidthShare + other_us * 1e-6;
  if (layout.n_gpus == 0 && host_cores > 0) {
    step_s = std::max(step_s, static_cast<double>(bytes) / (host_cores * kCoreGbS * 1e9));
  }
  speed.expected_tokens_s = 1 / step_s;
  return speed;
}

/// The longest context that fits, at most `limit`.
int64_t longest_context(const ModelFootprint& model, const Layout& layout, KvType type,
                        int64_t limit) {
  int64_t longest = limit;
  const auto tp_size = static_cast<int>(layout.ranks.size());
  for (int rank = 0; rank < tp_size; ++rank) {
    const RankPlan& plan = layout.ranks[static_cast<size_t>(rank)];
    const int64_t room = plan.capacity_bytes - plan.weight_bytes - plan.reserve_bytes;
    const int64_t per_token = kv_bytes(type, rank_kv_values(model, tp_size, rank, 1));
    if (room < per_token) return 0;
    if (per_token > 0) longest = std::min(longest, room / per_token);
  }
  return longest;
}

int64_t context_limit(const ModelFootprint& model) {
  return model.context_length > 0 ? model.context_length : std::numeric_limits<int32_t>::max();
}

Layout lay_out(const gguf::GgufFile& file, const ModelFootprint& model, const Machine& machine,
               const PlanRequest& request, int n_gpus) {
  Layout layout;
  layout.n_gpus = n_gpus;
  const int tp_size = std::max(1, n_gpus);
  std::vector<int64_t> weights;
  try {
    weights = rank_weight_bytes(file, model, tp_size);
    for (int rank = 0; rank < tp_size; ++rank) {
      RankPlan plan;
      plan.weight_bytes = weights[static_cast<size_t>(rank)];
      plan.kv_bytes =
          kv_bytes(request.kv_type, rank_kv_values(model, tp_size, rank, request.n_context));
      const auto& gpus = machine.gpus;
      plan.capacity_bytes = n_gpus > 0 ? gpus[static_cast<size_t>(rank) % gpus.size()].memory_bytes
                                       : machine.host_bytes;
      plan.reserve_bytes = reserve_of(plan.capacity_bytes);
      plan.read_bytes = rank_read_bytes(model, plan.weight_bytes, tp_size);
      layout.ranks.push_back(plan);
    }
  } catch (const Error& error) {
    layout.problem = error.what();
    layout.ranks.clear();
    return layout;
  }
  layout.max_context = longest_context(model, layout, request.kv_type, context_limit(model));
  layout.speed = estimate_speed(
      model, layout, n_gpus > 0 ? machine.gpus[0].bandwidth_gb_s : machine.host_bandwidth_gb_s,
      machine.host_cores);
  return layout;
}

/// 1, 2, 4 ... and all.
std::vector<int> gpu_counts(size_t n_gpus) {
  std::vector<int> counts;
  for (size_t n = 1; n < n_gpus; n *= 2)
    counts.push_back(static_cast<int>(n));
  if (n_gpus > 0) counts.push_back(static_cast<int>(n_gpus));
  return counts;
}

std::string largest_quant(double bits) {
  for (const QuantBits& quant : kQuants) {
    if (quant.bits <= bits) return std::string(quant.name);
  }
  return "";
}

std::vector<Remedy> find_remedies(const gguf::GgufFile& file, const ModelFootprint& model,
                                  const Machine& machine, const PlanRequest& request,
                                  const Layout& chosen) {
  std::vector<Remedy> remedies;
  const int n_gpus = chosen.n_gpus;
  for (const KvType type : {KvType::kF16, KvType::kFp8}) {
    if (kv_bytes(type, 32) >= kv_bytes(request.kv_type, 32)) continue;
    PlanRequest smaller = request;
    smaller.kv_type = type;
    if (!lay_out(file, model, machine, smaller, n_gpus).fits()) continue;
    Remedy remedy;
    remedy.kind = Remedy::Kind::kKvType;
    remedy.kv_type = type;
    remedies.push_back(remedy);
    break;
  }
  if (chosen.max_context >= kMinUsefulContext && chosen.max_context < request.n_context) {
    Remedy remedy;
    remedy.kind = Remedy::Kind::kContext;
    remedy.n_context = chosen.max_context / 256 * 256;
    remedies.push_back(remedy);
  }
  // More cards of the kind that is there, in the numbers in which machines have them.
  for (int n = 1; n_gpus > 0 && n <= kMaxPlannedGpus; n *= 2) {
    if (n <= n_gpus) continue;
    if (!lay_out(file, model, machine, request, n).fits()) continue;
    Remedy remedy;
    remedy.kind = Remedy::Kind::kGpus;
    remedy.n_gpus = n;
    remedies.push_back(remedy);
    break;
  }
  if (!chosen.ranks.empty()) {
    const RankPlan& worst = chosen.worst();
    const int64_t room = worst.capacity_bytes - worst.kv_bytes - worst.reserve_bytes;
    Remedy remedy;
    remedy.kind = Remedy::Kind::kQuant;
    remedy.bits_per_weight = model.bits_per_weight() *
                             static_cast<double>(std::max<int64_t>(0, room)) /
                             static_cast<double>(std::max<int64_t>(1, worst.weight_bytes));
    remedy.quant = largest_quant(remedy.bits_per_weight);
    if (!remedy.quant.empty()) remedies.push_back(remedy);
  }
  if (const auto cards = smallest_cards(file, model, request)) remedies.push_back(*cards);
  return remedies;
}

}  // namespace

std::string_view kv_type_name(KvType type) {
  return info_of(type).name;
}

KvType parse_kv_type(std::string_view name) {
  std::string names;
  std::string small(name);
  std::transform(small.begin(), small.end(), small.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  for (const KvTypeInfo& info : kKvTypes) {
    if (info.name == small) return info.type;
    names += (names.empty() ? "" : ", ") + std::string(info.name);
  }
  throw Error("\"" + std::string(name) + "\" is no type of a KV cache, expected one of " + names);
}

int64_t kv_bytes(KvType type, int64_t n_values) {
  const int64_t block = info_of(type).block_bytes;
  return n_values / 32 * block + (n_values % 32 * block + 31) / 32;
}

bool Layout::fits() const {
  return problem.empty() && !ranks.empty() &&
         std::all_of(ranks.begin(), ranks.end(), [](const RankPlan& rank) { return rank.fits(); });
}

const RankPlan& Layout::worst() const {
  return *std::max_element(ranks.begin(), ranks.end(), [](const RankPlan& a, const RankPlan& b) {
    return a.used_bytes() - a.capacity_bytes < b.used_bytes() - b.capacity_bytes;
  });
}

std::vector<int64_t> rank_weight_bytes(const gguf::GgufFile& file, const ModelFootprint& model,
                                       int tp_size) {
  const Cutter cutter(file, model, tp_size);
  std::vector<int64_t> bytes;
  for (int rank = 0; rank < tp_size; ++rank)
    bytes.push_back(cutter.weight_bytes(rank));
  return bytes;
}

HostNeed host_need(const ModelFootprint& model) {
  const double gb_s = static_cast<double>(model.total.read_bytes) * kUsefulTokensS / 1e9;
  return {std::max(1, static_cast<int>(std::ceil(gb_s / kCoreGbS))), gb_s / kBandwidthShare};
}

std::optional<Remedy> smallest_cards(const gguf::GgufFile& file, const ModelFootprint& model,
                                     const PlanRequest& request) {
  std::optional<Remedy> best;
  int best_gib = std::numeric_limits<int>::max();
  for (const int n : {1, 2, 4, 8}) {
    Machine machine;
    machine.gpus.resize(static_cast<size_t>(n));
    const Layout layout = lay_out(file, model, machine, request, n);
    if (!layout.problem.empty()) continue;
    int64_t needed = 0;
    for (const RankPlan& rank : layout.ranks)
      needed = std::max(needed, rank.weight_bytes + rank.kv_bytes);
    const GpuCard* card = &known_cards()[0];
    for (const GpuCard& candidate : known_cards()) {
      if (candidate.is_alone && n > 1) continue;
      const int64_t capacity = int64_t{candidate.memory_gib} << 30;
      card = &candidate;
      if (needed + reserve_of(capacity) <= capacity) break;
    }
    const int64_t capacity = int64_t{card->memory_gib} << 30;
    if (needed + reserve_of(capacity) > capacity || n * card->memory_gib >= best_gib) continue;
    best_gib = n * card->memory_gib;
    best.emplace();
    best->kind = Remedy::Kind::kCards;
    best->n_gpus = n;
    best->card = std::string(card->name);
    best->tokens_s = estimate_speed(model, layout, card->bandwidth_gb_s, 0).expected_tokens_s;
  }
  return best;
}

MemoryPlan plan_memory(const gguf::GgufFile& file, const ModelFootprint& model,
                       const Machine& machine, const PlanRequest& request) {
  MemoryPlan plan;
  plan.request = request;
  const int64_t limit = context_limit(model);
  plan.request.n_context =
      std::min(limit, request.n_context > 0 ? request.n_context : kDefaultContext);
  const auto n_gpus = static_cast<int>(machine.gpus.size());
  if (request.tp_size > n_gpus) {
    throw Error("tensor parallelism over " + std::to_string(request.tp_size) + " GPUs: there are " +
                std::to_string(n_gpus));
  }
  const auto lay = [&](int n) { return lay_out(file, model, machine, plan.request, n); };
  if (n_gpus == 0) {
    plan.layouts.push_back(lay(0));
    plan.chosen = plan.layouts[0];
  } else {
    for (const int n : gpu_counts(machine.gpus.size()))
      plan.layouts.push_back(lay(n));
    if (request.tp_size > 0) {
      plan.chosen = lay(request.tp_size);
    } else {
      // The fewest that hold it; else the most that it can be cut over.
      for (const Layout& layout : plan.layouts) {
        if (!layout.problem.empty()) continue;
        plan.chosen = layout;
        if (layout.fits()) break;
      }
    }
  }
  if (!plan.chosen.fits()) {
    plan.remedies = find_remedies(file, model, machine, plan.request, plan.chosen);
  }
  return plan;
}

}  // namespace dsctl::engine
