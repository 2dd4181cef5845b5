// What a person, or a program that reads JSON, sees of a pull: the plan, a bar for each file, the
// total with rate and time left.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "commands/console.h"
#include "commands/pull_fit.h"
#include "commands/pull_plan.h"
#include "registry/download.h"

namespace dsctl::commands {

enum class PullOutput { kText, kJson, kQuiet };

/// The plan for people: one line a file with size and what of it is here, then the sums, the free
/// space, the fit.
std::string plan_text(const PullPlan& plan);
/// {"event":"plan", "name", "source", "revision", "files":[...], "total", "missing", "free",
/// "fit"}.
std::string plan_json(const PullPlan& plan);
/// The models of a repository, one line each: label, size, files, fit; for a person who has to
/// choose.
std::string choice_text(const registry::Resolved& resolved, const VariantFits& fits);
std::string choice_json(const registry::Resolved& resolved, const VariantFits& fits);

/// Bytes per second over the last ten seconds.
class RateMeter {
 public:
  using Clock = std::chrono::steady_clock;
  void add(int64_t total_bytes, Clock::time_point now);
  double bytes_per_second() const;

 private:
  std::deque<std::pair<Clock::time_point, int64_t>> samples_;
};

/// "41m3s", "2h5m", "12s".
std::string duration_text(int64_t seconds);

/// Shows the events of one pull. Thread-safe.
class PullDisplay {
 public:
  PullDisplay(Console& console, const PullPlan& plan, PullOutput output);
  void on_event(const registry::DownloadEvent& event);
  void finish();

 private:
  struct Bar {
    int64_t done = 0;
    registry::DownloadEventType state = registry::DownloadEventType::kStarted;
    std::chrono::steady_clock::time_point told;
  };
  void draw(std::chrono::steady_clock::time_point now);
  void tell_json(const registry::DownloadEvent& event);
  std::string bar_line(size_t file_idx) const;
  std::string total_line() const;

  Console& console_;
  const PullPlan& plan_;
  const PullOutput output_;
  std::mutex mutex_;
  std::vector<Bar> bars_;
  RateMeter rate_;
  std::chrono::steady_clock::time_point drawn_;
};

}  // namespace dsctl::commands
