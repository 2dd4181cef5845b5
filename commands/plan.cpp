#include "commands/plan.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "commands/error.h"
#include "commands/plan_machine.h"
#include "commands/plan_report.h"
#include "registry/model_name.h"
#include "registry/registry.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using engine::Machine;

engine::PlanRequest request_of(const PlanOptions& options, const Machine& machine,
                               const engine::ModelFootprint& model) {
  engine::PlanRequest request;
  request.n_context = options.n_context;
  request.tp_size = options.tp_size;
  request.kv_type = options.kv_type.empty() ? default_kv_type(machine, model)
                                            : engine::parse_kv_type(options.kv_type);
  return request;
}

/// A file of this machine, a model of the registry, or one elsewhere.
RemoteModel open_model(const Settings& settings, const PlanOptions& options,
                       const std::string& model, Console& console) {
  std::error_code error;
  const bool is_url = model.find("://") != std::string::npos;
  // A file that isn't there must not be looked for on a hub.
  const bool is_file_name =
      model.ends_with(".gguf") && model.find_first_of("/:") == std::string::npos;
  if (!is_url && (is_file_name || fs::is_regular_file(model, error) || model.starts_with('/') ||
                  model.starts_with("./") || model.starts_with("../"))) {
    return {model, gguf::GgufFile::open(model), {}};
  }
  const auto name = registry::ModelName::try_parse(model);
  if (!is_url && name) {
    if (const auto stored = registry::Registry(settings.models_dir).find(*name)) {
      return {stored->name.short_form(), gguf::GgufFile::open_shards(stored->weight_paths), {}};
    }
  }
  RemoteModel remote =
      open_remote_model(model, options.source, options.revision, {},
                        [&console](std::string_view what, int64_t done, int64_t total) {
                          if (console.interrupted()) throw Error("interrupted");
                          console.progress(what, done, total);
                        });
  console.finish_progress();
  return remote;
}

/// Models of the same repository that would fit where the chosen one doesn't: its weights scaled.
std::vector<OtherVariant> fitting(std::vector<OtherVariant> others, const PlannedModel& planned) {
  const engine::Layout& chosen = planned.plan.chosen;
  if (chosen.fits() || chosen.ranks.empty()) return {};
  std::erase_if(others, [&](const OtherVariant& other) {
    const double ratio = static_cast<double>(other.size_bytes) /
                         static_cast<double>(std::max<int64_t>(1, planned.model.total.size_bytes));
    const engine::RankPlan& rank = chosen.worst();
    const auto weights = static_cast<int64_t>(static_cast<double>(rank.weight_bytes) * ratio);
    return weights + rank.kv_bytes + rank.reserve_bytes > rank.capacity_bytes;
  });
  std::sort(others.begin(), others.end(), [](const OtherVariant& a, const OtherVariant& b) {
    return a.size_bytes > b.size_bytes;
  });
  return others;
}

}  // namespace

engine::KvType default_kv_type(const Machine& machine, const engine::ModelFootprint& model) {
  return machine.gpus.empty() && model.kv.latent_dim > 0 ? engine::KvType::kF32
                                                         : engine::KvType::kF16;
}

int plan(const Settings& settings, const PlanOptions& options, Console& console) {
  const bool is_described = !options.gpus.empty() || !options.ram.empty();
  Machine machine = is_described ? described_machine(options.gpus, options.ram) : this_machine();
  if (options.cores > 0) machine.host_cores = options.cores;
  std::vector<PlannedModel> planned;
  bool all_fit = true;
  for (const std::string& name : options.models) {
    const RemoteModel remote = open_model(settings, options, name, console);
    PlannedModel& model = planned.emplace_back();
    model.name = remote.name;
    model.model = engine::measure_model(remote.file);
    model.plan = engine::plan_memory(remote.file, model.model, machine,
                                     request_of(options, machine, model.model));
    engine::PlanRequest on_gpus = model.plan.request;
    if (machine.gpus.empty() && options.kv_type.empty()) on_gpus.kv_type = engine::KvType::kF16;
    model.smallest = engine::smallest_cards(remote.file, model.model, on_gpus);
    model.others = fitting(remote.others, model);
    all_fit = all_fit && model.plan.chosen.fits();
  }
  if (options.json) {
    console.print(plan_json(planned, machine));
  } else if (planned.size() > 1) {
    console.print(plan_table(planned));
    console.print("With " + std::to_string(planned[0].plan.request.n_context) +
                  " tokens of context; FITS is on " + machine_text(machine) +
                  ". Tokens/s: " + assumptions_text() + ". " + cores_text() + ".\n");
  } else {
    console.print(
        plan_text(planned[0], machine, console.stdout_is_terminal() ? console.width() : 0));
  }
  return all_fit ? 0 : 1;
}

std::string fit_summary(const gguf::GgufFile& headers, const Machine& machine) {
  const engine::ModelFootprint model = engine::measure_model(headers);
  engine::PlanRequest request;
  request.kv_type = default_kv_type(machine, model);
  const engine::MemoryPlan plan = engine::plan_memory(headers, model, machine, request);
  const std::string where = machine_text(machine);
  if (plan.chosen.fits()) {
    std::string text = "fits " + where + " with up to " + std::to_string(plan.chosen.max_context) +
                       " tokens of context";
    const double speed = plan.chosen.speed.expected_tokens_s;
    if (speed > 0) {
      text += ", about " + std::to_string(std::max<int64_t>(1, std::llround(speed))) + " tokens/s";
    }
    return text;
  }
  std::string text = "doesn't fit " + where;
  if (plan.chosen.ranks.empty()) {
    text += ": " + plan.chosen.problem;
  } else {
    const engine::RankPlan& rank = plan.chosen.worst();
    text += " with " + std::to_string(plan.request.n_context) + " tokens of context: needs " +
            format_gib(rank.used_bytes()) + (plan.chosen.n_gpus > 1 ? " on each GPU" : "");
  }
  if (!plan.remedies.empty()) {
    text += "; would with " + remedy_text(plan.remedies.front(), machine);
  }
  return text;
}

}  // namespace dsctl::commands
