#include "commands/bench_load.h"

#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "commands/bench_server.h"
#include "commands/error.h"
#include "tests/support/catch.h"
#include "tests/support/commands_server.h"
#include "tests/support/recording_console.h"

namespace dsctl::commands {
namespace {

using Catch::Contains;
using Json = nlohmann::json;

TEST_CASE("an OpenAI stream gives times of its pieces and the server's counts") {
  AnswerReader reader(ServerApi::kOpenai);
  reader.add_line(": a comment", 0.1);
  reader.add_line(R"(data: {"choices":[{"text":""}]})", 0.2);
  reader.add_line(R"(data: {"choices":[{"text":"a"}]})", 1.0);
  reader.add_line("", 1.0);
  reader.add_line(R"(data: {"choices":[{"text":"b"}],"usage":null})", 1.5);
  reader.add_line(R"(data:{"choices":[{"text":"c"}]})"
                  "\r",
                  1.75);
  reader.add_line(R"(data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}})", 1.8);
  reader.add_line("data: [DONE]", 1.9);
  const RequestOutcome outcome = reader.finish(2.0);
  CHECK(outcome.error.empty());
  CHECK(outcome.first_s == 1.0);
  CHECK(outcome.end_s == 2.0);
  CHECK(outcome.gaps_s == std::vector<double>{0.5, 0.25});
  CHECK(outcome.n_prompt_tokens == 9);
  CHECK(outcome.n_output_tokens == 4);
}

TEST_CASE("an Ollama stream counts thoughts as text") {
  AnswerReader reader(ServerApi::kOllama);
  reader.add_line(R"({"thinking":"hm","done":false})", 1.0);
  reader.add_line(R"({"response":"a","done":false})", 3.0);
  reader.add_line(R"({"response":"","done":true,"prompt_eval_count":7,"eval_count":2})", 4.0);
  const RequestOutcome outcome = reader.finish(4.0);
  CHECK(outcome.error.empty());
  CHECK(outcome.first_s == 1.0);
  CHECK(outcome.gaps_s == std::vector<double>{2.0});
  CHECK(outcome.n_prompt_tokens == 7);
  CHECK(outcome.n_output_tokens == 2);
}

TEST_CASE("an answer that is cut off, empty, broken or an error is a failure") {
  const auto error_of = [](ServerApi api, const std::vector<std::string>& lines) {
    AnswerReader reader(api);
    for (const std::string& line : lines)
      reader.add_line(line, 1.0);
    return reader.finish(2.0).error;
  };
  const std::string piece = R"(data: {"choices":[{"text":"a"}]})";
  CHECK_THAT(error_of(ServerApi::kOpenai, {piece}), Contains("ended too early"));
  CHECK_THAT(error_of(ServerApi::kOpenai, {"data: [DONE]"}), Contains("without any text"));
  CHECK_THAT(error_of(ServerApi::kOpenai, {piece, "data: {", "data: [DONE]"}),
             Contains("no JSON object"));
  CHECK(error_of(ServerApi::kOpenai, {piece, R"(data: {"error":{"message":"lost"}})"}) == "lost");
  CHECK(error_of(ServerApi::kOllama, {R"({"error":"gone"})"}) == "gone");
  CHECK_THAT(error_of(ServerApi::kOllama, {"[]"}), Contains("no JSON object"));
}

TEST_CASE("a summary counts whole answers only") {
  LoadResult result;
  result.duration_s = 10;
  for (int i = 1; i <= 4; ++i) {
    RequestOutcome ok;
    ok.first_s = i;
    ok.end_s = i + 2;
    ok.gaps_s = {1.0, 1.0};
    ok.n_prompt_tokens = 100;
    ok.n_output_tokens = 5;
    result.outcomes.push_back(ok);
  }
  RequestOutcome failed;
  failed.error = "status 503: full";
  failed.end_s = 99;
  result.outcomes.push_back(failed);
  const LoadSummary summary = summarize_load(result);
  CHECK(summary.n_ok == 4);
  CHECK(summary.n_failed == 1);
  CHECK(summary.first_error == "status 503: full");
  CHECK(summary.requests_s == Approx(0.4));
  CHECK(summary.output_tokens_s == Approx(2.0));
  CHECK(summary.total_tokens_s == Approx(42.0));
  CHECK(summary.ttft_ms.p50 == Approx(2500.0));
  CHECK(summary.tpot_ms.mean == Approx(500.0));
  CHECK(summary.itl_ms.n == 8);
  CHECK(summary.e2e_ms.max == Approx(6000.0));
  CHECK(summarize_load({}).requests_s == 0.0);
}

TEST_CASE("random moments have the mean gap of their rate and a seed of their own") {
  const std::vector<double> times = arrival_times(20000, 50.0, 3);
  CHECK(times.front() == 0.0);
  CHECK(std::is_sorted(times.begin(), times.end()));
  CHECK(times.back() / 19999 == Approx(0.02).epsilon(0.05));
  CHECK(arrival_times(20000, 50.0, 3) == times);
  CHECK(arrival_times(20000, 50.0, 4) != times);
  CHECK(arrival_times(3, 0.0, 3) == std::vector<double>{0, 0, 0});
}

TEST_CASE("prompts are of so many words, each its own, the same for the same seed") {
  const std::string prompt = random_prompt(50, 1);
  CHECK(std::count(prompt.begin(), prompt.end(), ' ') == 49);
  CHECK(random_prompt(50, 1) == prompt);
  CHECK(random_prompt(50, 2) != prompt);
}

TEST_CASE("a server's address") {
  CHECK(parse_server_url("http://127.0.0.1:8080/").host == "127.0.0.1");
  CHECK(parse_server_url("localhost:11434").port == 11434);
  CHECK(parse_server_url("http://[::1]:99").host == "::1");
  CHECK(parse_server_url("http://[::1]:99").port == 99);
  CHECK(parse_server_url("http://box").port == 80);
  CHECK_THROWS_WITH(parse_server_url("https://box"), Contains("https is not supported"));
  for (const char* url : {"", "http://", "http://a:", "http://a:0", "http://a:99999", "http://a:1x",
                          "http://a/b", "ftp://a", "http://u@a"}) {
    CHECK_THROWS_WITH(parse_server_url(url), Contains("expected http://HOST:PORT"));
  }
}

BenchServerOptions options_for(const tests::TestServer& server, ServerApi api) {
  BenchServerOptions options;
  options.url = "http://127.0.0.1:" + std::to_string(server.port());
  options.model = "bytes";
  options.api = api;
  options.concurrency = {1, 3};
  options.n_prompts = 6;
  options.input_len = 100;
  options.output_len = 5;
  options.form = ReportForm::kJson;
  return options;
}

TEST_CASE("bench --server measures a real server over both APIs") {
  tests::TestServer server;
  for (const ServerApi api : {ServerApi::kOpenai, ServerApi::kOllama}) {
    tests::RecordingConsole console;
    REQUIRE(bench_server(options_for(server, api), console) == 0);
    const Json rows = Json::parse(console.printed);
    REQUIRE(rows.size() == 2);
    for (const Json& row : rows) {
      CHECK(row["requests"] == 6);
      CHECK(row["failed"] == 0);
      CHECK(row["first_error"].is_null());
      // A token is a byte here: random words come within a word of what was asked for.
      CHECK(row["mean_input_tokens"].get<double>() == Approx(100).margin(20));
      CHECK(row["mean_output_tokens"].get<double>() == Approx(5));
      CHECK(row["output_tokens_per_s"].get<double>() > 0);
      CHECK(row["e2e_ms_max"].get<double>() >= row["ttft_ms_mean"].get<double>());
      CHECK(row["itl_ms_p99"].get<double>() >= row["itl_ms_p50"].get<double>());
    }
    CHECK(rows[0]["concurrency"] == 1);
    CHECK(rows[1]["concurrency"] == 3);
  }
}

TEST_CASE("so many clients wait at a time, no more") {
  tests::TestServer server;
  BenchServerOptions options = options_for(server, ServerApi::kOllama);
  options.concurrency = {3};
  tests::RecordingConsole console;
  REQUIRE(bench_server(options, console) == 0);
  // The fake counts a request as running until a moment after its end was told.
  CHECK(server.script->get([](auto& script) { return script.max_running; }) <= 2 * 3);
}

TEST_CASE("failed requests are counted and the first is told") {
  tests::TestServer server;
  const LoadTarget target{
      .host = "127.0.0.1", .port = server.port(), .api = ServerApi::kOpenai, .model = "nobody"};
  const LoadResult result = run_load(
      target, {.n_requests = 4, .n_concurrent = 2, .n_prompt_words = 3, .n_output_tokens = 2},
      [](int) { return true; });
  const LoadSummary summary = summarize_load(result);
  CHECK(summary.n_ok == 0);
  CHECK(summary.n_failed == 4);
  CHECK_THAT(summary.first_error, Contains("status 404"));
  tests::RecordingConsole console;
  BenchServerOptions options = options_for(server, ServerApi::kOpenai);
  options.model = "nobody";
  CHECK_THROWS_WITH(bench_server(options, console), Contains("the first request failed"));
}

TEST_CASE("a load that is told to stop cancels what runs") {
  tests::TestServer server;
  server.script->set([](auto& script) { script.allowed_tokens = 1; });
  const LoadTarget target{
      .host = "127.0.0.1", .port = server.port(), .api = ServerApi::kOllama, .model = "bytes"};
  const LoadResult result = run_load(
      target, {.n_requests = 50, .n_concurrent = 2, .n_prompt_words = 3, .n_output_tokens = 5},
      [&](int) { return server.script->get([](auto& script) { return script.n_running; }) == 0; });
  const LoadSummary summary = summarize_load(result);
  CHECK(summary.n_ok == 0);
  CHECK(result.outcomes.size() <= 2);
}

}  // namespace
}  // namespace dsctl::commands
