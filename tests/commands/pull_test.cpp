#include "commands/pull.h"

#include <string>

#include "commands/error.h"
#include "commands/pull_display.h"
#include "registry/sources/variants.h"
#include "tests/support/catch.h"
#include "tests/support/recording_console.h"

namespace dsctl::commands {
namespace {

using Catch::Contains;
using registry::DownloadEventType;

TEST_CASE("parse_rate reads what people write") {
  CHECK(parse_rate("10M") == 10'000'000);
  CHECK(parse_rate("1.5G") == 1'500'000'000);
  CHECK(parse_rate("500k") == 500'000);
  CHECK(parse_rate("1MiB/s") == 1'048'576);
  CHECK(parse_rate("1000") == 1000);
  for (const char* bad : {"", "M", "-1", "0", "10X", "1e30", "nan", "10 M"}) {
    CAPTURE(bad);
    CHECK_THROWS_WITH(parse_rate(bad), Contains("is no rate"));
  }
}

PullPlan two_files() {
  PullPlan plan;
  for (const char* path : {"x-Q4_0-00001-of-00002.gguf", "x-Q4_0-00002-of-00002.gguf"}) {
    registry::RemoteFile file;
    file.path = path;
    file.size_bytes = 1'000'000;
    plan.resolved.files.push_back(file);
    plan.files.push_back({.file_idx = plan.files.size(), .media_type = ""});
  }
  plan.total_bytes = 2'000'000;
  plan.missing_bytes = 2'000'000;
  plan.free_bytes = 1'000'000'000;
  plan.root = "/models";
  return plan;
}

TEST_CASE("check_space refuses with both numbers") {
  PullPlan plan = two_files();
  CHECK_NOTHROW(check_space(plan));
  plan.free_bytes = 1'500'000;
  CHECK_THROWS_WITH(check_space(plan), Contains("2000000 bytes (2 MB)") && Contains("1500000"));
  plan.missing_bytes = 0;
  CHECK_NOTHROW(check_space(plan));
}

TEST_CASE("RateMeter averages over ten seconds") {
  RateMeter meter;
  const auto start = RateMeter::Clock::now();
  CHECK(meter.bytes_per_second() == 0);
  for (int second = 0; second <= 60; ++second) {
    const int64_t bytes = second <= 30 ? second * 1000 : 30'000 + (second - 30) * 5000;
    meter.add(bytes, start + std::chrono::seconds(second));
  }
  CHECK(meter.bytes_per_second() == Approx(5000));
  CHECK(duration_text(12) == "12s");
  CHECK(duration_text(2463) == "41m3s");
  CHECK(duration_text(7500) == "2h5m");
}

TEST_CASE("PullDisplay draws a bar for each file and a line for all") {
  const PullPlan plan = two_files();
  tests::RecordingConsole console;
  PullDisplay display(console, plan, PullOutput::kText);
  display.on_event({.type = DownloadEventType::kFinished,
                    .file_idx = 0,
                    .done_bytes = 1'000'000,
                    .total_bytes = 1'000'000,
                    .fetched_bytes = 1'000'000,
                    .message = ""});
  REQUIRE(console.progress_lines_shown.size() == 3);
  CHECK_THAT(console.progress_lines_shown[0], Contains("100% ▕████████████████████▏ 1 MB/1 MB"));
  CHECK_THAT(console.progress_lines_shown[1], Contains("0%"));
  CHECK_THAT(console.summaries.back(), Contains("50% 1 MB of 2 MB"));
  // An event of no file at all changes nothing.
  display.on_event({.type = DownloadEventType::kProgress, .file_idx = 99, .message = ""});
  display.finish();
}

TEST_CASE("PullDisplay tells a program one object a line") {
  const PullPlan plan = two_files();
  tests::RecordingConsole console;
  PullDisplay display(console, plan, PullOutput::kJson);
  display.on_event({.type = DownloadEventType::kRetry,
                    .file_idx = 1,
                    .done_bytes = 5,
                    .total_bytes = 1'000'000,
                    .fetched_bytes = 5,
                    .message = "cut \xff off"});
  CHECK(console.printed ==
        "{\"event\":\"retry\",\"file\":\"x-Q4_0-00002-of-00002.gguf\",\"completed\":5,"
        "\"total\":1000000,\"message\":\"cut \xef\xbf\xbd off\"}\n");
  CHECK(console.progress_lines_shown.empty());
}

TEST_CASE("a plan and a choice are told as tables") {
  PullPlan plan = two_files();
  plan.files[0].here_bytes = 400'000;
  plan.resolved.ref = registry::RemoteRef::parse("a/b", "hf");
  plan.resolved.revision = std::string(40, 'c');
  plan.name = registry::ModelName::parse("hf.co/a/b:Q4_0");
  const std::string text = plan_text(plan);
  CHECK_THAT(text, Contains("hf.co/a/b:Q4_0 from "));
  CHECK_THAT(text, Contains("(revision cccccccccccc)"));
  CHECK_THAT(text, Contains("400 KB here"));
  CHECK_THAT(text, Contains("2 MB in 2 files, 2 MB to fetch; 1 GB free at /models"));
  plan.resolved.variants = registry::group_files(plan.resolved.files).variants;
  CHECK_THAT(choice_text(plan.resolved, {{"fits memory"}, ""}),
             Contains("Q4_0     2 MB    2        fits memory"));
  CHECK_THAT(choice_json(plan.resolved, {{""}, "no header"}),
             Contains("\"fit\":null") && Contains("\"problem\":\"no header\""));
}

}  // namespace
}  // namespace dsctl::commands
