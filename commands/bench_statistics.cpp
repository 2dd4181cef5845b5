#include "commands/bench_statistics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <optional>

#include "commands/error.h"

namespace dsctl::commands {
namespace {

constexpr size_t kMaxListed = 1000;

/// The number at the front of `text`, which it is taken off.
std::optional<int> take_number(std::string_view& text) {
  int value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(result.ptr - text.data()));
  return value;
}

[[noreturn]] void fail(const std::string& flag, std::string_view item, int min, int max) {
  throw Error(flag + ": \"" + std::string(item) + "\", expected numbers from " +
              std::to_string(min) + " to " + std::to_string(max) +
              " with commas between, or ranges like 128-512+128 and 1-8*2");
}

/// One item of a list: a number or a range.
std::vector<int> parse_item(std::string_view item, const std::string& flag, int min, int max) {
  std::string_view rest = item;
  const auto first = take_number(rest);
  if (!first || *first < min || *first > max) fail(flag, item, min, max);
  if (rest.empty()) return {*first};
  if (rest.front() != '-') fail(flag, item, min, max);
  rest.remove_prefix(1);
  const auto last = take_number(rest);
  if (!last || *last < *first || *last > max) fail(flag, item, min, max);
  char operation = '+';
  int operand = 1;
  if (!rest.empty()) {
    operation = rest.front();
    rest.remove_prefix(1);
    const auto given = take_number(rest);
    const bool is_known = operation == '+' || operation == '*';
    if (!is_known || !given || !rest.empty()) fail(flag, item, min, max);
    operand = *given;
  }
  // What does not grow would not end.
  if (operand < (operation == '*' ? 2 : 1) || (operation == '*' && *first == 0)) {
    fail(flag, item, min, max);
  }
  std::vector<int> numbers;
  for (int64_t n = *first; n <= *last && numbers.size() <= kMaxListed;
       n = operation == '*' ? n * operand : n + operand)
    numbers.push_back(static_cast<int>(n));
  return numbers;
}

}  // namespace

double percentile(std::span<const double> sorted, double part) {
  const double place = part * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double weight = place - static_cast<double>(below);
  return sorted[below] + (sorted[above] - sorted[below]) * weight;
}

Distribution summarize(std::vector<double> samples) {
  Distribution result;
  if (samples.empty()) return result;
  std::sort(samples.begin(), samples.end());
  result.n = static_cast<int>(samples.size());
  double sum = 0;
  for (const double sample : samples)
    sum += sample;
  result.mean = sum / result.n;
  double squares = 0;
  for (const double sample : samples)
    squares += (sample - result.mean) * (sample - result.mean);
  if (result.n > 1) result.stddev = std::sqrt(squares / (result.n - 1));
  result.min = samples.front();
  result.p50 = percentile(samples, 0.5);
  result.p90 = percentile(samples, 0.9);
  result.p99 = percentile(samples, 0.99);
  result.max = samples.back();
  return result;
}

double step_weight_bytes(const engine::ModelFootprint& model, int n_seqs) {
  const engine::WeightTotal& routed = model.of(engine::WeightKind::kRoutedExperts);
  const auto others = static_cast<double>(model.total.read_bytes - routed.read_bytes);
  if (model.n_experts <= 0 || routed.size_bytes == 0) return others;
  const double chosen = static_cast<double>(model.n_used_experts) / model.n_experts;
  const double read = 1.0 - std::pow(1.0 - chosen, n_seqs);
  return others + static_cast<double>(routed.size_bytes) * read;
}

double step_kv_bytes(const engine::ModelFootprint& model, int64_t kv_bytes_per_token, int n_seqs,
                     int depth, int n_tokens) {
  const int64_t values_per_token = model.kv.values(1);
  if (values_per_token == 0 || n_tokens == 0) return 0;
  double values = 0;
  for (int i = 1; i <= n_tokens; ++i)
    values += static_cast<double>(model.kv.windowed_values(int64_t{depth} + i));
  const double bytes_per_value =
      static_cast<double>(kv_bytes_per_token) / static_cast<double>(values_per_token);
  return values / n_tokens * bytes_per_value * n_seqs;
}

std::vector<int> parse_number_list(const std::string& text, const std::string& flag, int min,
                                   int max) {
  std::vector<int> numbers;
  std::string_view rest = text;
  for (;;) {
    const size_t comma = rest.find(',');
    for (const int number : parse_item(rest.substr(0, comma), flag, min, max))
      numbers.push_back(number);
    if (numbers.size() > kMaxListed) {
      throw Error(flag + ": more than " + std::to_string(kMaxListed) + " numbers");
    }
    if (comma == std::string_view::npos) return numbers;
    rest.remove_prefix(comma + 1);
  }
}

int64_t peak_memory_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("VmHWM:")) continue;
    std::string_view rest = std::string_view(line).substr(6);
    rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
    return int64_t{take_number(rest).value_or(0)} * 1024;
  }
  return 0;
}

void reset_peak_memory() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace dsctl::commands
