// EngineProcess: a model's engine in a process of its own, used like any Engine. If it crashes, its
// requests end with an error and nobody else's do; the host starts another one for the next
// request.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "commands/serve/engine_wire.h"
#include "engine/engine.h"

namespace dsctl::commands::serve {

/// The other end: a socket, and a process unless a test has a thread there.
struct EngineChild {
  int fd = -1;
  int pid = -1;
};

/// Starts `program` again as `<program> engine-process --fd 3` with a socket to it. Throws Error.
EngineChild spawn_engine_child(const std::string& program);

class EngineProcess final : public engine::Engine {
 public:
  /// Takes over `child` and has it load the weights; returns when they are loaded. Throws Error
  /// with the engine's own message, or when it died.
  EngineProcess(EngineChild child, const std::vector<std::string>& weight_paths,
                const engine::EngineOptions& options);
  /// Ends the process; what is still running ends with kCancelled.
  ~EngineProcess() override;

  /// Waits for the process to take or refuse the request: some microseconds, unless it hangs.
  engine::SubmitResult submit(engine::Request request, engine::EventSink sink) override;
  void cancel(engine::RequestId id) override;
  /// Asks the process; the last known figures when it doesn't answer within a second.
  engine::EngineStats stats() const override;

  int pid() const { return child_.pid; }

 private:
  void read_loop();
  void write_loop();
  void send(const Message& message) const;
  void handle(Message message);
  void deliver(uint64_t id, engine::Event event);
  void die(const std::string& reason, engine::FinishReason finish);
  std::string death_message();

  struct PendingSubmit {
    bool answered = false;
    engine::SubmitResult result;
  };

  EngineChild child_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable std::deque<std::string> out_;
  mutable uint64_t next_stats_id_ = 1;
  uint64_t answered_stats_id_ = 0;
  engine::EngineStats stats_;
  uint64_t next_id_ = 1;
  /// Shared with the read loop, which calls a sink while cancel() or die() may drop it.
  std::map<uint64_t, std::shared_ptr<engine::EventSink>> sinks_;
  std::map<uint64_t, PendingSubmit> pending_;
  bool loaded_ = false;
  bool dead_ = false;
  bool ending_ = false;
  std::string death_;
  std::thread reader_;
  std::thread writer_;
};

/// What the engine process needs: how to load an engine. Tests pass a fake.
using EngineLoader = std::function<std::unique_ptr<engine::Engine>(const LoadMessage&)>;

/// The engine's side: answers messages on `fd` until the other end closes it. Returns the exit
/// code.
int serve_engine(int fd, const EngineLoader& load);

/// The hidden command `engine-process`: serve_engine with the real engine, in a process that dies
/// with its parent.
int engine_process_main(int fd);

}  // namespace dsctl::commands::serve
