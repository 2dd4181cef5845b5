#include "commands/serve/model_host.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "commands/serve/api_error.h"

namespace dsctl::commands::serve {

using Clock = std::chrono::steady_clock;

struct ModelHost::Entry {
  ModelId id;
  std::shared_ptr<const LoadedModel> model;
  /// Shared with list(), which asks for its stats while it may be unloaded.
  std::shared_ptr<engine::Engine> engine;
  int max_model_len = 0;
  int n_leases = 0;
  KeepAlive keep_alive{};
  Clock::time_point idle_since;
  bool retiring = false;  // no new leases; unloaded once the last one is gone

  bool forever() const { return keep_alive == kForever; }
  /// When it is unloaded if nobody asks for it; only while idle.
  Clock::time_point expires() const {
    if (keep_alive >= Clock::time_point::max() - idle_since) return Clock::time_point::max();
    return idle_since + keep_alive;
  }
};

ModelHost::Lease::Lease(ModelHost& host, std::shared_ptr<Entry> entry,
                        std::chrono::nanoseconds load_time)
    : host_(host), entry_(std::move(entry)), load_time_(load_time) {}

ModelHost::Lease::~Lease() {
  host_.release(*entry_);
}

const std::shared_ptr<const LoadedModel>& ModelHost::Lease::model() const {
  return entry_->model;
}

engine::Engine& ModelHost::Lease::engine() const {
  return *entry_->engine;
}

int ModelHost::Lease::max_model_len() const {
  return entry_->max_model_len;
}

void ModelHost::Lease::report_broken() {
  const std::lock_guard lock(host_.mutex_);
  entry_->retiring = true;
  host_.wake_.notify_all();
}

ModelHost::ModelHost(ModelSource& source, const HostOptions& options)
    : source_(source), options_(options), thread_([this] { run(); }) {}

ModelHost::~ModelHost() {
  stop();
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void ModelHost::stop() {
  std::deque<Waiter> waiters;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    waiters.swap(waiters_);
  }
  wake_.notify_all();
  for (Waiter& waiter : waiters) {
    waiter.ready(nullptr, std::make_exception_ptr(ApiError(503, "the server is shutting down")));
  }
}

void ModelHost::acquire(const ModelId& id, const LoadOptions& options,
                        std::optional<KeepAlive> keep_alive, Ready ready) {
  Waiter waiter{.id = id,
                .options = options,
                .keep_alive = keep_alive,
                .ready = std::move(ready),
                .since = Clock::now()};
  std::shared_ptr<Lease> leased;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) throw ApiError(503, "the server is shutting down");
    const auto entry = find_entry(id);
    // Whoever waits for room came first: serving the busy model on and on would starve them.
    const bool nobody_before =
        std::all_of(waiters_.begin(), waiters_.end(),
                    [this](const Waiter& other) { return other.id == loading_; });
    if (entry && suits(*entry, options) && nobody_before) {
      leased = lease(entry, waiter);
    } else if (static_cast<int>(waiters_.size()) >= options_.max_waiting) {
      throw ApiError(503, "server busy, please try again.  maximum pending requests exceeded");
    } else {
      waiters_.push_back(std::move(waiter));
    }
  }
  if (leased) {
    waiter.ready(std::move(leased), nullptr);
  } else {
    wake_.notify_all();
  }
}

bool ModelHost::unload(const std::string& name) {
  bool found = false;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& entry : entries_) {
      if (entry->id.name != name) continue;
      entry->retiring = true;
      found = true;
    }
  }
  wake_.notify_all();
  return found;
}

std::vector<HostedModelInfo> ModelHost::list() const {
  std::vector<std::shared_ptr<engine::Engine>> engines;
  std::vector<HostedModelInfo> infos;
  {
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    for (const auto& entry : entries_) {
      engines.push_back(entry->engine);
      const auto expires =
          entry->n_leases > 0
              ? now + std::min<KeepAlive>(entry->keep_alive, std::chrono::hours(1 << 20))
              : entry->expires();
      const auto remaining = std::min<Clock::duration>(expires - now, std::chrono::hours(1 << 20));
      infos.push_back(
          {.id = entry->id,
           .model = entry->model,
           .expires_at = std::chrono::system_clock::now() +
                         std::chrono::duration_cast<std::chrono::system_clock::duration>(remaining),
           .forever = entry->forever(),
           .stopping = entry->retiring,
           .n_leases = entry->n_leases,
           .stats = {}});
    }
  }
  for (size_t i = 0; i < engines.size(); ++i) {
    if (engines[i]) infos[i].stats = engines[i]->stats();
  }
  return infos;
}

std::shared_ptr<ModelHost::Entry> ModelHost::find_entry(const ModelId& id) const {
  for (const auto& entry : entries_) {
    if (entry->id == id && !entry->retiring) return entry;
  }
  return nullptr;
}

// A context up to the reserved one needs no reload. A model's own limit is the most it can have, so
// asking for more than that must not load it again and again.
bool ModelHost::suits(const Entry& entry, const LoadOptions& options) const {
  if (!options.num_ctx || *options.num_ctx <= entry.max_model_len) return true;
  const int64_t trained = entry.model->context_length;
  return trained > 0 && entry.max_model_len >= trained;
}

std::shared_ptr<ModelHost::Lease> ModelHost::lease(const std::shared_ptr<Entry>& entry,
                                                   const Waiter& waiter) {
  ++entry->n_leases;
  if (waiter.keep_alive) entry->keep_alive = *waiter.keep_alive;
  return std::make_shared<Lease>(*this, entry, Clock::now() - waiter.since);
}

void ModelHost::release(Entry& entry) {
  {
    const std::lock_guard lock(mutex_);
    --entry.n_leases;
    entry.idle_since = Clock::now();
  }
  wake_.notify_all();
}

void ModelHost::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    while (work(lock)) {
    }
    if (ending_ && entries_.empty()) return;
    if (const auto expiry = next_expiry()) {
      wake_.wait_until(lock, *expiry);
    } else {
      wake_.wait(lock);
    }
  }
}

// One step of what can be done now; false when there is nothing.
bool ModelHost::work(std::unique_lock<std::mutex>& lock) {
  return retire_one(lock) || serve_waiters(lock) || start_load(lock);
}

bool ModelHost::retire_one(std::unique_lock<std::mutex>& lock) {
  const auto now = Clock::now();
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    Entry& entry = **it;
    if (entry.n_leases > 0) continue;
    if (!entry.retiring && !ending_ && entry.expires() > now) continue;
    std::shared_ptr<Entry> retired = *it;
    retired->retiring = true;
    std::shared_ptr<engine::Engine> engine = std::move(retired->engine);
    lock.unlock();
    spdlog::info("unloading {}", retired->id.name);
    // It stays in the list meanwhile, so that `ps` shows it and no room is promised too early.
    engine.reset();
    lock.lock();
    std::erase(entries_, retired);
    return true;
  }
  return false;
}

bool ModelHost::serve_waiters(std::unique_lock<std::mutex>& lock) {
  if (waiters_.empty()) return false;
  const auto entry = find_entry(waiters_.front().id);
  if (!entry || !suits(*entry, waiters_.front().options)) return false;
  Waiter waiter = std::move(waiters_.front());
  waiters_.pop_front();
  auto leased = lease(entry, waiter);
  lock.unlock();
  waiter.ready(std::move(leased), nullptr);
  waiter.ready = nullptr;
  lock.lock();
  return true;
}

bool ModelHost::start_load(std::unique_lock<std::mutex>& lock) {
  if (waiters_.empty()) return false;
  switch (make_room(waiters_.front().id)) {
    case Room::kNone:
      return false;
    case Room::kMade:
      return true;
    case Room::kFree:
      break;
  }
  Waiter first = std::move(waiters_.front());
  waiters_.pop_front();
  load(lock, std::move(first));
  return true;
}

// Whether `wanted` can be loaded now; else marks what has to go first.
ModelHost::Room ModelHost::make_room(const ModelId& wanted) {
  for (const auto& entry : entries_) {
    if (entry->id.name != wanted.name) continue;
    // Another context, or made anew under the same name: the old one has to go.
    return std::exchange(entry->retiring, true) ? Room::kNone : Room::kMade;
  }
  if (static_cast<int>(entries_.size()) < std::max(1, options_.max_loaded_models)) {
    return Room::kFree;
  }
  std::shared_ptr<Entry> victim;
  for (const auto& entry : entries_) {
    if (entry->retiring) return Room::kNone;
    if (entry->n_leases > 0) continue;
    if (!victim || entry->expires() < victim->expires()) victim = entry;
  }
  if (!victim) return Room::kNone;
  victim->retiring = true;
  return Room::kMade;
}

void ModelHost::load(std::unique_lock<std::mutex>& lock, Waiter first) {
  loading_ = first.id;
  lock.unlock();
  auto entry = std::make_shared<Entry>();
  std::exception_ptr failure;
  try {
    spdlog::info("loading {}", first.id.name);
    const auto begin = Clock::now();
    entry->id = first.id;
    entry->model = source_.load(first.id);
    entry->engine =
        source_.start_engine(*entry->model, engine_options(*entry->model, first.options));
    const engine::EngineStats stats = entry->engine->stats();
    entry->max_model_len = stats.max_model_len;
    entry->keep_alive = options_.keep_alive;
    spdlog::info(
        "loaded {} in {} ms: context {}, {}", first.id.name,
        std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count(),
        stats.max_model_len, stats.device);
  } catch (const std::exception& error) {
    spdlog::error("loading {}: {}", first.id.name, error.what());
    failure = std::current_exception();
  }
  lock.lock();
  loading_.reset();
  // Who asked for the same while it was loaded shares its fate.
  std::vector<Waiter> group;
  group.push_back(std::move(first));
  for (auto it = waiters_.begin(); it != waiters_.end();) {
    const bool same = it->id == group.front().id;
    if (!same || (!failure && !suits(*entry, it->options))) {
      ++it;
      continue;
    }
    group.push_back(std::move(*it));
    it = waiters_.erase(it);
  }
  std::vector<std::shared_ptr<Lease>> leases(group.size());
  if (!failure) {
    entry->idle_since = Clock::now();
    entries_.push_back(entry);
    for (size_t i = 0; i < group.size(); ++i)
      leases[i] = lease(entry, group[i]);
  }
  lock.unlock();
  for (size_t i = 0; i < group.size(); ++i)
    group[i].ready(std::move(leases[i]), failure);
  group.clear();
  lock.lock();
}

std::optional<Clock::time_point> ModelHost::next_expiry() const {
  std::optional<Clock::time_point> next;
  for (const auto& entry : entries_) {
    if (entry->n_leases > 0 || entry->retiring || entry->forever()) continue;
    if (!next || entry->expires() < *next) next = entry->expires();
  }
  if (next == Clock::time_point::max()) return std::nullopt;
  return next;
}

engine::EngineOptions ModelHost::engine_options(const LoadedModel& model,
                                                const LoadOptions& asked) const {
  engine::EngineOptions options = options_.engine;
  const LoadOptions own = load_options(model.parameters);
  const auto pick = [](std::optional<int> first, std::optional<int> second, int otherwise) {
    return first ? *first : second.value_or(otherwise);
  };
  options.max_model_len = pick(asked.num_ctx, own.num_ctx, options_.default_num_ctx);
  options.max_num_batched_tokens =
      pick(asked.num_batch, own.num_batch, options.max_num_batched_tokens);
  options.n_gpu_layers = pick(asked.num_gpu, own.num_gpu, options.n_gpu_layers);
  options.n_threads = pick(asked.num_thread, own.num_thread, options.n_threads);
  options.adapters.insert(options.adapters.begin(), model.adapters.begin(), model.adapters.end());
  return options;
}

}  // namespace dsctl::commands::serve
