// Whether what is about to be pulled fits this machine: the plan of its headers, read before the
// first byte of the weights.
#pragma once

#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "commands/pull_plan.h"
#include "commands/remote_headers.h"
#include "engine/memory_plan.h"

namespace dsctl::commands {

/// Sets plan.fit: fit_summary of the model's headers, or why they don't tell. Bytes that were
/// fetched for it become the beginnings of the plan's files. Does nothing without a model. Throws
/// Error only when `stop` was asked for.
void add_fit(PullPlan& plan, const engine::Machine& machine, const registry::HttpOptions& http,
             const HeaderProgress& progress, std::stop_token stop);

/// The models of a repository on a machine.
struct VariantFits {
  std::vector<std::string> texts;  // one a variant: "fits 2 x H800"; empty: not known
  std::string problem;             // why nothing is known; empty: it is
};

/// Plans every variant of `resolved` from the headers of one: the cache is the same for all, the
/// weights are scaled by their sizes. Throws Error only when `stop` was asked for.
VariantFits fits_of_variants(const registry::Resolved& resolved, const engine::Machine& machine,
                             const registry::HttpOptions& http, const HeaderProgress& progress,
                             std::stop_token stop);

}  // namespace dsctl::commands
