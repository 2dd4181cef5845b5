#include "commands/plan_report.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "commands/model_info.h"
#include "commands/plan.h"
#include "commands/plan_machine.h"
#include "commands/show_file.h"

namespace dsctl::commands {
namespace {

using engine::KvFootprint;
using engine::Layout;
using engine::Machine;
using engine::MemoryPlan;
using engine::ModelFootprint;
using engine::RankPlan;
using engine::Remedy;
using engine::WeightKind;
using Json = nlohmann::ordered_json;

std::string format(const char* pattern, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), pattern, value);
  return text;
}

std::string gb(int64_t size_bytes) {
  const auto value = static_cast<double>(size_bytes);
  if (value < 1e8) return format("%.1f MB", value / 1e6);
  return format(value < 99.95e9 ? "%.2f GB" : "%.1f GB", value / 1e9);
}

std::string speed_text(double tokens_s) {
  if (tokens_s <= 0) return "-";
  return format(tokens_s < 9.95 ? "%.1f" : "%.0f", tokens_s);
}

/// 1, 2 ... as the table's heading says; the host has no number.
std::string gpus_text(const Layout& layout) {
  return layout.n_gpus == 0 ? "memory" : std::to_string(layout.n_gpus);
}

Section model_section(const PlannedModel& planned) {
  const ModelFootprint& model = planned.model;
  Section section{"Model", {}};
  section.rows.push_back({"name", planned.name});
  section.rows.push_back(
      {"architecture", model.architecture + ", " + std::to_string(model.n_layers) + " layers"});
  std::string parameters = format_parameter_count(model.total.n_parameters);
  if (model.n_experts > 0) {
    parameters += ", of them " + format_parameter_count(model.total.read_parameters) +
                  " active for a token (" + std::to_string(model.n_used_experts) + " of " +
                  std::to_string(model.n_experts) + " experts)";
  }
  section.rows.push_back({"parameters", parameters});
  section.rows.push_back({"weights", gb(model.total.size_bytes) + ", " +
                                         format("%.2f", model.bits_per_weight()) + " bits each"});
  section.rows.push_back({"a token reads", gb(model.total.read_bytes)});
  if (model.context_length > 0) {
    section.rows.push_back({"made for", std::to_string(model.context_length) + " tokens"});
  }
  return section;
}

Section kinds_section(const ModelFootprint& model) {
  Section section{"Weights by purpose", {{"", "tensors", "size", "read a token"}}};
  for (int i = 0; i < engine::kNumWeightKinds; ++i) {
    const engine::WeightTotal& total = model.kinds[static_cast<size_t>(i)];
    if (total.n_tensors == 0) continue;
    section.rows.push_back({std::string(weight_kind_name(static_cast<WeightKind>(i))),
                            std::to_string(total.n_tensors), gb(total.size_bytes),
                            gb(total.read_bytes)});
  }
  return section;
}

Section types_section(const ModelFootprint& model) {
  Section section{"Weights by type", {}};
  for (const gguf::TypeTotal& total : model.types) {
    section.rows.push_back({std::string(gguf::dtype_info(total.dtype).name),
                            std::to_string(total.n_tensors) + " tensors", gb(total.size_bytes)});
  }
  return section;
}

/// Layers of one size together: "0-2", "3-60".
Section layers_section(const ModelFootprint& model) {
  Section section{"Weights by layer", {}};
  // Q4_K_M alternates between two sizes: shown as a range of sizes over layers that read alike.
  size_t begin = 0;
  const auto close = [&](size_t end) {
    int64_t least = INT64_MAX;
    int64_t most = 0;
    for (size_t i = begin; i < end; ++i) {
      least = std::min(least, model.layers[i].size_bytes);
      most = std::max(most, model.layers[i].size_bytes);
    }
    const std::string range = begin + 1 == end
                                  ? std::to_string(begin)
                                  : std::to_string(begin) + "-" + std::to_string(end - 1);
    section.rows.push_back(
        {"layer" + std::string(begin + 1 == end ? " " : "s ") + range,
         least == most ? gb(least) + " each" : gb(least) + " to " + gb(most) + " each"});
    begin = end;
  };
  for (size_t i = 1; i <= model.layers.size(); ++i) {
    if (i == model.layers.size() || model.layers[i].n_tensors != model.layers[begin].n_tensors ||
        model.layers[i].n_parameters != model.layers[begin].n_parameters)
      close(i);
  }
  return section;
}

Section kv_section(const PlannedModel& planned) {
  const KvFootprint& kv = planned.model.kv;
  const engine::PlanRequest& request = planned.plan.request;
  const auto bytes = [&](int64_t n_values) { return kv_bytes(request.kv_type, n_values); };
  Section section{"KV cache", {}};
  std::string kind;
  if (kv.latent_dim > 0) {
    kind = "latent rows of " + std::to_string(kv.latent_dim) +
           " values (all heads expanded: " + std::to_string(bytes(kv.expanded_values)) + " bytes)";
  } else {
    kind = std::to_string(kv.n_kv_heads) + " key/value heads for " + std::to_string(kv.n_heads) +
           " heads";
  }
  section.rows.push_back({"a token", std::to_string(bytes(kv.values(1))) + " bytes in " +
                                         std::string(kv_type_name(request.kv_type)) + ": " + kind});
  section.rows.push_back(
      {std::to_string(request.n_context) + " tokens", gb(bytes(kv.values(request.n_context)))});
  if (kv.n_window_layers > 0) {
    section.rows.push_back({"windows", std::to_string(kv.n_window_layers) + " of " +
                                           std::to_string(kv.n_layers) + " layers see " +
                                           std::to_string(kv.window) + " tokens; kept to that, " +
                                           gb(bytes(kv.windowed_values(request.n_context)))});
  }
  return section;
}

Section layouts_section(const PlannedModel& planned, const Machine& machine) {
  Section section{"On " + machine_text(machine), {}};
  section.rows.push_back({machine.gpus.empty() ? "" : "GPUs", "weights", "KV cache", "reserve",
                          "sum", "of", "fits", "context", "tokens/s", "at most"});
  std::vector<Layout> layouts = planned.plan.layouts;
  const auto is_chosen = [&](const Layout& layout) {
    return layout.n_gpus == planned.plan.chosen.n_gpus;
  };
  if (std::none_of(layouts.begin(), layouts.end(), is_chosen)) {
    layouts.push_back(planned.plan.chosen);
    std::sort(layouts.begin(), layouts.end(),
              [](const Layout& a, const Layout& b) { return a.n_gpus < b.n_gpus; });
  }
  for (const Layout& layout : layouts) {
    const std::string name = gpus_text(layout) + (is_chosen(layout) ? " <" : "");
    if (!layout.problem.empty()) {
      section.rows.push_back({name, layout.problem});
      continue;
    }
    const RankPlan& rank = layout.worst();
    section.rows.push_back({name, gb(rank.weight_bytes), gb(rank.kv_bytes), gb(rank.reserve_bytes),
                            gb(rank.used_bytes()), gb(rank.capacity_bytes),
                            layout.fits() ? "yes" : "no", std::to_string(layout.max_context),
                            speed_text(layout.speed.expected_tokens_s),
                            speed_text(layout.speed.limit_tokens_s)});
  }
  return section;
}

std::string verdict_text(const PlannedModel& planned, const Machine& machine) {
  const MemoryPlan& plan = planned.plan;
  const std::string tokens = std::to_string(plan.request.n_context) + " tokens";
  const std::string where = machine.gpus.empty()
                                ? "the memory"
                                : std::to_string(plan.chosen.n_gpus) + " x " + machine.gpus[0].name;
  if (plan.chosen.fits()) {
    std::string text = "Fits " + where + " with " + tokens + " of context; up to " +
                       std::to_string(plan.chosen.max_context) + " would.\n";
    if (plan.chosen.speed.expected_tokens_s > 0) {
      text += "One sequence: about " + speed_text(plan.chosen.speed.expected_tokens_s) +
              " tokens/s, if it reads and waits as assumed (" + assumptions_text() + ").\n";
    }
    return text;
  }
  std::string text = "Does not fit " + where + " with " + tokens + " of context";
  if (plan.chosen.ranks.empty()) {
    text += ": " + plan.chosen.problem + ".\n";
  } else {
    const RankPlan& rank = plan.chosen.worst();
    text += ": " + gb(rank.used_bytes()) + " are needed" +
            (plan.chosen.n_gpus > 1 ? " on each GPU" : "") + ", " + gb(rank.capacity_bytes) +
            " are there (" + gb(rank.used_bytes() - rank.capacity_bytes) +
            " too much). Nothing is spilled.\n";
  }
  const char* lead = "It would fit with ";
  for (const Remedy& remedy : plan.remedies) {
    text += lead + remedy_text(remedy, machine) + ".\n";
    lead = "  or with ";
  }
  if (!planned.others.empty()) {
    text += "Of the same repository " + planned.others[0].label + " (" +
            gb(planned.others[0].size_bytes) + ") would fit.\n";
  }
  if (plan.remedies.empty() && planned.others.empty()) {
    text += "No change that this program knows of would make it fit.\n";
  }
  return text;
}

Json rank_json(const RankPlan& rank) {
  return {{"weight_bytes", rank.weight_bytes},     {"kv_bytes", rank.kv_bytes},
          {"reserve_bytes", rank.reserve_bytes},   {"used_bytes", rank.used_bytes()},
          {"capacity_bytes", rank.capacity_bytes}, {"read_bytes", rank.read_bytes}};
}

Json or_null(double value) {
  return value > 0 ? Json(value) : Json();
}

Json layout_json(const Layout& layout) {
  Json json;
  json["gpus"] = layout.n_gpus;
  json["fits"] = layout.fits();
  json["problem"] = layout.problem.empty() ? Json() : Json(layout.problem);
  json["max_context"] = layout.max_context;
  json["tokens_per_second"] = or_null(layout.speed.expected_tokens_s);
  json["limit_tokens_per_second"] = or_null(layout.speed.limit_tokens_s);
  json["ranks"] = Json::array();
  for (const RankPlan& rank : layout.ranks)
    json["ranks"].push_back(rank_json(rank));
  return json;
}

Json weights_json(const ModelFootprint& model) {
  Json json;
  json["size_bytes"] = model.total.size_bytes;
  json["bits_per_weight"] = model.bits_per_weight();
  json["read_bytes_per_token"] = model.total.read_bytes;
  json["kinds"] = Json::array();
  for (int i = 0; i < engine::kNumWeightKinds; ++i) {
    const engine::WeightTotal& total = model.kinds[static_cast<size_t>(i)];
    if (total.n_tensors == 0) continue;
    json["kinds"].push_back({{"kind", weight_kind_name(static_cast<WeightKind>(i))},
                             {"tensors", total.n_tensors},
                             {"parameters", total.n_parameters},
                             {"size_bytes", total.size_bytes},
                             {"read_bytes_per_token", total.read_bytes}});
  }
  json["types"] = Json::array();
  for (const gguf::TypeTotal& total : model.types) {
    json["types"].push_back({{"type", gguf::dtype_info(total.dtype).name},
                             {"tensors", total.n_tensors},
                             {"size_bytes", total.size_bytes}});
  }
  json["layer_bytes"] = Json::array();
  for (const engine::WeightTotal& layer : model.layers)
    json["layer_bytes"].push_back(layer.size_bytes);
  return json;
}

Json kv_json(const PlannedModel& planned) {
  const KvFootprint& kv = planned.model.kv;
  const engine::PlanRequest& request = planned.plan.request;
  const auto bytes = [&](int64_t n_values) { return kv_bytes(request.kv_type, n_values); };
  Json json;
  json["type"] = kv_type_name(request.kv_type);
  json["bytes_per_token"] = bytes(kv.values(1));
  json["expanded_bytes_per_token"] = kv.latent_dim > 0 ? Json(bytes(kv.expanded_values)) : Json();
  json["context"] = request.n_context;
  json["bytes"] = bytes(kv.values(request.n_context));
  json["window"] = kv.window > 0 ? Json(kv.window) : Json();
  json["window_layers"] = kv.n_window_layers;
  json["windowed_bytes"] = bytes(kv.windowed_values(request.n_context));
  return json;
}

Json remedy_json(const Remedy& remedy, const Machine& machine) {
  Json json;
  json["text"] = remedy_text(remedy, machine);
  switch (remedy.kind) {
    case Remedy::Kind::kKvType:
      json["kv_type"] = kv_type_name(remedy.kv_type);
      break;
    case Remedy::Kind::kContext:
      json["context"] = remedy.n_context;
      break;
    case Remedy::Kind::kGpus:
      json["gpus"] = remedy.n_gpus;
      break;
    case Remedy::Kind::kCards:
      json["gpus"] = remedy.n_gpus;
      json["card"] = remedy.card;
      break;
    case Remedy::Kind::kQuant:
      json["bits_per_weight"] = remedy.bits_per_weight;
      json["quant"] = remedy.quant;
      break;
  }
  return json;
}

Json model_json(const PlannedModel& planned, const Machine& machine) {
  const ModelFootprint& model = planned.model;
  const MemoryPlan& plan = planned.plan;
  Json json;
  json["model"] = planned.name;
  json["fits"] = plan.chosen.fits();
  json["architecture"] = model.architecture;
  json["layers"] = model.n_layers;
  json["context_length"] = model.context_length > 0 ? Json(model.context_length) : Json();
  json["parameters"] = model.total.n_parameters;
  json["active_parameters"] = model.total.read_parameters;
  json["experts"] = model.n_experts;
  json["used_experts"] = model.n_used_experts;
  json["weights"] = weights_json(model);
  json["kv_cache"] = kv_json(planned);
  json["chosen"] = layout_json(plan.chosen);
  json["layouts"] = Json::array();
  for (const Layout& layout : plan.layouts)
    json["layouts"].push_back(layout_json(layout));
  json["remedies"] = Json::array();
  for (const Remedy& remedy : plan.remedies)
    json["remedies"].push_back(remedy_json(remedy, machine));
  json["smallest_gpus"] = planned.smallest ? remedy_json(*planned.smallest, machine) : Json();
  const engine::HostNeed need = host_need(model);
  json["without_gpus"] = {{"tokens_per_second", engine::kUsefulTokensS},
                          {"cores", need.n_cores},
                          {"bandwidth_gb_s", need.bandwidth_gb_s}};
  json["fitting_variants"] = Json::array();
  for (const OtherVariant& other : planned.others)
    json["fitting_variants"].push_back({{"label", other.label}, {"size_bytes", other.size_bytes}});
  return json;
}

/// "6 at 75 GB/s".
std::string host_need_text(const engine::HostNeed& need) {
  return std::to_string(need.n_cores) + " at " +
         format(need.bandwidth_gb_s < 9.95 ? "%.1f" : "%.0f", need.bandwidth_gb_s) + " GB/s";
}

}  // namespace

std::string cores_text() {
  return format("CORES WITHOUT: what gives %.0f tokens/s without GPUs, ", engine::kUsefulTokensS) +
         format("%.0f GB/s of weights a core and memory of that bandwidth", engine::kCoreGbS);
}

std::string assumptions_text() {
  return format("little context; %.0f %% of the bandwidth; ", engine::kBandwidthShare * 100) +
         format("%.0f GB/s a core on processors; on GPUs ", engine::kCoreGbS) +
         format("%.0f us for each of ", engine::kKernelUs) + std::to_string(engine::kDenseKernels) +
         " kernels a layer, " + std::to_string(engine::kMoeKernels) +
         format(" with experts, and %.0f us for each of 2 sums over several", engine::kAllReduceUs);
}

std::string remedy_text(const Remedy& remedy, const Machine& machine) {
  switch (remedy.kind) {
    case Remedy::Kind::kKvType:
      return "a KV cache in " + std::string(kv_type_name(remedy.kv_type));
    case Remedy::Kind::kContext:
      return "at most " + std::to_string(remedy.n_context) + " tokens of context";
    case Remedy::Kind::kGpus:
      return std::to_string(remedy.n_gpus) + " x " +
             (machine.gpus.empty() ? "GPU" : machine.gpus[0].name);
    case Remedy::Kind::kCards:
      return std::to_string(remedy.n_gpus) + " x " + remedy.card;
    case Remedy::Kind::kQuant:
      return format("a quant of at most %.2f bits a weight", remedy.bits_per_weight) + " (" +
             remedy.quant + ")";
  }
  return "";
}

std::string plan_text(const PlannedModel& planned, const Machine& machine, int width) {
  const std::vector<Section> sections{
      model_section(planned),       kinds_section(planned.model),
      types_section(planned.model), layers_section(planned.model),
      kv_section(planned),          layouts_section(planned, machine)};
  return render(sections, width) + verdict_text(planned, machine);
}

std::string plan_table(const std::vector<PlannedModel>& models) {
  std::vector<std::vector<std::string>> rows = {{"MODEL", "PARAMETERS", "DISK", "KV CACHE",
                                                 "SMALLEST GPUS", "TOKENS/S", "RAM WITHOUT",
                                                 "CORES WITHOUT", "FITS"}};
  for (const PlannedModel& planned : models) {
    const ModelFootprint& model = planned.model;
    const int64_t n_context = planned.plan.request.n_context;
    const int64_t ram = model.total.size_bytes +
                        kv_bytes(default_kv_type({}, model), model.kv.values(n_context)) +
                        engine::kReserveBytes;
    std::string cards = "-";
    std::string speed = "-";
    if (planned.smallest) {
      cards = remedy_text(*planned.smallest, {});
      speed = speed_text(planned.smallest->tokens_s);
    }
    rows.push_back(
        {planned.name, format_parameter_count(model.total.n_parameters), gb(model.total.size_bytes),
         gb(kv_bytes(planned.plan.request.kv_type, model.kv.values(n_context))), cards, speed,
         gb(ram), host_need_text(host_need(model)), planned.plan.chosen.fits() ? "yes" : "no"});
  }
  return format_table(rows);
}

std::string plan_json(const std::vector<PlannedModel>& models, const Machine& machine) {
  Json json;
  json["machine"]["text"] = machine_text(machine);
  json["machine"]["gpus"] = Json::array();
  for (const engine::GpuSpec& gpu : machine.gpus) {
    json["machine"]["gpus"].push_back({{"name", gpu.name},
                                       {"memory_bytes", gpu.memory_bytes},
                                       {"bandwidth_gb_s", or_null(gpu.bandwidth_gb_s)}});
  }
  json["machine"]["host_bytes"] = machine.host_bytes;
  json["machine"]["host_bandwidth_gb_s"] = or_null(machine.host_bandwidth_gb_s);
  json["machine"]["host_cores"] = machine.host_cores > 0 ? Json(machine.host_cores) : Json();
  json["assumptions"] = {{"text", assumptions_text()},
                         {"bandwidth_share", engine::kBandwidthShare},
                         {"core_gb_s", engine::kCoreGbS},
                         {"kernel_us", engine::kKernelUs},
                         {"dense_kernels_per_layer", engine::kDenseKernels},
                         {"moe_kernels_per_layer", engine::kMoeKernels},
                         {"all_reduce_us", engine::kAllReduceUs},
                         {"reserve_share", engine::kReserveShare},
                         {"reserve_bytes", engine::kReserveBytes}};
  json["models"] = Json::array();
  for (const PlannedModel& planned : models)
    json["models"].push_back(model_json(planned, machine));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace dsctl::commands
