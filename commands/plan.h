// `dsctl plan`: whether a model fits a machine and how fast it will be, before the first byte of it
// is fetched.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "commands/console.h"
#include "commands/remote_headers.h"
#include "commands/settings.h"
#include "engine/memory_plan.h"

namespace dsctl::commands {

struct PlanOptions {
  /// Each a model of the registry, a GGUF file, the URL of one, or a model elsewhere as pull has
  /// it. One is planned in full, several as a table.
  std::vector<std::string> models;
  std::string gpus;       // "8xH800"; empty: those of this machine
  std::string ram;        // "512GB@300"; empty: that of this machine, where no GPUs are given
  int cores = 0;          // that run the model without GPUs; 0: those of this machine
  int64_t n_context = 0;  // 0: 8192, or what the model was made for
  std::string kv_type;    // empty: f16, or f32 for latents on the CPU, as the engine keeps it
  int tp_size = 0;        // GPUs to use; 0: the fewest that hold the model
  std::string source = "auto";
  std::string revision;
  bool json = false;
};

/// What the pages of the KV cache hold, where nothing else is asked for.
engine::KvType default_kv_type(const engine::Machine& machine, const engine::ModelFootprint& model);

/// Prints the plan: what the model is made of, what it needs, how it lies on the machine, how fast
/// it will be, and what would make it fit when it doesn't. Returns 0 when it fits, 1 when not.
int plan(const Settings& settings, const PlanOptions& options, Console& console);

/// One line for people who are about to fetch a model: "fits 8 x H800 (...) with 163840 tokens of
/// context, about 226 tokens/s", or "doesn't fit ...: needs 51.8 GB on each GPU ...; a quant of 3.7
/// bits (Q3_K_S) would". `headers` is the model opened (fetch_headers), `machine` this_machine().
std::string fit_summary(const gguf::GgufFile& headers, const engine::Machine& machine);

}  // namespace dsctl::commands
