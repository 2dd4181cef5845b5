#include "commands/pull_fit.h"

#include <algorithm>

#include "commands/plan.h"
#include "commands/plan_machine.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using engine::Layout;
using engine::RankPlan;
using registry::RemoteFile;
using registry::RemoteVariant;

/// Indices into plan.files of the model's weights, shards in order.
std::vector<size_t> weights_of(const PullPlan& plan) {
  std::vector<size_t> weights;
  if (plan.resolved.manifest) {
    for (const registry::Layer& layer :
         plan.resolved.manifest->layers_of(registry::media_type::kModel)) {
      for (size_t i = 0; i < plan.files.size(); ++i) {
        if (plan.file(plan.files[i]).sha256 != layer.digest) continue;
        weights.push_back(i);
        break;
      }
    }
    return weights;
  }
  for (size_t i = 0; i < plan.files.size(); ++i) {
    const PlannedFile& planned = plan.files[i];
    // A local directory is given the files of the chosen model and no others.
    if (!plan.name || planned.media_type == registry::media_type::kModel) weights.push_back(i);
  }
  return weights;
}

/// The files with what is on this machine of each, whole or begun, in place of its URL.
std::vector<RemoteFile> with_local_copies(const PullPlan& plan, const std::vector<size_t>& idxs) {
  std::vector<RemoteFile> files;
  std::error_code error;
  for (const size_t idx : idxs) {
    const PlannedFile& planned = plan.files[idx];
    RemoteFile& file = files.emplace_back(plan.file(planned));
    for (const fs::path& path : {planned.target, planned.partial}) {
      if (!file.local_copy.empty() || path.empty()) continue;
      if (fs::is_regular_file(path, error) && fs::file_size(path, error) > 0)
        file.local_copy = path;
    }
  }
  return files;
}

gguf::GgufFile open_weights(PullPlan& plan, const registry::HttpOptions& http,
                            const HeaderProgress& progress, std::stop_token stop) {
  const std::vector<size_t> idxs = weights_of(plan);
  std::vector<RemoteFile> files = with_local_copies(plan, idxs);
  const bool is_begun = std::any_of(
      files.begin(), files.end(), [](const RemoteFile& file) { return !file.local_copy.empty(); });
  if (is_begun) {
    try {
      return gguf::GgufFile::open_headers(read_headers(files, http, progress, stop));
    } catch (const std::exception&) {
      // What is here of a file need not be its beginning.
      if (stop.stop_requested()) throw;
    }
  }
  for (size_t i = 0; i < files.size(); ++i)
    files[i] = plan.file(plan.files[idxs[i]]);
  std::vector<gguf::PartialFile> headers = read_headers(files, http, progress, stop);
  gguf::GgufFile model = gguf::GgufFile::open_headers(headers);
  for (size_t i = 0; i < files.size(); ++i) {
    if (files[i].local_copy.empty()) plan.files[idxs[i]].beginning = std::move(headers[i].prefix);
  }
  return model;
}

std::string gpus_text(int n_gpus, const engine::Machine& machine) {
  return n_gpus == 0 ? "memory" : std::to_string(n_gpus) + " x " + machine.gpus[0].name;
}

/// Of the layouts of one variant, what a variant of `ratio` times its size would do.
std::string scaled_fit(const engine::MemoryPlan& plan, const engine::Machine& machine,
                       double ratio) {
  const RankPlan* fullest = nullptr;
  int64_t needed = 0;
  for (const Layout& layout : plan.layouts) {
    if (!layout.problem.empty() || layout.ranks.empty()) continue;
    fullest = &layout.worst();
    const auto weights = static_cast<int64_t>(static_cast<double>(fullest->weight_bytes) * ratio);
    needed = weights + fullest->kv_bytes + fullest->reserve_bytes;
    if (needed <= fullest->capacity_bytes) return "fits " + gpus_text(layout.n_gpus, machine);
  }
  if (!fullest) return plan.chosen.problem;
  return "too large: needs " + format_gib(needed) +
         (machine.gpus.size() > 1 ? " on each GPU" : "") + " of " +
         format_gib(fullest->capacity_bytes);
}

/// The one whose headers cost the fewest requests.
const RemoteVariant* easiest(const std::vector<RemoteVariant>& variants) {
  const RemoteVariant* best = nullptr;
  for (const RemoteVariant& variant : variants) {
    if (!variant.problem.empty() || variant.size_bytes <= 0) continue;
    if (!best || variant.file_idxs.size() < best->file_idxs.size()) best = &variant;
  }
  return best;
}

}  // namespace

void add_fit(PullPlan& plan, const engine::Machine& machine, const registry::HttpOptions& http,
             const HeaderProgress& progress, std::stop_token stop) {
  if (plan.model_bytes <= 0) return;
  try {
    plan.fit = fit_summary(open_weights(plan, http, progress, stop), machine);
  } catch (const std::exception& error) {
    // The pull goes on: what is wrong with the model will be told when it is here.
    if (stop.stop_requested()) throw Error("interrupted");
    plan.fit = std::string("can't be planned: ") + error.what();
  }
}

VariantFits fits_of_variants(const registry::Resolved& resolved, const engine::Machine& machine,
                             const registry::HttpOptions& http, const HeaderProgress& progress,
                             std::stop_token stop) {
  VariantFits fits;
  fits.texts.resize(resolved.variants.size());
  const RemoteVariant* variant = easiest(resolved.variants);
  if (!variant) return fits;
  try {
    std::vector<RemoteFile> files;
    for (const size_t file_idx : variant->file_idxs)
      files.push_back(resolved.files[file_idx]);
    const gguf::GgufFile headers = fetch_headers(files, http, progress, stop);
    const engine::ModelFootprint model = engine::measure_model(headers);
    engine::PlanRequest request;
    request.kv_type = default_kv_type(machine, model);
    const engine::MemoryPlan plan = engine::plan_memory(headers, model, machine, request);
    for (size_t i = 0; i < fits.texts.size(); ++i) {
      const double ratio = static_cast<double>(resolved.variants[i].size_bytes) /
                           static_cast<double>(variant->size_bytes);
      fits.texts[i] = scaled_fit(plan, machine, ratio);
    }
  } catch (const std::exception& error) {
    if (stop.stop_requested()) throw Error("interrupted");
    fits.problem = error.what();
  }
  return fits;
}

}  // namespace dsctl::commands
