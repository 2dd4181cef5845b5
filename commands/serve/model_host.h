// ModelHost: which models are loaded. Requests borrow a model by a lease; the host loads what is
// missing, one model at a time and whoever waits for it, makes room by unloading idle models, and
// unloads what nobody asked for in a while.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "commands/duration.h"
#include "commands/loaded_model.h"
#include "engine/engine.h"

namespace dsctl::commands::serve {

/// A model that exists, without anything of it in memory.
struct ModelId {
  std::string name;    // as the registry stores it: "smollm2:latest"
  std::string digest;  // of the manifest: a model that was made anew has another one
  bool operator==(const ModelId&) const = default;
};

/// Where models come from: the registry and engine processes, or a test's fakes. Thread-safe.
class ModelSource {
 public:
  virtual ~ModelSource() = default;
  /// The model that a client calls `name`, or nothing. Throws ApiError for a name that can't be
  /// one.
  virtual std::optional<ModelId> find(const std::string& name) = 0;
  /// Reads tokenizer and template. Throws the reason why it can't.
  virtual std::shared_ptr<const LoadedModel> load(const ModelId& id) = 0;
  /// Loads the weights. Throws the reason why it can't.
  virtual std::unique_ptr<engine::Engine> start_engine(const LoadedModel& model,
                                                       const engine::EngineOptions& options) = 0;
};

struct HostOptions {
  int max_loaded_models = 1;
  int max_waiting = 512;  // requests that wait for a model
  KeepAlive keep_alive = std::chrono::minutes(5);
  int default_num_ctx = 4096;
  engine::EngineOptions engine;
};

/// One line of `ps`.
struct HostedModelInfo {
  ModelId id;
  std::shared_ptr<const LoadedModel> model;
  std::chrono::system_clock::time_point expires_at;
  bool forever = false;
  bool stopping = false;
  int n_leases = 0;
  engine::EngineStats stats;
};

class ModelHost {
 private:
  struct Entry;

 public:
  /// A loaded model in use: it is not unloaded before its last lease is gone.
  class Lease {
   public:
    Lease(ModelHost& host, std::shared_ptr<Entry> entry, std::chrono::nanoseconds load_time);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    const std::shared_ptr<const LoadedModel>& model() const;
    engine::Engine& engine() const;
    int max_model_len() const;
    std::chrono::nanoseconds load_time() const { return load_time_; }  // waited for this model
    /// The engine is dead: the next request shall start another one.
    void report_broken();

   private:
    ModelHost& host_;
    std::shared_ptr<Entry> entry_;
    std::chrono::nanoseconds load_time_;
  };
  /// Called once, with a lease or the reason why there is none; on the caller's thread when the
  /// model is loaded, else on the host's. Must not block.
  using Ready = std::function<void(std::shared_ptr<Lease>, std::exception_ptr)>;

  /// `source` must outlive the host.
  ModelHost(ModelSource& source, const HostOptions& options);
  /// Fails who waits and unloads everything. All leases must be gone or going.
  ~ModelHost();

  /// Asks for a model. `options.num_ctx` beyond what it was loaded with loads it anew once it is
  /// idle; the other options count only when it is loaded. Throws ApiError 503 when too many wait.
  void acquire(const ModelId& id, const LoadOptions& options, std::optional<KeepAlive> keep_alive,
               Ready ready);

  /// Unloads the model when its last request has ended; false when it isn't loaded.
  bool unload(const std::string& name);

  std::vector<HostedModelInfo> list() const;

  /// No more models: who waits is told, what is asked from now on is refused. Leases go on.
  void stop();

 private:
  struct Waiter {
    ModelId id;
    LoadOptions options;
    std::optional<KeepAlive> keep_alive;
    Ready ready;
    std::chrono::steady_clock::time_point since;
  };

  void run();
  bool work(std::unique_lock<std::mutex>& lock);
  bool retire_one(std::unique_lock<std::mutex>& lock);
  bool serve_waiters(std::unique_lock<std::mutex>& lock);
  bool start_load(std::unique_lock<std::mutex>& lock);
  void load(std::unique_lock<std::mutex>& lock, Waiter first);
  enum class Room { kFree, kMade, kNone };
  Room make_room(const ModelId& wanted);
  std::shared_ptr<Entry> find_entry(const ModelId& id) const;
  bool suits(const Entry& entry, const LoadOptions& options) const;
  std::shared_ptr<Lease> lease(const std::shared_ptr<Entry>& entry, const Waiter& waiter);
  void release(Entry& entry);
  std::optional<std::chrono::steady_clock::time_point> next_expiry() const;
  engine::EngineOptions engine_options(const LoadedModel& model, const LoadOptions& options) const;

  ModelSource& source_;
  const HostOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::shared_ptr<Entry>> entries_;
  std::deque<Waiter> waiters_;
  std::optional<ModelId> loading_;
  bool stopping_ = false;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace dsctl::commands::serve
