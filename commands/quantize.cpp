#include "commands/quantize.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>

#include "commands/error.h"
#include "commands/model_file.h"
#include "gguf/new_file.h"
#include "gguf/quantize.h"

namespace dsctl::commands {
namespace {

std::string type_name(gguf::DType dtype) {
  return std::string(gguf::dtype_info(dtype).name);
}

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(), pattern, args...);
  return text.data();
}

double mib(int64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

gguf::DType parse_type(const std::string& name, const std::string& flag) {
  const auto dtype = gguf::dtype_from_name(name);
  if (!dtype) throw Error(flag + ": '" + name + "' is no tensor type; Q8_0, Q6_K or F16 are");
  return *dtype;
}

gguf::QuantizeOptions plan_options(const QuantizeOptions& options) {
  gguf::QuantizeOptions plan;
  plan.file_type = parse_file_type(options.type);
  plan.mixture.pure = options.pure;
  plan.mixture.leave_output = options.leave_output_tensor;
  if (!options.output_tensor_type.empty()) {
    plan.mixture.output_type = parse_type(options.output_tensor_type, "--output-tensor-type");
  }
  if (!options.token_embedding_type.empty()) {
    plan.mixture.embedding_type =
        parse_type(options.token_embedding_type, "--token-embedding-type");
  }
  for (const std::string& rule : options.tensor_types) {
    const size_t equals = rule.rfind('=');
    if (equals == std::string::npos || equals == 0) {
      throw Error("--tensor-type: '" + rule + "', expected PATTERN=TYPE, as in attn_v=q8_0");
    }
    plan.mixture.rules.push_back(
        {rule.substr(0, equals), parse_type(rule.substr(equals + 1), "--tensor-type")});
  }
  plan.allow_requantize = options.allow_requantize;
  plan.keep_split = options.keep_split;
  return plan;
}

void note_exceptions(const gguf::QuantizePlan& plan, Console& console) {
  const auto count = [&](auto&& is_counted) {
    return static_cast<int>(std::count_if(plan.steps.begin(), plan.steps.end(), is_counted));
  };
  const int n_again = count([](const auto& step) { return step.is_requantized; });
  if (n_again > 0) {
    console.note("warning: " + std::to_string(n_again) +
                 " tensors are quantised already; doing it again loses more than starting from "
                 "F16, BF16 or F32 would");
  }
  const int n_short = count([](const auto& step) { return step.choice.wanted.has_value(); });
  if (n_short > 0) {
    console.note("note: the rows of " + std::to_string(n_short) +
                 " tensors are no whole blocks of their type; they get another (see --dry-run)");
  }
  const int n_blind = count([](const auto& step) { return step.lacks_importance; });
  if (n_blind > 0) {
    console.note("note: the importance matrix has nothing for " + std::to_string(n_blind) +
                 " tensors");
  }
}

void print_plan(const gguf::QuantizePlan& plan, Console& console) {
  for (const gguf::QuantizeStep& step : plan.steps) {
    const std::string from = type_name(step.source.dtype);
    const std::string to = type_name(step.choice.dtype);
    std::string line =
        format("%-40s %5s -> %-7s %9.2f -> %8.2f MiB", std::string(step.source.name).c_str(),
               from.c_str(), to.c_str(), mib(step.source.size_bytes), mib(step.size_bytes));
    if (step.choice.wanted) {
      line += "  (" + type_name(*step.choice.wanted) + " needs rows of a multiple of " +
              std::to_string(gguf::dtype_info(*step.choice.wanted).block_elems) + ")";
    }
    console.print(line + "\n");
  }
}

std::string summary(const gguf::QuantizePlan& plan) {
  int64_t n_weights = 0;
  for (const gguf::QuantizeStep& step : plan.steps)
    n_weights += step.source.n_elems();
  return format("%.1f MiB -> %.1f MiB, %.2f bits a weight", mib(plan.source_bytes),
                mib(plan.result_bytes),
                static_cast<double>(plan.result_bytes) * 8 /
                    static_cast<double>(std::max<int64_t>(n_weights, 1)));
}

/// A bare word is rather meant for the registry, where this verb writes nothing.
void check_is_file_name(const std::string& out) {
  const bool is_bare = out.find('/') == std::string::npos && !out.ends_with(".gguf");
  if (!is_bare) return;
  throw Error("'" + out + "': expected the name of a file, as in " + out + ".gguf or ./" + out +
              "; for a model of the registry there is `dsctl create " + out +
              " --quantize TYPE` with the line FROM MODEL in its Modelfile");
}

}  // namespace

gguf::FileType parse_file_type(const std::string& name) {
  if (const auto type = gguf::file_type_from_name(name)) return *type;
  std::string known;
  for (const gguf::FileType& type : gguf::file_types())
    known += (known.empty() ? "" : ", ") + std::string(type.name);
  throw Error("'" + name + "' is no type to quantise to; there are " + known);
}

std::string quantize_types_help() {
  std::string text;
  for (const gguf::FileType& type : gguf::file_types()) {
    text += format("  %-10s %s\n", std::string(type.name).c_str(),
                   std::string(type.description).c_str());
  }
  return text;
}

std::vector<std::filesystem::path> write_quantized(const gguf::GgufFile& file,
                                                   const gguf::QuantizePlan& plan,
                                                   const std::filesystem::path& out, int n_threads,
                                                   Console& console) {
  note_exceptions(plan, console);
  console.clear_interrupt();
  const auto start = std::chrono::steady_clock::now();
  gguf::QuantizeRun run;
  run.n_threads = n_threads;
  run.progress = [&](int64_t done_bytes, int64_t total_bytes) {
    console.progress("quantising", done_bytes, total_bytes);
    return !console.interrupted();
  };
  auto paths = gguf::quantize(file, plan, out, run);
  console.finish_progress();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  console.note(summary(plan) + format(", %.1f s", took.count()));
  return paths;
}

int quantize(const Settings& settings, const QuantizeOptions& options, Console& console) {
  check_is_file_name(options.out);
  gguf::QuantizeOptions plan_for = plan_options(options);
  gguf::ImportanceMatrix matrix;
  if (!options.imatrix.empty()) {
    matrix = gguf::ImportanceMatrix::read(options.imatrix);
    plan_for.matrix = &matrix;
    plan_for.matrix_name = options.imatrix.string();
  }
  const gguf::GgufFile file = open_model_file(settings, options.model);
  const gguf::QuantizePlan plan = gguf::plan_quantize(file, plan_for);
  std::vector<std::filesystem::path> shards;
  for (const gguf::MappedFile& shard : file.shards())
    shards.push_back(shard.path());
  for (const auto& path : gguf::result_paths(plan, options.out))
    gguf::check_out(path, shards, options.force ? gguf::IfExists::kReplace : gguf::IfExists::kFail);
  if (options.dry_run) {
    print_plan(plan, console);
    note_exceptions(plan, console);
    console.print(summary(plan) + "\n");
    return 0;
  }
  for (const auto& path : write_quantized(file, plan, options.out, options.n_threads, console))
    console.print(path.string() + "\n");
  return 0;
}

}  // namespace dsctl::commands
