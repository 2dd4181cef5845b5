#include "commands/bench_report.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/catch.h"
#include "tests/support/recording_console.h"

namespace dsctl::commands {
namespace {

using Catch::Contains;
using Json = nlohmann::json;
using Kind = BenchCase::Kind;

BenchFacts facts() {
  BenchFacts facts;
  facts.model = "a \"small\", model";
  facts.architecture = "llama";
  facts.quantization = "Q4_1";
  facts.size_bytes = 1'000'000'000;
  facts.file_bytes = 1'100'000'000;
  facts.n_parameters = 1'500'000'000;
  facts.read_parameters = 1'400'000'000;
  facts.backend = "CPU";
  facts.device = "a processor";
  facts.n_threads = 2;
  facts.n_batch = 512;
  facts.read_gb_s = 20.0;
  facts.load_seconds = 0.5;
  return facts;
}

BenchResult prompt_result() {
  BenchResult result;
  result.test = {.kind = Kind::kPrompt, .n_tokens = 500, .n_seqs = 2, .depth = 0};
  result.seconds = {2.0, 2.0};
  result.peak_bytes = 1'000'000'000;
  return result;
}

BenchResult generation_result() {
  BenchResult result;
  result.test = {.kind = Kind::kGenerate, .n_tokens = 100, .n_seqs = 1, .depth = 4096};
  result.seconds = {10.0, 5.0};
  result.step_bytes = 900'000'000;
  result.peak_bytes = 1'650'000'000;
  return result;
}

std::string print(ReportForm form) {
  tests::RecordingConsole console;
  BenchReport report(form, facts(), console);
  report.add(prompt_result());
  report.add(generation_result());
  report.finish();
  return console.printed;
}

TEST_CASE("a case is named as llama-bench names it") {
  CHECK(prompt_result().test.name() == "pp500 x2");
  CHECK(generation_result().test.name() == "tg100 @ d4096");
}

TEST_CASE("rates are of all sequences, times of one step") {
  const BenchResult prompt = prompt_result();
  CHECK(prompt.tokens_per_second().mean == Approx(500.0));
  CHECK(prompt.token_ms() == Approx(2000.0));
  // 2 operations x 1.4e9 weights x 1000 tokens in 2 s
  CHECK(prompt.gflops(1'400'000'000).value() == Approx(1400.0));
  CHECK_FALSE(prompt.gb_s());
  const BenchResult generation = generation_result();
  CHECK(generation.tokens_per_second().mean == Approx(15.0));  // of 10 and 20
  CHECK(generation.tokens_per_second().stddev == Approx(7.0710678));
  CHECK(generation.token_ms() == Approx(75.0));
  CHECK(generation.gb_s().value() == Approx(12.0));
  CHECK_FALSE(generation.gflops(1));
  CHECK(percent_of(generation.gb_s(), 20.0).value() == Approx(60.0));
  CHECK_FALSE(percent_of(generation.gb_s(), std::nullopt));
  CHECK_FALSE(percent_of(std::nullopt, 20.0));
  CHECK_FALSE(percent_of(1.0, 0.0));
}

TEST_CASE("JSON is one array, JSON lines the same rows") {
  const Json rows = Json::parse(print(ReportForm::kJson));
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["test"] == "pp500 x2");
  CHECK(rows[0]["n_prompt"] == 500);
  CHECK(rows[0]["n_gen"] == 0);
  CHECK(rows[0]["avg_ns"] == 2'000'000'000);
  CHECK(rows[0]["gb_s"].is_null());
  CHECK(rows[1]["n_depth"] == 4096);
  CHECK(rows[1]["avg_ts"].get<double>() == Approx(15.0));
  CHECK(rows[1]["bandwidth_percent"].get<double>() == Approx(60.0));
  CHECK(rows[1]["peak_memory_ratio"].get<double>() == Approx(1.5));
  CHECK(rows[1]["samples_ns"] == Json::parse("[10000000000, 5000000000]"));
  std::istringstream lines(print(ReportForm::kJsonLines));
  std::string line;
  for (const Json& row : rows) {
    REQUIRE(std::getline(lines, line));
    Json parsed = Json::parse(line);
    parsed["test_time"] = row["test_time"];
    CHECK(parsed == row);
  }
}

TEST_CASE("CSV has a heading, quoted text and as many fields in every line") {
  std::istringstream lines(print(ReportForm::kCsv));
  std::vector<std::string> rows;
  for (std::string line; std::getline(lines, line);)
    rows.push_back(line);
  REQUIRE(rows.size() == 3);
  CHECK_THAT(rows[0], Contains("model_filename,") && Contains(",avg_ts,stddev_ts,"));
  CHECK_THAT(rows[1], Contains("\"a \"\"small\"\", model\"") && Contains("\"pp500 x2\""));
  CHECK_THAT(rows[0], !Contains("samples"));
  CHECK(csv_heading(R"({"a":1,"b":[1],"c":null})") == "a,c\n");
  CHECK(csv_line(R"({"a":1.5,"b":[1],"c":null,"d":"x,\"y\""})") == "1.5,,\"x,\"\"y\"\"\"\n");
}

TEST_CASE("the table tells of machine, model, cases and memory") {
  const std::string text = print(ReportForm::kMarkdown);
  CHECK_THAT(text, Contains("memory read 20.00 GB/s by 2 threads"));
  CHECK_THAT(text, Contains("| tg100 @ d4096") && Contains("15.00 ±   7.07"));
  CHECK_THAT(text, Contains("60.0 %") && Contains("peak memory 1573.6 MiB (1.50 of the file)"));
}

}  // namespace
}  // namespace dsctl::commands
