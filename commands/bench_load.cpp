#include "commands/bench_load.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>
#include <utility>

#include "commands/error.h"
#include "commands/serve/client.h"

namespace dsctl::commands {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

constexpr auto kPoll = std::chrono::milliseconds(100);
constexpr size_t kMaxErrorText = 300;

/// Common words: most vocabularies have each of them as one token.
constexpr std::array kWords = {
    "time",     "year",    "people",   "way",    "day",        "man",     "thing",   "woman",
    "life",     "child",   "world",    "school", "state",      "family",  "student", "group",
    "country",  "problem", "hand",     "part",   "place",      "case",    "week",    "company",
    "system",   "program", "question", "work",   "government", "number",  "night",   "point",
    "home",     "water",   "room",     "mother", "area",       "money",   "story",   "fact",
    "month",    "lot",     "right",    "study",  "book",       "eye",     "job",     "word",
    "business", "issue",   "side",     "kind",   "head",       "house",   "service", "friend",
    "father",   "power",   "hour",     "game",   "line",       "end",     "member",  "law",
    "car",      "city",    "name",     "team",   "minute",     "idea",    "body",    "back",
    "parent",   "face",    "level",    "office", "door",       "health",  "person",  "art",
    "war",      "history", "party",    "result", "change",     "morning", "reason",  "research",
    "girl",     "guy",     "moment",   "air",    "teacher",    "force",   "order"};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int count_of(const Json& object, const char* name) {
  const auto it = object.find(name);
  if (it == object.end() || !it->is_number()) return 0;
  return static_cast<int>(std::clamp(it->get<double>(), 0.0, 1e9));
}

bool has_text(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() && !it->get_ref<const std::string&>().empty();
}

/// The message of an error in any of the usual forms.
std::string error_text(const Json& object) {
  const auto it = object.find("error");
  if (it == object.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  if (it->is_object() && it->contains("message") && (*it)["message"].is_string()) {
    return (*it)["message"].get<std::string>();
  }
  return it->dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string status_text(const serve::ClientResponse& response) {
  const Json body = Json::parse(response.body, nullptr, false);
  std::string text = body.is_object() ? error_text(body) : response.body;
  if (text.size() > kMaxErrorText) text.resize(kMaxErrorText);
  return "status " + std::to_string(response.status) + (text.empty() ? "" : ": " + text);
}

std::string request_path(ServerApi api) {
  return api == ServerApi::kOpenai ? "/v1/completions" : "/api/generate";
}

std::string request_body(const LoadTarget& target, const std::string& prompt, int n_output_tokens) {
  if (target.api == ServerApi::kOpenai) {
    return Json{{"model", target.model},
                {"prompt", prompt},
                {"max_tokens", n_output_tokens},
                {"temperature", 0},
                {"ignore_eos", true},
                {"stream", true},
                {"stream_options", {{"include_usage", true}}}}
        .dump();
  }
  return Json{
      {"model", target.model},
      {"prompt", prompt},
      {"raw", true},
      {"stream", true},
      {"options", {{"num_predict", n_output_tokens}, {"temperature", 0}, {"ignore_eos", true}}}}
      .dump();
}

}  // namespace

void AnswerReader::add_piece(double at_s) {
  if (n_pieces_++ == 0) {
    outcome_.first_s = at_s;
  } else {
    outcome_.gaps_s.push_back(at_s - last_s_);
  }
  last_s_ = at_s;
}

void AnswerReader::add_line(std::string_view line, double at_s) {
  while (!line.empty() && (line.back() == '\r' || line.back() == ' '))
    line.remove_suffix(1);
  if (line.empty()) return;
  if (api_ == ServerApi::kOllama) {
    add_ollama(line, at_s);
    return;
  }
  // Other fields of server-sent events, and comments, mean nothing here.
  constexpr std::string_view kData = "data:";
  if (!line.starts_with(kData)) return;
  line.remove_prefix(kData.size());
  while (line.starts_with(' '))
    line.remove_prefix(1);
  if (line == "[DONE]") {
    is_done_ = true;
  } else {
    add_openai(line, at_s);
  }
}

void AnswerReader::add_openai(std::string_view text, double at_s) {
  const Json chunk = Json::parse(text, nullptr, false);
  if (!chunk.is_object()) {
    outcome_.error = "a chunk that is no JSON object";
    return;
  }
  if (const std::string error = error_text(chunk); !error.empty()) outcome_.error = error;
  if (const auto usage = chunk.find("usage"); usage != chunk.end() && usage->is_object()) {
    outcome_.n_prompt_tokens = count_of(*usage, "prompt_tokens");
    outcome_.n_output_tokens = count_of(*usage, "completion_tokens");
  }
  const auto choices = chunk.find("choices");
  if (choices == chunk.end() || !choices->is_array() || choices->empty()) return;
  if (choices->front().is_object() && has_text(choices->front(), "text")) add_piece(at_s);
}

void AnswerReader::add_ollama(std::string_view text, double at_s) {
  const Json chunk = Json::parse(text, nullptr, false);
  if (!chunk.is_object()) {
    outcome_.error = "a line that is no JSON object";
    return;
  }
  if (const std::string error = error_text(chunk); !error.empty()) outcome_.error = error;
  if (has_text(chunk, "response") || has_text(chunk, "thinking")) add_piece(at_s);
  const auto done = chunk.find("done");
  if (done == chunk.end() || !done->is_boolean() || !done->get<bool>()) return;
  is_done_ = true;
  outcome_.n_prompt_tokens = count_of(chunk, "prompt_eval_count");
  outcome_.n_output_tokens = count_of(chunk, "eval_count");
}

RequestOutcome AnswerReader::finish(double at_s) {
  outcome_.end_s = at_s;
  // A server that doesn't count sends a token a piece, most likely.
  if (outcome_.n_output_tokens == 0) outcome_.n_output_tokens = n_pieces_;
  if (outcome_.error.empty() && !is_done_) outcome_.error = "the answer ended too early";
  if (outcome_.error.empty() && n_pieces_ == 0) outcome_.error = "an answer without any text";
  return std::move(outcome_);
}

std::string random_prompt(int n_words, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text;
  for (int i = 0; i < n_words; ++i) {
    if (i > 0) text += ' ';
    text += kWords[random() % kWords.size()];
  }
  return text;
}

std::vector<double> arrival_times(int n_requests, double rate, uint64_t seed) {
  std::vector<double> times(static_cast<size_t>(n_requests), 0.0);
  if (rate <= 0) return times;
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> gap(rate);
  double now = 0;
  for (double& time : times) {
    time = now;
    now += gap(random);
  }
  return times;
}

RequestOutcome run_request(const LoadTarget& target, const std::string& prompt, int n_output_tokens,
                           const std::function<bool()>& interrupted) {
  RequestOutcome failed;
  try {
    const serve::HttpClient client(target.host, target.port);
    AnswerReader reader(target.api);
    const std::string body = request_body(target, prompt, n_output_tokens);
    const auto begin = Clock::now();
    const auto on_line = [&](std::string_view line) {
      reader.add_line(line, seconds_since(begin));
    };
    const serve::ClientResponse response =
        client.stream("POST", request_path(target.api), body, on_line, interrupted);
    if (response.status == 200) return reader.finish(seconds_since(begin));
    failed.error = response.status == 0 ? "interrupted" : status_text(response);
  } catch (const std::exception& error) {
    failed.error = error.what();
  }
  return failed;
}

std::string first_model(const LoadTarget& target) {
  const bool openai = target.api == ServerApi::kOpenai;
  const serve::HttpClient client(target.host, target.port);
  const std::string path = openai ? "/v1/models" : "/api/tags";
  const serve::ClientResponse response = client.request("GET", path, "");
  if (response.status != 200) throw Error(client.url() + path + ": " + status_text(response));
  const Json body = Json::parse(response.body, nullptr, false);
  const char* list_name = openai ? "data" : "models";
  const char* name = openai ? "id" : "name";
  if (body.is_object() && body.contains(list_name) && body[list_name].is_array()) {
    for (const Json& entry : body[list_name]) {
      if (entry.is_object() && has_text(entry, name)) return entry[name].get<std::string>();
    }
  }
  throw Error(client.url() + path + ": lists no model; give its name with --model");
}

LoadResult run_load(const LoadTarget& target, const LoadPlan& plan,
                    const std::function<bool(int n_done)>& progress) {
  const std::vector<double> arrivals = arrival_times(plan.n_requests, plan.request_rate, plan.seed);
  std::vector<std::optional<RequestOutcome>> outcomes(arrivals.size());
  std::atomic<size_t> next{0};
  std::atomic<int> n_done{0};
  std::atomic<bool> stopped{false};
  std::mutex mutex;
  std::condition_variable changed;
  const auto begin = Clock::now();
  const auto client = [&] {
    for (size_t i = next++; i < arrivals.size() && !stopped; i = next++) {
      const auto at = begin + std::chrono::duration_cast<Clock::duration>(
                                  std::chrono::duration<double>(arrivals[i]));
      {
        std::unique_lock lock(mutex);
        changed.wait_until(lock, at, [&] { return stopped.load(); });
      }
      if (stopped) break;
      const std::string prompt = random_prompt(plan.n_prompt_words, plan.seed * 1'000'003 + i);
      outcomes[i] =
          run_request(target, prompt, plan.n_output_tokens, [&stopped] { return stopped.load(); });
      ++n_done;
      const std::lock_guard lock(mutex);
      changed.notify_all();
    }
  };
  LoadResult result;
  {
    std::vector<std::jthread> clients;
    const int n_clients = std::min(plan.n_concurrent, plan.n_requests);
    for (int i = 0; i < n_clients; ++i)
      clients.emplace_back(client);
    while (n_done < plan.n_requests && !stopped) {
      if (!progress(n_done)) stopped = true;
      std::unique_lock lock(mutex);
      changed.notify_all();
      changed.wait_for(lock, kPoll, [&] { return n_done >= plan.n_requests || stopped; });
    }
  }
  result.duration_s = seconds_since(begin);
  for (auto& outcome : outcomes) {
    if (outcome) result.outcomes.push_back(std::move(*outcome));
  }
  return result;
}

LoadSummary summarize_load(const LoadResult& result) {
  LoadSummary summary;
  std::vector<double> ttft;
  std::vector<double> tpot;
  std::vector<double> itl;
  std::vector<double> e2e;
  double prompt_tokens = 0;
  double output_tokens = 0;
  for (const RequestOutcome& outcome : result.outcomes) {
    if (!outcome.error.empty()) {
      if (summary.n_failed++ == 0) summary.first_error = outcome.error;
      continue;
    }
    ++summary.n_ok;
    prompt_tokens += outcome.n_prompt_tokens;
    output_tokens += outcome.n_output_tokens;
    ttft.push_back(outcome.first_s * 1e3);
    e2e.push_back(outcome.end_s * 1e3);
    if (outcome.n_output_tokens > 1) {
      tpot.push_back((outcome.end_s - outcome.first_s) * 1e3 / (outcome.n_output_tokens - 1));
    }
    for (const double gap : outcome.gaps_s)
      itl.push_back(gap * 1e3);
  }
  summary.ttft_ms = summarize(std::move(ttft));
  summary.tpot_ms = summarize(std::move(tpot));
  summary.itl_ms = summarize(std::move(itl));
  summary.e2e_ms = summarize(std::move(e2e));
  if (summary.n_ok > 0) {
    summary.mean_prompt_tokens = prompt_tokens / summary.n_ok;
    summary.mean_output_tokens = output_tokens / summary.n_ok;
  }
  if (result.duration_s > 0) {
    summary.requests_s = summary.n_ok / result.duration_s;
    summary.output_tokens_s = output_tokens / result.duration_s;
    summary.total_tokens_s = (prompt_tokens + output_tokens) / result.duration_s;
  }
  return summary;
}

}  // namespace dsctl::commands
