#include "commands/pull.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "commands/error.h"
#include "commands/model_info.h"
#include "commands/plan_machine.h"
#include "commands/pull_display.h"
#include "commands/pull_fit.h"
#include "commands/pull_run.h"
#include "registry/error.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;

/// Asks for a stop when the person presses Ctrl-C.
class InterruptWatch {
 public:
  explicit InterruptWatch(const Console& console)
      : thread_([this, &console](std::stop_token ending) {
          while (!ending.stop_requested()) {
            if (console.interrupted()) source_.request_stop();
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
          }
        }) {}
  std::stop_token token() const { return source_.get_token(); }

 private:
  std::stop_source source_;
  std::jthread thread_;  // last: it uses what is before it
};

void print_done(const PullPlan& plan, const PullResult& result, const PullOptions& options,
                Console& console) {
  if (options.json) {
    Json json;
    json["event"] = "done";
    json["name"] = plan.name ? Json(plan.name->short_form()) : Json();
    json["digest"] = result.model ? Json(result.model->digest.hex()) : Json();
    json["size"] = result.model ? result.model->size_bytes : plan.total_bytes;
    json["was_complete"] = result.was_complete;
    console.print(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    return;
  }
  if (options.quiet) return;
  const std::string what = plan.name ? "'" + plan.name->short_form() + "'" : plan.root.string();
  if (result.was_complete) {
    console.print(what + " is up to date\n");
  } else if (plan.name) {
    console.print("pulled " + what + ": dsctl run " + plan.name->short_form() + "\n");
  } else {
    console.print("pulled " + std::to_string(plan.files.size()) +
                  (plan.files.size() == 1 ? " file to " : " files to ") + what + "\n");
  }
}

PullOutput output_of(const PullOptions& options) {
  if (options.json) return PullOutput::kJson;
  return options.quiet ? PullOutput::kQuiet : PullOutput::kText;
}

HeaderProgress reading(Console& console, PullOutput output) {
  if (output != PullOutput::kText) return {};
  return [&console](std::string_view what, int64_t done, int64_t total) {
    console.progress(what, done, total);
  };
}

}  // namespace

int pull(const Settings& settings, const PullOptions& options, Console& console) {
  const InterruptWatch watch(console);
  const PullOutput output = output_of(options);
  PullTransfer transfer{options.jobs, options.limit_bytes_per_second, {}};
  if (output == PullOutput::kText) {
    transfer.http.on_retry = [&console](const std::string& line) { console.note(line); };
  }
  PullPlan plan;
  try {
    plan = make_pull_plan(options.request, settings.models_dir, transfer.http, watch.token());
  } catch (const ChoiceNeeded& choice) {
    const VariantFits fits = fits_of_variants(choice.resolved, this_machine(), transfer.http,
                                              reading(console, output), watch.token());
    console.finish_progress();
    console.print(options.json ? choice_json(choice.resolved, fits)
                               : choice_text(choice.resolved, fits));
    if (!fits.problem.empty()) console.note("the fit can't be told: " + fits.problem);
    console.note(std::string("error: ") + choice.what());
    return 1;
  }
  if ((options.dry_run || plan.missing_bytes > 0) && output != PullOutput::kQuiet) {
    add_fit(plan, this_machine(), transfer.http, reading(console, output), watch.token());
    console.finish_progress();
  }
  if (options.dry_run) {
    console.print(options.json ? plan_json(plan) : plan_text(plan));
    check_space(plan);
    return 0;
  }
  if (output == PullOutput::kJson) console.print(plan_json(plan));
  if (output == PullOutput::kText && plan.missing_bytes > 0) {
    std::string text = plan_text(plan);
    text.pop_back();  // note() adds the line's end
    console.note(text);
  }
  check_space(plan);
  registry::Registry registry(settings.models_dir);
  PullDisplay display(console, plan, output);
  PullObserver observer;
  observer.on_event = [&display](const registry::DownloadEvent& event) { display.on_event(event); };
  const PullResult result = run_pull(plan, registry, transfer, observer, watch.token());
  display.finish();
  print_done(plan, result, options, console);
  return 0;
}

int64_t parse_rate(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit(end, text.data() + text.size());
  std::transform(unit.begin(), unit.end(), unit.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (unit.ends_with("/s")) unit.resize(unit.size() - 2);
  double factor = 0;
  for (const auto& [name, bytes] : {std::pair{"", 1.0},
                                    {"b", 1.0},
                                    {"k", 1e3},
                                    {"kb", 1e3},
                                    {"m", 1e6},
                                    {"mb", 1e6},
                                    {"g", 1e9},
                                    {"gb", 1e9},
                                    {"kib", 1024.0},
                                    {"mib", 1048576.0},
                                    {"gib", 1073741824.0}}) {
    if (unit == name) factor = bytes;
  }
  const double rate = value * factor;
  if (error != std::errc() || !(rate >= 1) || rate > 1e15) {
    throw Error("\"" + std::string(text) +
                "\" is no rate; expected a number of bytes a second, with k, M or G: 10M");
  }
  return static_cast<int64_t>(std::floor(rate));
}

}  // namespace dsctl::commands
