// Carries out a plan: brings what is missing and makes it visible, manifest last.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string_view>

#include "commands/pull_plan.h"
#include "registry/download.h"
#include "registry/registry.h"

namespace dsctl::commands {

/// How to transfer.
struct PullTransfer {
  int jobs = 8;
  int64_t limit_bytes_per_second = 0;
  registry::HttpOptions http;
};

/// What a pull tells while it runs, on any thread, one call at a time. Either may be empty.
struct PullObserver {
  /// One of Ollama's words: "verifying sha256 digest", "writing manifest" ...
  std::function<void(std::string_view)> on_status;
  /// Of the file plan.files[event.file_idx].
  std::function<void(const registry::DownloadEvent&)> on_event;
};

struct PullResult {
  std::optional<registry::StoredModel> model;  // nothing for a local directory
  bool was_complete = false;                   // nothing had to be done
};

/// Brings the files of `plan`. What arrived stays when it throws, and the next run goes on from
/// there; of a model nothing is visible before all of it is there. Another pull of the same files
/// is waited for, and what it brought is used.
PullResult run_pull(const PullPlan& plan, registry::Registry& registry,
                    const PullTransfer& transfer, const PullObserver& observer,
                    std::stop_token stop);

}  // namespace dsctl::commands
