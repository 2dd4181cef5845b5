#include "commands/bench.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "commands/error.h"
#include "commands/lora_flag.h"
#include "commands/model_file.h"
#include "commands/model_info.h"
#include "engine/cpu/cpu_features.h"
#include "engine/dummy_model.h"
#include "engine/memory_bandwidth.h"
#include "engine/model_footprint.h"
#include "engine/model_shapes.h"
#include "engine/speed_run.h"

namespace dsctl::commands {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = BenchCase::Kind;

constexpr int kInterrupted = 130;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Weights to measure, and what they are when they aren't a file's.
struct Weights {
  gguf::GgufFile file;
  std::string dummy;
};

Weights open_weights(const Settings& settings, const BenchOptions& options, int n_threads,
                     Console& console) {
  if (options.load_format == LoadFormat::kFile) {
    if (options.n_layers > 0) {
      throw Error("--layers: only of --load-format dummy, a file has the layers it has");
    }
    return {open_model_file(settings, options.model), ""};
  }
  const gguf::GgufFile header = engine::is_model_shape(options.model)
                                    ? engine::open_model_shape(options.model)
                                    : open_model_file(settings, options.model);
  const auto begin = Clock::now();
  gguf::GgufFile file =
      engine::make_dummy_model(header, {.n_layers = options.n_layers, .n_threads = n_threads});
  console.note("random weights: " + format_size(file.size_bytes()) + " made in " +
               std::to_string(static_cast<int>(seconds_since(begin) * 1e3)) + " ms");
  const auto n_layers = file.get_uint(std::string(file.architecture()) + ".block_count");
  return {std::move(file), "random weights, " + std::to_string(n_layers) + " layers"};
}

engine::SpeedRunOptions run_options(const BenchOptions& options,
                                    const std::vector<BenchCase>& cases, int n_threads) {
  engine::SpeedRunOptions result;
  for (const BenchCase& one : cases) {
    result.max_seqs = std::max(result.max_seqs, one.n_seqs);
    result.max_tokens = std::max(result.max_tokens, one.depth + one.n_tokens);
  }
  result.n_batch = options.n_batch;
  result.n_threads = n_threads;
  result.device = options.device;
  result.adapters = parse_loras(options.loras);
  return result;
}

BenchFacts describe(const Weights& weights, const engine::ModelFootprint& footprint,
                    const BenchOptions& options, const engine::SpeedRun& run, int n_threads) {
  BenchFacts facts;
  facts.model = options.model;
  facts.architecture = footprint.architecture;
  facts.quantization = quantization_label(weights.file);
  facts.size_bytes = footprint.total.size_bytes;
  facts.file_bytes = weights.file.size_bytes();
  facts.n_parameters = footprint.total.n_parameters;
  facts.read_parameters = footprint.total.read_parameters;
  facts.backend = options.device == engine::Device::kCuda ? "CUDA" : "CPU";
  facts.device = run.limits().device;
  facts.n_threads = n_threads;
  facts.n_batch = options.n_batch;
  facts.dummy = weights.dummy;
  return facts;
}

/// Runs the cases of a loaded model.
class Bench {
 public:
  Bench(engine::SpeedRun& run, const engine::ModelFootprint& footprint, const BenchOptions& options)
      : run_(run), footprint_(footprint), options_(options) {}

  /// Seconds of one prompt or generation.
  double time(const BenchCase& one) {
    const engine::SpeedCase speed_case{
        .n_seqs = one.n_seqs, .depth = one.depth, .n_tokens = one.n_tokens};
    return one.kind == Kind::kPrompt ? run_.prompt(speed_case) : run_.generate(speed_case);
  }

  /// Nothing when interrupted.
  std::optional<BenchResult> measure(const BenchCase& one, const Console& console) {
    BenchResult result;
    result.test = one;
    fill(one);
    if (options_.warm_up) {
      BenchCase warm_up = one;
      // Enough for every path and page to have been gone once.
      if (one.kind == Kind::kGenerate) warm_up.n_tokens = std::min(one.n_tokens, 4);
      time(warm_up);
    }
    for (int i = 0; i < options_.repetitions; ++i) {
      if (console.interrupted()) return std::nullopt;
      result.seconds.push_back(time(one));
    }
    if (one.kind == Kind::kGenerate) {
      result.step_bytes =
          step_weight_bytes(footprint_, one.n_seqs) +
          step_kv_bytes(footprint_, run_.kv_bytes_per_token(), one.n_seqs, one.depth, one.n_tokens);
    }
    result.peak_bytes = peak_memory_bytes();
    return result;
  }

 private:
  /// The context before; what a case wrote lies behind it and is overwritten by the next.
  void fill(const BenchCase& one) {
    if (one.depth == 0 || (one.depth == filled_depth_ && one.n_seqs <= filled_seqs_)) return;
    run_.fill(one.n_seqs, one.depth);
    filled_depth_ = one.depth;
    filled_seqs_ = one.n_seqs;
  }

  engine::SpeedRun& run_;
  const engine::ModelFootprint& footprint_;
  const BenchOptions& options_;
  int filled_depth_ = 0;
  int filled_seqs_ = 0;
};

}  // namespace

std::vector<BenchCase> bench_cases(const BenchOptions& options) {
  std::vector<BenchCase> cases;
  for (const int depth : options.depths) {
    for (const int n_seqs : options.n_seqs) {
      const auto add = [&](Kind kind, int n_tokens) {
        if (n_tokens == 0) return;
        cases.push_back({.kind = kind, .n_tokens = n_tokens, .n_seqs = n_seqs, .depth = depth});
      };
      for (const int n_tokens : options.n_prompt)
        add(Kind::kPrompt, n_tokens);
      for (const int n_tokens : options.n_gen)
        add(Kind::kGenerate, n_tokens);
    }
  }
  return cases;
}

int bench(const Settings& settings, const BenchOptions& options, Console& console) {
  const std::vector<BenchCase> cases = bench_cases(options);
  if (cases.empty()) throw Error("nothing to measure: --n-prompt and --n-gen are both 0");
  int n_threads = options.n_threads > 0 ? options.n_threads : settings.n_threads;
  if (n_threads == 0) n_threads = engine::cpu_features().n_physical_cores;
  console.clear_interrupt();
  // Before the model, on top of whose memory its buffer would come.
  std::optional<engine::MemoryBandwidth> bandwidth;
  if (options.device != engine::Device::kCuda) {
    bandwidth = engine::measure_memory_bandwidth(n_threads);
    reset_peak_memory();
  }
  const Weights weights = open_weights(settings, options, n_threads, console);
  const engine::ModelFootprint footprint = engine::measure_model(weights.file);
  const auto load_begin = Clock::now();
  engine::SpeedRun run(weights.file, run_options(options, cases, n_threads));
  BenchFacts facts = describe(weights, footprint, options, run, n_threads);
  facts.load_seconds = seconds_since(load_begin);
  if (bandwidth) {
    facts.read_gb_s = bandwidth->read_gb_s;
    facts.bandwidth_buffer_bytes = bandwidth->buffer_bytes;
    facts.cache_bytes = bandwidth->cache_bytes;
  }
  Bench measure(run, footprint, options);
  const auto prompt = std::find_if(cases.begin(), cases.end(), [](const BenchCase& one) {
    return one.kind == Kind::kPrompt && one.depth == 0;
  });
  if (prompt != cases.end() && options.warm_up) {
    facts.cold_first_token_s = facts.load_seconds + measure.time(*prompt);
  }
  BenchReport report(options.form, std::move(facts), console);
  bool finished = true;
  for (const BenchCase& one : cases) {
    const auto result = measure.measure(one, console);
    finished = result.has_value();
    if (!finished) break;
    report.add(*result);
  }
  report.finish();
  return finished ? 0 : kInterrupted;
}

}  // namespace dsctl::commands
