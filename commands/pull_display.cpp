#include "commands/pull_display.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "commands/model_info.h"
#include "registry/url.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;
using registry::DownloadEvent;
using registry::DownloadEventType;
using Clock = std::chrono::steady_clock;

constexpr auto kRateWindow = std::chrono::seconds(10);
constexpr auto kDrawPause = std::chrono::milliseconds(100);
constexpr auto kJsonPause = std::chrono::seconds(1);
constexpr size_t kMaxBars = 12;
constexpr size_t kMaxListedFiles = 100;
constexpr int kBarColumns = 20;

std::string line_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

std::string source_text(const PullPlan& plan) {
  const registry::RemoteRef& ref = plan.resolved.ref;
  const bool is_url = ref.kind == registry::RemoteRef::Kind::kGit;
  std::string text = is_url ? ref.display() : ref.endpoint;
  if (!plan.resolved.revision.empty()) {
    text += " (revision " + plan.resolved.revision.substr(0, 12) + ")";
  }
  return text;
}

std::string here_text(const PullPlan& plan, const PlannedFile& planned) {
  const int64_t size = plan.file(planned).size_bytes;
  if (planned.here_bytes >= size) return "here";
  return planned.here_bytes > 0 ? format_size(planned.here_bytes) + " here" : "";
}

std::string percent_text(int64_t done, int64_t total) {
  const double part = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1.0;
  std::string text = std::to_string(static_cast<int>(std::floor(part * 100)));
  return std::string(3 - std::min<size_t>(text.size(), 3), ' ') + text + "%";
}

std::string bar_text(int64_t done, int64_t total) {
  const double part = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1.0;
  const int full = std::clamp(static_cast<int>(part * kBarColumns), 0, kBarColumns);
  std::string text = "▕";
  for (int i = 0; i < kBarColumns; ++i)
    text += i < full ? "█" : " ";
  return text + "▏";
}

Json variants_json(const registry::Resolved& resolved, const VariantFits& fits) {
  Json list = Json::array();
  for (size_t i = 0; i < resolved.variants.size(); ++i) {
    const registry::RemoteVariant& variant = resolved.variants[i];
    const std::string& fit = variant.problem.empty() ? fits.texts[i] : variant.problem;
    Json item;
    item["label"] = variant.label;
    item["size"] = variant.size_bytes;
    item["files"] = variant.file_idxs.size();
    item["fit"] = fit.empty() ? Json() : Json(fit);
    list.push_back(std::move(item));
  }
  return list;
}

}  // namespace

std::string plan_text(const PullPlan& plan) {
  std::vector<std::vector<std::string>> rows;
  for (const PlannedFile& planned : plan.files) {
    if (rows.size() == kMaxListedFiles) {
      rows.push_back({"... and " + std::to_string(plan.files.size() - kMaxListedFiles) + " more"});
      break;
    }
    const registry::RemoteFile& file = plan.file(planned);
    rows.push_back(
        {file.path, format_size(std::max<int64_t>(file.size_bytes, 0)), here_text(plan, planned)});
  }
  const std::string what = plan.name ? plan.name->short_form()
                                     : plan.resolved.ref.display() + " to " + plan.root.string();
  std::string text = what + " from " + source_text(plan) + "\n" + format_table(rows);
  text += format_size(plan.total_bytes) + " in " + std::to_string(plan.files.size()) +
          (plan.files.size() == 1 ? " file, " : " files, ") + format_size(plan.missing_bytes) +
          " to fetch; " + format_size(plan.free_bytes) + " free at " + plan.root.string() + "\n";
  if (!plan.fit.empty()) text += "the model " + plan.fit + "\n";
  return text;
}

std::string plan_json(const PullPlan& plan) {
  Json json;
  json["event"] = "plan";
  json["name"] = plan.name ? Json(plan.name->short_form()) : Json();
  json["source"] = plan.resolved.ref.kind == registry::RemoteRef::Kind::kGit
                       ? plan.resolved.ref.display()
                       : plan.resolved.ref.endpoint;
  json["revision"] = plan.resolved.revision;
  json["quant"] = plan.label;
  json["files"] = Json::array();
  for (const PlannedFile& planned : plan.files) {
    const registry::RemoteFile& file = plan.file(planned);
    Json item;
    item["path"] = file.path;
    item["size"] = file.size_bytes;
    item["digest"] = file.sha256 ? Json(file.sha256->to_string()) : Json();
    item["here"] = planned.here_bytes;
    json["files"].push_back(std::move(item));
  }
  json["total"] = plan.total_bytes;
  json["missing"] = plan.missing_bytes;
  json["free"] = plan.free_bytes;
  json["fit"] = plan.fit.empty() ? Json() : Json(plan.fit);
  return line_of(json);
}

std::string choice_text(const registry::Resolved& resolved, const VariantFits& fits) {
  std::vector<std::vector<std::string>> rows = {{"QUANT", "SIZE", "FILES", "FIT"}};
  for (size_t i = 0; i < resolved.variants.size(); ++i) {
    const registry::RemoteVariant& variant = resolved.variants[i];
    const std::string& fit = variant.problem.empty() ? fits.texts[i] : variant.problem;
    rows.push_back({variant.label, format_size(variant.size_bytes),
                    std::to_string(variant.file_idxs.size()), fit.empty() ? "-" : fit});
  }
  return format_table(rows);
}

std::string choice_json(const registry::Resolved& resolved, const VariantFits& fits) {
  Json json;
  json["event"] = "choice";
  json["repository"] = resolved.ref.display();
  json["variants"] = variants_json(resolved, fits);
  if (!fits.problem.empty()) json["problem"] = fits.problem;
  return line_of(json);
}

void RateMeter::add(int64_t total_bytes, Clock::time_point now) {
  // A sample a tenth of a second is enough, however many events there are.
  if (!samples_.empty() && now - samples_.back().first < kDrawPause) {
    samples_.back().second = std::max(samples_.back().second, total_bytes);
    return;
  }
  samples_.emplace_back(now, total_bytes);
  while (samples_.size() > 2 && now - samples_.front().first > kRateWindow)
    samples_.pop_front();
}

double RateMeter::bytes_per_second() const {
  if (samples_.size() < 2) return 0;
  const double seconds =
      std::chrono::duration<double>(samples_.back().first - samples_.front().first).count();
  const auto bytes = static_cast<double>(samples_.back().second - samples_.front().second);
  return seconds > 0 ? std::max(0.0, bytes / seconds) : 0;
}

std::string duration_text(int64_t seconds) {
  if (seconds < 60) return std::to_string(seconds) + "s";
  if (seconds < 3600) {
    return std::to_string(seconds / 60) + "m" + std::to_string(seconds % 60) + "s";
  }
  return std::to_string(seconds / 3600) + "h" + std::to_string(seconds / 60 % 60) + "m";
}

PullDisplay::PullDisplay(Console& console, const PullPlan& plan, PullOutput output)
    : console_(console), plan_(plan), output_(output), bars_(plan.files.size()) {
  for (size_t i = 0; i < bars_.size(); ++i)
    bars_[i].done = std::min(plan.files[i].here_bytes, plan.file(plan.files[i]).size_bytes);
}

void PullDisplay::on_event(const DownloadEvent& event) {
  const std::lock_guard lock(mutex_);
  if (event.file_idx >= bars_.size()) return;
  const auto now = Clock::now();
  Bar& bar = bars_[event.file_idx];
  bar.state = event.type;
  if (event.type == DownloadEventType::kProgress || event.type == DownloadEventType::kFinished) {
    bar.done = event.done_bytes;
    rate_.add(event.fetched_bytes, now);
  }
  if (output_ == PullOutput::kQuiet) return;
  if (output_ == PullOutput::kJson) {
    const bool is_progress =
        event.type == DownloadEventType::kProgress || event.type == DownloadEventType::kVerifying;
    if (is_progress && now - bar.told < kJsonPause) return;
    bar.told = now;
    tell_json(event);
    return;
  }
  if (!event.message.empty()) console_.note(event.message);
  if (now - drawn_ >= kDrawPause || event.type == DownloadEventType::kFinished) draw(now);
}

void PullDisplay::tell_json(const DownloadEvent& event) {
  Json json;
  switch (event.type) {
    case DownloadEventType::kStarted:
      json["event"] = "started";
      break;
    case DownloadEventType::kProgress:
      json["event"] = "progress";
      break;
    case DownloadEventType::kRetry:
      json["event"] = "retry";
      break;
    case DownloadEventType::kWaiting:
      json["event"] = "waiting";
      break;
    case DownloadEventType::kVerifying:
      json["event"] = "verifying";
      break;
    case DownloadEventType::kFinished:
      json["event"] = "finished";
      break;
  }
  const registry::RemoteFile& file = plan_.file(plan_.files[event.file_idx]);
  json["file"] = file.path;
  json["completed"] = event.done_bytes;
  json["total"] = file.size_bytes;
  if (!event.message.empty()) json["message"] = event.message;
  console_.print(line_of(json));
}

std::string PullDisplay::bar_line(size_t file_idx) const {
  const registry::RemoteFile& file = plan_.file(plan_.files[file_idx]);
  const Bar& bar = bars_[file_idx];
  const std::string tail = " " + percent_text(bar.done, file.size_bytes) + " " +
                           bar_text(bar.done, file.size_bytes) + " " + format_size(bar.done) + "/" +
                           format_size(std::max<int64_t>(file.size_bytes, 0)) +
                           (bar.state == DownloadEventType::kVerifying ? " verifying" : "");
  // The end of a name tells shards apart, so the beginning goes when it is too long.
  std::string name = base_name(file.path);
  const size_t columns = static_cast<size_t>(std::max(console_.width() - 62, 16));
  if (name.size() > columns) {
    size_t cut = name.size() - columns + 2;
    while (cut < name.size() && (static_cast<unsigned char>(name[cut]) & 0xc0) == 0x80)
      ++cut;  // not within a character
    name = ".." + name.substr(cut);
  }
  return name + tail;
}

std::string PullDisplay::total_line() const {
  int64_t done = 0;
  for (const Bar& bar : bars_)
    done += bar.done;
  std::string line = percent_text(done, plan_.total_bytes) + " " + format_size(done) + " of " +
                     format_size(plan_.total_bytes);
  const double rate = rate_.bytes_per_second();
  if (rate < 1) return line;
  const auto left = static_cast<int64_t>(
      static_cast<double>(std::max<int64_t>(plan_.total_bytes - done, 0)) / rate);
  return line + ", " + format_size(static_cast<int64_t>(rate)) + "/s, " + duration_text(left) +
         " left";
}

void PullDisplay::draw(Clock::time_point now) {
  drawn_ = now;
  std::vector<std::string> lines;
  size_t n_hidden = 0;
  for (size_t i = 0; i < bars_.size(); ++i) {
    const bool is_active = bars_[i].state != DownloadEventType::kFinished && bars_[i].done > 0;
    if (bars_.size() > kMaxBars && !is_active) continue;
    if (lines.size() == kMaxBars) {
      ++n_hidden;
      continue;
    }
    lines.push_back(bar_line(i));
  }
  if (n_hidden > 0) lines.push_back("and " + std::to_string(n_hidden) + " more");
  const std::string total = total_line();
  lines.push_back(total);
  console_.progress_lines(lines, total);
}

void PullDisplay::finish() {
  const std::lock_guard lock(mutex_);
  if (output_ == PullOutput::kText) console_.finish_progress();
}

}  // namespace dsctl::commands
