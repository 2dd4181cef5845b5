#include "commands/bench_server.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "commands/error.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kInterrupted = 130;
constexpr int kMaxClients = 4096;
constexpr int kShortPrompt = 32;  // words; the two prompts that tell how many tokens a word is
constexpr int kLongPrompt = 160;

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  std::array<char, 512> text{};
  std::snprintf(text.data(), text.size(), pattern, args...);
  return text.data();
}

/// Words that make a prompt of about input_len tokens: two short requests tell what the server
/// counts. They load the model as well.
int calibrate(const LoadTarget& target, const BenchServerOptions& options, Console& console) {
  const auto count = [&](int n_words, uint64_t seed) {
    const RequestOutcome outcome = run_request(target, random_prompt(n_words, seed), 1,
                                               [&console] { return console.interrupted(); });
    if (!outcome.error.empty()) throw Error("the first request failed: " + outcome.error);
    return outcome.n_prompt_tokens;
  };
  const int few = count(kShortPrompt, options.seed + 1);
  const int many = count(kLongPrompt, options.seed + 2);
  const double per_word = static_cast<double>(many - few) / (kLongPrompt - kShortPrompt);
  if (few == 0 || per_word <= 0) {
    console.note("the server doesn't count prompt tokens: a prompt has " +
                 std::to_string(options.input_len) + " words instead");
    return options.input_len;
  }
  const double fixed = few - per_word * kShortPrompt;
  return std::max(1, static_cast<int>(std::lround((options.input_len - fixed) / per_word)));
}

Json row_json(const BenchServerOptions& options, const LoadTarget& target, int n_concurrent,
              const LoadResult& result) {
  const LoadSummary summary = summarize_load(result);
  Json row;
  row["server"] = options.url;
  row["api"] = target.api == ServerApi::kOpenai ? "openai" : "ollama";
  row["model"] = target.model;
  row["concurrency"] = n_concurrent;
  row["request_rate"] = options.request_rate > 0 ? Json(options.request_rate) : Json(nullptr);
  row["requests"] = summary.n_ok + summary.n_failed;
  row["failed"] = summary.n_failed;
  row["first_error"] = summary.n_failed > 0 ? Json(summary.first_error) : Json(nullptr);
  row["duration_s"] = result.duration_s;
  row["mean_input_tokens"] = summary.mean_prompt_tokens;
  row["mean_output_tokens"] = summary.mean_output_tokens;
  row["requests_per_s"] = summary.requests_s;
  row["output_tokens_per_s"] = summary.output_tokens_s;
  row["total_tokens_per_s"] = summary.total_tokens_s;
  for (const auto& [name, times] :
       {std::pair<const char*, const Distribution*>{"ttft", &summary.ttft_ms},
        {"tpot", &summary.tpot_ms},
        {"itl", &summary.itl_ms},
        {"e2e", &summary.e2e_ms}}) {
    const std::string prefix = std::string(name) + "_ms_";
    row[prefix + "mean"] = times->mean;
    row[prefix + "p50"] = times->p50;
    row[prefix + "p90"] = times->p90;
    row[prefix + "p99"] = times->p99;
    row[prefix + "max"] = times->max;
  }
  return row;
}

/// "mean / p50 / p90 / p99".
std::string times_cell(const Distribution& times) {
  return format("%.1f / %.1f / %.1f / %.1f", times.mean, times.p50, times.p90, times.p99);
}

std::string markdown_heading(const BenchServerOptions& options, const LoadTarget& target) {
  std::string text =
      format("%s, %s, %s API, %d tokens in, %d out", options.url.c_str(), target.model.c_str(),
             target.api == ServerApi::kOpenai ? "OpenAI's" : "Ollama's", options.input_len,
             options.output_len);
  if (options.request_rate > 0) {
    text += format(", %.2f requests a second at random moments", options.request_rate);
  }
  text += "\ntimes in ms: mean / p50 / p90 / p99\n\n";
  text +=
      format("| %7s | %4s | %6s | %7s | %8s | %9s | %-33s | %-28s | %-28s | %-36s |\n", "clients",
             "ok", "failed", "req/s", "out t/s", "total t/s", "TTFT", "TPOT", "ITL", "end to end");
  const auto dashes = [](size_t n) { return std::string(n, '-'); };
  return text + "| " + dashes(6) + ": | " + dashes(3) + ": | " + dashes(5) + ": | " + dashes(6) +
         ": | " + dashes(7) + ": | " + dashes(8) + ": | " + dashes(33) + " | " + dashes(28) +
         " | " + dashes(28) + " | " + dashes(36) + " |\n";
}

std::string markdown_row(int n_concurrent, const LoadSummary& summary) {
  return format("| %7d | %4d | %6d | %7.2f | %8.1f | %9.1f | %-33s | %-28s | %-28s | %-36s |\n",
                n_concurrent, summary.n_ok, summary.n_failed, summary.requests_s,
                summary.output_tokens_s, summary.total_tokens_s,
                times_cell(summary.ttft_ms).c_str(), times_cell(summary.tpot_ms).c_str(),
                times_cell(summary.itl_ms).c_str(), times_cell(summary.e2e_ms).c_str());
}

/// Prints levels as they come.
class Report {
 public:
  Report(const BenchServerOptions& options, const LoadTarget& target, Console& console)
      : options_(options), target_(target), console_(console) {}

  void add(int n_concurrent, const LoadResult& result) {
    const bool is_first = std::exchange(is_first_, false);
    const LoadSummary summary = summarize_load(result);
    if (summary.n_failed > 0) {
      console_.note(std::to_string(summary.n_failed) + " of " +
                    std::to_string(summary.n_ok + summary.n_failed) +
                    " requests failed, the first: " + summary.first_error);
    }
    if (options_.form == ReportForm::kMarkdown) {
      if (is_first) console_.print(markdown_heading(options_, target_));
      console_.print(markdown_row(n_concurrent, summary));
      return;
    }
    const Json row = row_json(options_, target_, n_concurrent, result);
    const std::string text = row.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (options_.form == ReportForm::kCsv) {
      if (is_first) console_.print(csv_heading(text));
      console_.print(csv_line(text));
    } else if (options_.form == ReportForm::kJsonLines) {
      console_.print(text + "\n");
    } else {
      rows_.push_back(Json::parse(text));
    }
  }

  void finish() {
    if (options_.form == ReportForm::kJson) console_.print(rows_.dump(2) + "\n");
  }

 private:
  const BenchServerOptions& options_;
  const LoadTarget& target_;
  Console& console_;
  Json rows_ = Json::array();
  bool is_first_ = true;
};

int clients_of(const BenchServerOptions& options, int n_concurrent, int n_requests) {
  // Arrivals at random moments wait for nobody, unless a limit was asked for.
  const bool has_limit = options.request_rate <= 0 || n_concurrent > 1;
  return std::min(has_limit ? n_concurrent : n_requests, kMaxClients);
}

}  // namespace

ServerAddress parse_server_url(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  std::string_view rest = url;
  if (rest.starts_with("https://")) {
    throw Error(url + ": https is not supported here, give the server's http address");
  }
  if (rest.starts_with(kScheme)) rest.remove_prefix(kScheme.size());
  while (rest.ends_with('/'))
    rest.remove_suffix(1);
  ServerAddress address{.host = "", .port = 80};
  const size_t bracket = rest.starts_with('[') ? rest.find(']') : std::string_view::npos;
  const size_t from = bracket == std::string_view::npos ? 0 : bracket;
  const size_t colon = rest.find(':', from);
  std::string_view host = rest.substr(0, colon);
  if (bracket != std::string_view::npos) host = rest.substr(1, bracket - 1);
  address.host = std::string(host);
  bool is_good = !host.empty() && host.find_first_of("/ ?#@") == std::string_view::npos;
  if (colon != std::string_view::npos) {
    const std::string_view port = rest.substr(colon + 1);
    const auto result = std::from_chars(port.data(), port.data() + port.size(), address.port);
    is_good = is_good && result.ec == std::errc() && result.ptr == port.data() + port.size() &&
              address.port >= 1 && address.port <= 65535;
  }
  if (!is_good) throw Error("\"" + url + "\", expected http://HOST:PORT");
  return address;
}

int bench_server(const BenchServerOptions& options, Console& console) {
  const ServerAddress address = parse_server_url(options.url);
  LoadTarget target{
      .host = address.host, .port = address.port, .api = options.api, .model = options.model};
  console.clear_interrupt();
  if (target.model.empty()) target.model = first_model(target);
  LoadPlan plan;
  plan.n_prompt_words = calibrate(target, options, console);
  plan.n_output_tokens = options.output_len;
  plan.request_rate = options.request_rate;
  Report report(options, target, console);
  bool any_answer = false;
  for (size_t level = 0; level < options.concurrency.size() && !console.interrupted(); ++level) {
    const int n_concurrent = options.concurrency[level];
    plan.n_requests = options.n_prompts > 0 ? options.n_prompts : std::max(16, 4 * n_concurrent);
    plan.n_concurrent = clients_of(options, n_concurrent, plan.n_requests);
    // Prompts of their own: the server may still have those of the level before.
    plan.seed = options.seed + 1000 * (level + 1);
    const LoadResult result = run_load(target, plan, [&](int n_done) {
      console.progress(std::to_string(n_concurrent) + " clients", n_done, 0);
      return !console.interrupted();
    });
    console.finish_progress();
    any_answer = any_answer || std::any_of(result.outcomes.begin(), result.outcomes.end(),
                                           [](const auto& one) { return one.error.empty(); });
    report.add(n_concurrent, result);
  }
  report.finish();
  if (console.interrupted()) return kInterrupted;
  return any_answer ? 0 : 1;
}

}  // namespace dsctl::commands
