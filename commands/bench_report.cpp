#include "commands/bench_report.h"

#include <array>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "commands/model_info.h"
#include "commands/version.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  std::array<char, 512> text{};
  std::snprintf(text.data(), text.size(), pattern, args...);
  return text.data();
}

std::string mib(int64_t bytes) {
  return format("%.1f MiB", static_cast<double>(bytes) / 1048576.0);
}

Json nanoseconds(const std::vector<double>& seconds) {
  Json list = Json::array();
  for (const double s : seconds)
    list.push_back(static_cast<int64_t>(s * 1e9));
  return list;
}

Json optional_json(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

bool is_generation(const BenchResult& result) {
  return result.test.kind == BenchCase::Kind::kGenerate;
}

std::vector<double> rates(const BenchResult& result) {
  const double n_tokens = static_cast<double>(result.test.n_tokens) * result.test.n_seqs;
  std::vector<double> values;
  for (const double seconds : result.seconds)
    values.push_back(n_tokens / seconds);
  return values;
}

Json row_json(const BenchFacts& facts, const BenchResult& result) {
  const Distribution time = result.time();
  const Distribution speed = result.tokens_per_second();
  const bool generates = is_generation(result);
  Json row;
  row["version"] = version_text();
  row["test_time"] = format_time(std::chrono::system_clock::now());
  row["model_filename"] = facts.model;
  row["model_type"] = facts.architecture + " " + facts.quantization;
  row["model_size"] = facts.size_bytes;
  row["model_n_params"] = facts.n_parameters;
  row["dummy"] = !facts.dummy.empty();
  row["backend"] = facts.backend;
  row["device"] = facts.device;
  row["n_threads"] = facts.n_threads;
  row["n_batch"] = facts.n_batch;
  row["test"] = result.test.name();
  row["n_prompt"] = generates ? 0 : result.test.n_tokens;
  row["n_gen"] = generates ? result.test.n_tokens : 0;
  row["n_seqs"] = result.test.n_seqs;
  row["n_depth"] = result.test.depth;
  row["repetitions"] = time.n;
  row["avg_ns"] = static_cast<int64_t>(time.mean * 1e9);
  row["stddev_ns"] = static_cast<int64_t>(time.stddev * 1e9);
  row["avg_ts"] = speed.mean;
  row["stddev_ts"] = speed.stddev;
  row["first_token_ms"] = generates ? Json(nullptr) : Json(result.token_ms());
  row["token_ms"] = generates ? Json(result.token_ms()) : Json(nullptr);
  row["gflops"] = optional_json(result.gflops(facts.read_parameters));
  row["step_bytes"] = generates ? Json(static_cast<int64_t>(result.step_bytes)) : Json(nullptr);
  row["gb_s"] = optional_json(result.gb_s());
  row["read_bandwidth_gb_s"] = optional_json(facts.read_gb_s);
  row["cache_bytes"] = facts.cache_bytes;
  row["bandwidth_percent"] = optional_json(percent_of(result.gb_s(), facts.read_gb_s));
  row["load_ms"] = facts.load_seconds * 1e3;
  row["cold_first_token_ms"] =
      facts.cold_first_token_s ? Json(*facts.cold_first_token_s * 1e3) : Json(nullptr);
  row["peak_memory_bytes"] = result.peak_bytes;
  row["peak_memory_ratio"] =
      facts.file_bytes > 0
          ? Json(static_cast<double>(result.peak_bytes) / static_cast<double>(facts.file_bytes))
          : Json(nullptr);
  row["samples_ns"] = nanoseconds(result.seconds);
  row["samples_ts"] = rates(result);
  return row;
}

std::string csv_text(const Json& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  std::string text = "\"";
  for (const char c : value.get<std::string>())
    text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + "\"";
}

std::string markdown_heading(const BenchFacts& facts) {
  std::string text =
      format("%s, %s %s, %s parameters, %s (%s)\n", facts.model.c_str(), facts.architecture.c_str(),
             facts.quantization.c_str(), format_parameter_count(facts.n_parameters).c_str(),
             mib(facts.size_bytes).c_str(), facts.dummy.empty() ? "weights" : facts.dummy.c_str());
  text += format("%s, %s\n", facts.backend.c_str(), facts.device.c_str());
  if (facts.read_gb_s) {
    text += format("memory read %.2f GB/s by %d threads from %s\n", *facts.read_gb_s,
                   facts.n_threads, mib(facts.bandwidth_buffer_bytes).c_str());
  }
  text += format("\n| %-22s | %19s | %12s | %8s | %7s | %8s |\n", "test", "t/s", "ms", "GB/s",
                 "of read", "GFLOP/s");
  return text +
         "| ---------------------- | ------------------: | -----------: | -------: | ------: "
         "| -------: |\n";
}

std::string markdown_row(const BenchFacts& facts, const BenchResult& result) {
  const Distribution speed = result.tokens_per_second();
  const auto cell = [](const std::optional<double>& value, const char* pattern) {
    return value ? format(pattern, *value) : std::string();
  };
  const auto percent = percent_of(result.gb_s(), facts.read_gb_s);
  return format("| %-22s | %10.2f ± %6.2f | %12.2f | %8s | %7s | %8s |\n",
                result.test.name().c_str(), speed.mean, speed.stddev, result.token_ms(),
                cell(result.gb_s(), "%.2f").c_str(), cell(percent, "%.1f %%").c_str(),
                cell(result.gflops(facts.read_parameters), "%.1f").c_str());
}

std::string markdown_footer(const BenchFacts& facts, int64_t peak_bytes) {
  std::string text = format("\nload %.2f s", facts.load_seconds);
  if (facts.cold_first_token_s) {
    text += format(", first token of the first prompt after %.2f s", *facts.cold_first_token_s);
  }
  text += ", peak memory " + mib(peak_bytes);
  if (facts.file_bytes > 0) {
    text += format(" (%.2f of the file)",
                   static_cast<double>(peak_bytes) / static_cast<double>(facts.file_bytes));
  }
  return text + "\nms: of a prompt until its first token, of generating one step\n";
}

/// Why a step can be faster than the memory.
std::string cache_note(const BenchFacts& facts) {
  const std::string caches =
      facts.cache_bytes > 0 ? "caches of " + mib(facts.cache_bytes) : std::string("caches");
  return "more than 100 %: of what the " + caches +
         " hold nothing is read from memory; or other programs used it while it was measured\n";
}

}  // namespace

std::string BenchCase::name() const {
  std::string text = (kind == Kind::kPrompt ? "pp" : "tg") + std::to_string(n_tokens);
  if (n_seqs > 1) text += " x" + std::to_string(n_seqs);
  if (depth > 0) text += " @ d" + std::to_string(depth);
  return text;
}

Distribution BenchResult::tokens_per_second() const {
  return summarize(rates(*this));
}

double BenchResult::token_ms() const {
  const double mean_ms = time().mean * 1e3;
  return test.kind == BenchCase::Kind::kPrompt ? mean_ms : mean_ms / test.n_tokens;
}

std::optional<double> BenchResult::gb_s() const {
  if (test.kind == BenchCase::Kind::kPrompt || seconds.empty()) return std::nullopt;
  return step_bytes * test.n_tokens / time().mean / 1e9;
}

std::optional<double> BenchResult::gflops(int64_t read_parameters) const {
  if (test.kind == BenchCase::Kind::kGenerate || seconds.empty()) return std::nullopt;
  const double n_tokens = static_cast<double>(test.n_tokens) * test.n_seqs;
  return 2.0 * static_cast<double>(read_parameters) * n_tokens / time().mean / 1e9;
}

std::optional<double> percent_of(std::optional<double> value, std::optional<double> limit) {
  if (!value || !limit || *limit <= 0) return std::nullopt;
  return 100.0 * *value / *limit;
}

std::string csv_line(std::string_view flat_json) {
  const Json object = Json::parse(flat_json);
  std::string line;
  for (const auto& [name, value] : object.items()) {
    if (!value.is_array()) line += (line.empty() ? "" : ",") + csv_text(value);
  }
  return line + "\n";
}

std::string csv_heading(std::string_view flat_json) {
  const Json object = Json::parse(flat_json);
  std::string line;
  for (const auto& [name, value] : object.items()) {
    if (!value.is_array()) line += (line.empty() ? "" : ",") + name;
  }
  return line + "\n";
}

BenchReport::BenchReport(ReportForm form, BenchFacts facts, Console& console)
    : form_(form), facts_(std::move(facts)), console_(console) {}

void BenchReport::add(const BenchResult& result) {
  peak_bytes_ = result.peak_bytes;
  is_cached_ = is_cached_ || percent_of(result.gb_s(), facts_.read_gb_s).value_or(0) > 100;
  const bool is_first = std::exchange(is_first_, false);
  if (form_ == ReportForm::kMarkdown) {
    if (is_first) console_.print(markdown_heading(facts_));
    console_.print(markdown_row(facts_, result));
    return;
  }
  const std::string row =
      row_json(facts_, result).dump(-1, ' ', false, Json::error_handler_t::replace);
  if (form_ == ReportForm::kCsv) {
    if (is_first) console_.print(csv_heading(row));
    console_.print(csv_line(row));
  } else if (form_ == ReportForm::kJsonLines) {
    console_.print(row + "\n");
  } else {
    rows_.push_back(row);
  }
}

void BenchReport::finish() {
  if (form_ == ReportForm::kMarkdown && !is_first_) {
    console_.print(markdown_footer(facts_, peak_bytes_));
    if (is_cached_) console_.print(cache_note(facts_));
  }
  if (form_ != ReportForm::kJson) return;
  Json all = Json::array();
  for (const std::string& row : rows_)
    all.push_back(Json::parse(row));
  console_.print(all.dump(2) + "\n");
}

}  // namespace dsctl::commands
