// What `bench` prints of a model: one row a case, as a table for people, CSV or JSON. The names of
// fields that llama-bench has are llama-bench's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "commands/bench_statistics.h"
#include "commands/console.h"

namespace dsctl::commands {

enum class ReportForm { kMarkdown, kCsv, kJson, kJsonLines };

struct BenchCase {
  enum class Kind { kPrompt, kGenerate } kind = Kind::kPrompt;
  int n_tokens = 0;  // of each sequence
  int n_seqs = 1;
  int depth = 0;  // tokens of context before

  /// "pp512", "tg128 x8 @ d4096".
  std::string name() const;
};

/// What holds for all cases.
struct BenchFacts {
  std::string model;         // as it was named
  std::string architecture;  // "llama"
  std::string quantization;  // "Q4_K_M"
  int64_t size_bytes = 0;    // of the tensors
  int64_t file_bytes = 0;
  int64_t n_parameters = 0;
  int64_t read_parameters = 0;  // that one token multiplies with
  std::string backend;          // "CPU", "CUDA"
  std::string device;           // "AMD EPYC 9654, 2 cores, AVX-512 VNNI"
  int n_threads = 0;
  int n_batch = 0;
  std::optional<double> read_gb_s;  // what the device's memory gives, measured in this run
  int64_t bandwidth_buffer_bytes = 0;
  int64_t cache_bytes = 0;                   // of the last level; 0: unknown
  double load_seconds = 0;                   // from opening the file to the first step
  std::optional<double> cold_first_token_s;  // load and the first prompt, nothing warm
  std::string dummy;                         // not empty: random weights, and of what
};

struct BenchResult {
  BenchCase test;
  std::vector<double> seconds;  // of each repetition
  double step_bytes = 0;        // kGenerate: that one step reads, weights and cache
  int64_t peak_bytes = 0;       // the most memory that the process had taken by then

  Distribution tokens_per_second() const;
  Distribution time() const { return summarize(seconds); }
  /// kPrompt: until every sequence has its first token. kGenerate: of one step.
  double token_ms() const;
  /// kGenerate: what the steps read, 10^9 bytes a second.
  std::optional<double> gb_s() const;
  /// kPrompt: of the products with weights, 10^9 operations a second.
  std::optional<double> gflops(int64_t read_parameters) const;
};

/// Percent of `limit` that `value` reaches; nothing when one of them is not known.
std::optional<double> percent_of(std::optional<double> value, std::optional<double> limit);

/// Prints results as they come.
class BenchReport {
 public:
  BenchReport(ReportForm form, BenchFacts facts, Console& console);
  void add(const BenchResult& result);
  /// Prints what comes last; once.
  void finish();

 private:
  ReportForm form_;
  BenchFacts facts_;
  Console& console_;
  std::vector<std::string> rows_;  // JSON, for the end
  int64_t peak_bytes_ = 0;
  bool is_cached_ = false;  // some case was faster than the memory
  bool is_first_ = true;
};

/// Numbers of a flat JSON object as a line of CSV, or the names of its fields; what is an array is
/// left out. For reports that have both forms.
std::string csv_line(std::string_view flat_json);
std::string csv_heading(std::string_view flat_json);

}  // namespace dsctl::commands
