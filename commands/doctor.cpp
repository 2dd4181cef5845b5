#include "commands/doctor.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kSubjectWidth = 11;

std::string_view level_name(Finding::Level level) {
  switch (level) {
    case Finding::Level::kOk:
      return "ok";
    case Finding::Level::kWarning:
      return "warning";
    case Finding::Level::kError:
      return "error";
  }
  return "";
}

size_t count(const std::vector<Finding>& findings, Finding::Level level) {
  return static_cast<size_t>(
      std::count_if(findings.begin(), findings.end(),
                    [level](const Finding& finding) { return finding.level == level; }));
}

void print_json(const std::vector<Finding>& findings, Console& console) {
  Json list = Json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"level", level_name(finding.level)},
                    {"subject", finding.subject},
                    {"text", finding.text},
                    {"advice", finding.advice}});
  }
  console.print(list.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::string plural(size_t n, const std::string& noun) {
  return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
}

void print_text(const std::vector<Finding>& findings, Console& console) {
  for (const Finding& finding : findings) {
    const std::string_view mark = finding.level == Finding::Level::kOk        ? "ok   "
                                  : finding.level == Finding::Level::kWarning ? "warn "
                                                                              : "ERROR";
    std::string line = std::string(mark) + "  " + finding.subject;
    line.append(kSubjectWidth - std::min(finding.subject.size(), kSubjectWidth) + 1, ' ');
    console.print(line + finding.text + "\n");
    if (!finding.advice.empty()) {
      console.print(std::string(mark.size() + 3 + kSubjectWidth, ' ') + "-> " + finding.advice +
                    "\n");
    }
  }
  const size_t n_errors = count(findings, Finding::Level::kError);
  const size_t n_warnings = count(findings, Finding::Level::kWarning);
  console.print(n_errors + n_warnings == 0
                    ? "all is well\n"
                    : plural(n_errors, "error") + ", " + plural(n_warnings, "warning") + "\n");
}

}  // namespace

int doctor(const DoctorOptions& options, const Settings& settings, Console& console) {
  std::vector<Finding> findings;
  const auto add = [&findings](std::vector<Finding> found) {
    std::move(found.begin(), found.end(), std::back_inserter(findings));
  };
  add(examine_processor(options.system_root));
  add(examine_memory(options.system_root));
  add(examine_gpus(options.system_root));
  add(examine_store(settings.models_dir));
  add(examine_server(settings));
  if (!options.offline) add(examine_hubs());
  if (options.json) {
    print_json(findings, console);
  } else {
    print_text(findings, console);
  }
  return count(findings, Finding::Level::kError) > 0 ? 1 : 0;
}

}  // namespace dsctl::commands
