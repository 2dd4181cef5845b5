#include "commands/pull_run.h"

#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "commands/error.h"
#include "commands/model_info.h"
#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/local_bytes.h"
#include "registry/sources/remote_path.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using registry::Digest;
using registry::DownloadEvent;
using registry::DownloadEventType;
using registry::DownloadTask;
using registry::LocalBytes;
using registry::LocalPlaces;
using registry::RemoteFile;

constexpr int kMaxRounds = 3;
constexpr auto kFreshenPause = std::chrono::minutes(10);
constexpr int64_t kLockTimeoutMs = 60'000;
// A shorter file under a wanted name is rather a person's than the beginning of a download.
constexpr int64_t kMinBeginningBytes = 1 << 20;

std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

/// Shares what the two kinds of pull have in common.
class Puller {
 public:
  Puller(const PullPlan& plan, registry::Registry& registry, const PullTransfer& transfer,
         const PullObserver& observer, std::stop_token stop)
      : plan_(plan),
        registry_(registry),
        transfer_(transfer),
        observer_(observer),
        stop_(std::move(stop)),
        places_(LocalPlaces::of(plan.resolved.ref,
                                plan.request.local_dir.empty() ? fs::path() : plan.root)) {}

  PullResult into_registry();
  PullResult into_directory();

 private:
  void status(std::string_view line) const {
    if (observer_.on_status) observer_.on_status(line);
  }
  void tell(size_t planned_idx, DownloadEventType type, int64_t done) const {
    if (!observer_.on_event) return;
    DownloadEvent event;
    event.type = type;
    event.file_idx = planned_idx;
    event.done_bytes = done;
    event.total_bytes = plan_.file(plan_.files[planned_idx]).size_bytes;
    observer_.on_event(event);
  }
  /// Tells how far the hashing of a file is, and ends it when asked to.
  registry::Progress hashing(size_t planned_idx) const {
    return [this, planned_idx](std::string_view, int64_t done, int64_t) {
      if (stop_.stop_requested()) throw Error("interrupted");
      tell(planned_idx, DownloadEventType::kVerifying, done);
    };
  }
  const RemoteFile& file_of(size_t planned_idx) const {
    return plan_.file(plan_.files[planned_idx]);
  }

  void keep_fresh();
  bool stage_local(size_t planned_idx);
  void publish(const registry::StagedBlob& blob);
  void fetch_into_registry();
  void fetch(const std::vector<size_t>& planned_idxs, std::vector<Digest>& digests);
  registry::CreateSpec make_spec() const;
  bool is_up_to_date() const;

  bool find_in_directory(size_t planned_idx);
  void take_beginning(size_t planned_idx);
  void write_beginning(const PlannedFile& planned) const;

  const PullPlan& plan_;
  registry::Registry& registry_;
  const PullTransfer& transfer_;
  const PullObserver& observer_;
  const std::stop_token stop_;
  const LocalPlaces places_;
  std::map<size_t, Digest> digests_;  // of planned files
  std::chrono::steady_clock::time_point freshened_ = std::chrono::steady_clock::now();
};

/// `prune` takes a blob without a manifest for forgotten after an hour; the first shards of a large
/// model wait longer than that for the last one.
void Puller::keep_fresh() {
  const auto now = std::chrono::steady_clock::now();
  if (!plan_.name || now - freshened_ < kFreshenPause) return;
  freshened_ = now;
  for (const PlannedFile& planned : plan_.files) {
    // Changes the time of the status only: the time of the content tells hard links of files that
    // were written to.
    std::error_code ignored;
    fs::permissions(planned.target, fs::perms::owner_read, fs::perm_options::add, ignored);
  }
}

/// Downloads the files of `planned_idxs`; two that are one and the same are fetched once.
void Puller::fetch(const std::vector<size_t>& planned_idxs, std::vector<Digest>& digests) {
  std::vector<DownloadTask> tasks;
  std::vector<size_t> owners;          // of each task: the planned file that it is told of
  std::map<fs::path, size_t> by_path;  // partial path -> task
  std::vector<size_t> task_of;
  for (const size_t idx : planned_idxs) {
    const PlannedFile& planned = plan_.files[idx];
    const auto [found, is_new] = by_path.emplace(planned.partial, tasks.size());
    task_of.push_back(found->second);
    if (!is_new) continue;
    DownloadTask task;
    task.file = file_of(idx);
    task.partial = planned.partial;
    task.target = planned.target;
    tasks.push_back(std::move(task));
    owners.push_back(idx);
  }
  if (tasks.empty()) return;
  registry::DownloadOptions options;
  options.jobs = transfer_.jobs;
  options.limit_bytes_per_second = transfer_.limit_bytes_per_second;
  options.http = transfer_.http;
  options.on_event = [&](const DownloadEvent& event) {
    keep_fresh();
    if (!observer_.on_event || event.file_idx >= owners.size()) return;
    DownloadEvent mapped = event;
    mapped.file_idx = owners[event.file_idx];
    observer_.on_event(mapped);
  };
  const std::vector<Digest> fetched = registry::download(tasks, options, stop_);
  for (const size_t task : task_of)
    digests.push_back(fetched[task]);
}

void Puller::publish(const registry::StagedBlob& blob) {
  const registry::StoreLock lock(registry_.root(), "pull", kLockTimeoutMs,
                                 [this](std::string_view line) { status(line); });
  registry_.blobs().publish(blob);
}

/// Makes a blob of bytes that are on this machine; false when there are none that are right.
bool Puller::stage_local(size_t planned_idx) {
  const RemoteFile& file = file_of(planned_idx);
  const std::vector<LocalBytes> candidates = registry::find_whole(file, places_);
  if (candidates.empty() && !file.write_to) return false;
  registry::Staging staging(registry_.blobs(), [this](std::string_view line) { status(line); });
  if (file.write_to) {
    const fs::path written = staging.dir() / "written";
    file.write_to(written);
    if (!registry::has_content(written, file, hashing(planned_idx))) {
      throw Error(file.path + ": git sent other bytes than it named");
    }
    const auto blob =
        staging.stage_file(written, registry::ImportMode::kLink, hashing(planned_idx));
    digests_[planned_idx] = blob.digest;
    publish({blob.digest, blob.size_bytes, blob.path, registry::ImportMethod::kCopy, ""});
    return true;
  }
  for (const LocalBytes& local : candidates) {
    const auto blob = staging.stage_file(
        local.path, local.may_share ? registry::ImportMode::kLink : registry::ImportMode::kCopy,
        hashing(planned_idx));
    if (!file.sha256 || blob.digest != *file.sha256) continue;
    digests_[planned_idx] = blob.digest;
    publish(blob);
    return true;
  }
  return false;
}

/// Puts what an interrupted program left of a file where the download goes on from.
void Puller::take_beginning(size_t planned_idx) {
  const PlannedFile& planned = plan_.files[planned_idx];
  const auto beginning = registry::find_beginning(file_of(planned_idx), places_);
  std::error_code error;
  if (fs::exists(planned.partial, error)) return;
  if (!beginning) return write_beginning(planned);
  fs::create_directories(planned.partial.parent_path(), error);
  if (beginning->may_share) {
    fs::rename(beginning->path, planned.partial, error);
    if (!error) return;
  }
  registry::place_content({beginning->path, false}, planned.partial);
}

/// The bytes that the fit was told from need not be fetched again. They are only a gift: another
/// process that began in the meantime, or a disk that is full, is met by the download.
void Puller::write_beginning(const PlannedFile& planned) const {
  if (planned.beginning.empty() || !plan_.file(planned).sha256) return;
  std::error_code error;
  fs::create_directories(planned.partial.parent_path(), error);
  try {
    const auto file = registry::open_file(planned.partial, O_WRONLY | O_CREAT | O_EXCL);
    const std::string_view bytes(reinterpret_cast<const char*>(planned.beginning.data()),
                                 planned.beginning.size());
    registry::write_all(file.get(), bytes, planned.partial);
  } catch (const registry::Error&) {
  }
}

void Puller::fetch_into_registry() {
  std::vector<size_t> missing;
  for (size_t i = 0; i < plan_.files.size(); ++i) {
    const RemoteFile& file = file_of(i);
    if (file.sha256 && registry_.blobs().has(*file.sha256)) {
      digests_[i] = *file.sha256;
      tell(i, DownloadEventType::kFinished, file.size_bytes);
    } else if (stage_local(i)) {
      tell(i, DownloadEventType::kFinished, file.size_bytes);
    } else {
      take_beginning(i);
      missing.push_back(i);
    }
  }
  std::error_code error;
  fs::create_directories(registry_.blobs().blobs_dir(), error);
  std::vector<Digest> fetched;
  fetch(missing, fetched);
  for (size_t i = 0; i < missing.size(); ++i) {
    const PlannedFile& planned = plan_.files[missing[i]];
    digests_[missing[i]] = fetched[i];
    if (!planned.target.empty() || !fs::exists(planned.partial, error)) continue;
    // Its digest was not known before: it becomes a blob only now.
    registry::StagedBlob blob;
    blob.digest = fetched[i];
    blob.size_bytes = static_cast<int64_t>(fs::file_size(planned.partial));
    blob.path = planned.partial;
    publish(blob);
  }
}

/// The model that the fetched blobs make. Opens the weights: what is no model is told before
/// anything is visible.
registry::CreateSpec Puller::make_spec() const {
  registry::CreateSpec spec;
  std::vector<fs::path> weights;
  const auto n_weights =
      std::count_if(plan_.files.begin(), plan_.files.end(), [](const PlannedFile& planned) {
        return planned.media_type == registry::media_type::kModel;
      });
  for (size_t i = 0; i < plan_.files.size(); ++i) {
    const PlannedFile& planned = plan_.files[i];
    registry::WeightSource weight;
    weight.source = digests_.at(i);
    weight.media_type = planned.media_type;
    if (planned.media_type == registry::media_type::kModel) {
      if (n_weights > 1) weight.name = base_name(file_of(i).path);
      weights.push_back(registry_.blobs().path_of(digests_.at(i)));
    }
    spec.weights.push_back(std::move(weight));
  }
  try {
    spec.config = to_config(read_model_info(gguf::GgufFile::open_shards(weights)));
  } catch (const gguf::Error& error) {
    throw Error(file_of(0).path +
                ": was fetched whole, but is no model that can be read: " + error.what());
  }
  return spec;
}

/// True when the registry has the model of the plan, from the same blobs.
bool Puller::is_up_to_date() const {
  const auto stored = registry_.find(*plan_.name);
  if (!stored) return false;
  if (plan_.resolved.manifest) return stored->digest == Digest::of(plan_.resolved.manifest_json);
  std::vector<std::pair<std::string_view, Digest>> wanted;
  for (size_t i = 0; i < plan_.files.size(); ++i)
    wanted.emplace_back(plan_.files[i].media_type, digests_.at(i));
  std::vector<std::pair<std::string_view, Digest>> there;
  for (const registry::Layer& layer : stored->manifest.layers) {
    if (layer.media_type == registry::media_type::kModel ||
        layer.media_type == registry::media_type::kProjector) {
      there.emplace_back(layer.media_type, layer.digest);
    }
  }
  return wanted == there;
}

PullResult Puller::into_registry() {
  PullResult result;
  for (int round = 1;; ++round) {
    fetch_into_registry();
    try {
      if (is_up_to_date()) {
        result.was_complete = true;
        break;
      }
    } catch (const registry::Error&) {
      // A broken model of this name is what a pull repairs.
    }
    const bool all_there =
        std::all_of(digests_.begin(), digests_.end(),
                    [this](const auto& digest) { return registry_.blobs().has(digest.second); });
    // Another process may have removed a blob that no manifest named yet.
    if (!all_there && round < kMaxRounds) continue;
    status("verifying sha256 digest");
    registry::Observer observer;
    observer.status = [this](std::string_view line) {
      if (line == "writing manifest") status(line);
    };
    if (plan_.resolved.manifest) {
      registry_.install({}, {{*plan_.name, plan_.resolved.manifest_json}}, observer);
    } else {
      registry_.create(*plan_.name, make_spec(), observer);
    }
    break;
  }
  result.model = registry_.find(*plan_.name);
  return result;
}

/// True when the file is at its place, or could be made from bytes of this machine.
bool Puller::find_in_directory(size_t planned_idx) {
  const PlannedFile& planned = plan_.files[planned_idx];
  const RemoteFile& file = file_of(planned_idx);
  if (planned.is_here) return true;
  // Creates the folders, and sees to it that no link leads out of the directory.
  registry::local_path_below(plan_.root, file.path);
  if (registry::has_content(planned.target, file, hashing(planned_idx))) return true;
  for (const LocalBytes& local : registry::find_whole(file, places_)) {
    if (!registry::has_content(local.path, file, hashing(planned_idx))) continue;
    registry::place_content(local, planned.target);
    return true;
  }
  registry::local_path_below(plan_.root, ".dsctl/" + planned.partial.filename().string());
  if (!file.write_to) return false;
  file.write_to(planned.partial);
  if (!registry::has_content(planned.partial, file, {})) {
    throw Error(file.path + ": git sent other bytes than it named");
  }
  fs::rename(planned.partial, planned.target);
  return true;
}

PullResult Puller::into_directory() {
  PullResult result;
  std::vector<size_t> missing;
  result.was_complete = true;
  for (size_t i = 0; i < plan_.files.size(); ++i) {
    const PlannedFile& planned = plan_.files[i];
    const RemoteFile& file = file_of(i);
    if (!planned.is_here) result.was_complete = false;
    if (find_in_directory(i)) {
      if (!planned.is_here) {
        registry::write_note(plan_.root, file, Digest(), plan_.resolved.revision);
      }
      tell(i, DownloadEventType::kFinished, file.size_bytes);
      continue;
    }
    std::error_code error;
    const auto size = fs::file_size(planned.target, error);
    if (!error && file.sha256 && static_cast<int64_t>(size) >= kMinBeginningBytes &&
        static_cast<int64_t>(size) < file.size_bytes && !fs::exists(planned.partial, error)) {
      fs::rename(planned.target, planned.partial);
    }
    take_beginning(i);
    missing.push_back(i);
  }
  std::vector<Digest> fetched;
  fetch(missing, fetched);
  for (size_t i = 0; i < missing.size(); ++i) {
    registry::write_note(plan_.root, file_of(missing[i]), fetched[i], plan_.resolved.revision);
  }
  std::error_code ignored;
  fs::remove(plan_.root / ".dsctl", ignored);  // only when it is empty
  return result;
}

}  // namespace

PullResult run_pull(const PullPlan& plan, registry::Registry& registry,
                    const PullTransfer& transfer, const PullObserver& observer,
                    std::stop_token stop) {
  Puller puller(plan, registry, transfer, observer, std::move(stop));
  return plan.name ? puller.into_registry() : puller.into_directory();
}

}  // namespace dsctl::commands
