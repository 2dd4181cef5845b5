// The engine's side of EngineProcess: reads requests, runs them, writes events.
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "commands/serve/engine_process.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf/gguf_file.h"

namespace dsctl::commands::serve {
namespace {

// Frames to the server, in order, written by a thread of its own: the engine's thread must not wait
// for a server that is busy.
class Outbox {
 public:
  explicit Outbox(int fd) : fd_(fd), thread_([this] { run(); }) {}
  ~Outbox() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  void send(const Message& message) {
    std::string frame = encode_message(message);
    {
      const std::lock_guard lock(mutex_);
      pending_ += frame;
    }
    wake_.notify_all();
  }

 private:
  void run() {
    for (;;) {
      std::string bytes;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return ending_ || !pending_.empty(); });
        if (pending_.empty()) return;
        bytes.swap(pending_);
      }
      if (!write_bytes(fd_, bytes)) return;
    }
  }

  const int fd_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string pending_;
  bool ending_ = false;
  std::thread thread_;
};

// The server's ids of requests beside the engine's.
class Requests {
 public:
  // A request may finish before submit() has returned its id.
  void begin(uint64_t id) {
    const std::lock_guard lock(mutex_);
    running_[id] = 0;
  }
  void submitted(uint64_t id, engine::RequestId engine_id) {
    const std::lock_guard lock(mutex_);
    if (const auto it = running_.find(id); it != running_.end()) it->second = engine_id;
  }
  void end(uint64_t id) {
    const std::lock_guard lock(mutex_);
    running_.erase(id);
  }
  std::optional<engine::RequestId> find(uint64_t id) {
    const std::lock_guard lock(mutex_);
    const auto it = running_.find(id);
    return it == running_.end() ? std::nullopt : std::optional(it->second);
  }

 private:
  std::mutex mutex_;
  std::map<uint64_t, engine::RequestId> running_;
};

void submit(engine::Engine& engine, Message message, Requests& requests, Outbox& outbox) {
  const uint64_t id = message.id;
  requests.begin(id);
  Message answer{.type = MessageType::kSubmitted, .id = id};
  answer.submitted = engine.submit(
      std::move(message.request), [id, &requests, &outbox](const engine::Event& event) {
        if (event.finished) requests.end(id);
        outbox.send({.type = MessageType::kEvent, .id = id, .event = event});
      });
  if (answer.submitted.error) {
    requests.end(id);
  } else {
    requests.submitted(id, answer.submitted.request_id);
  }
  outbox.send(answer);
}

std::unique_ptr<engine::Engine> load_first(int fd, const EngineLoader& load, Outbox& outbox) {
  const auto message = read_message(fd);
  if (!message) return nullptr;
  if (message->type != MessageType::kLoad) throw WireError("engine message: expected kLoad first");
  try {
    auto engine = load(message->load);
    outbox.send({.type = MessageType::kLoaded, .stats = engine->stats()});
    return engine;
  } catch (const std::exception& error) {
    outbox.send({.type = MessageType::kLoadFailed, .text = error.what()});
    return nullptr;
  }
}

}  // namespace

int serve_engine(int fd, const EngineLoader& load) {
  // Destroyed in reverse: the engine first, whose last events still go to the outbox.
  Outbox outbox(fd);
  Requests requests;
  std::unique_ptr<engine::Engine> engine;
  try {
    engine = load_first(fd, load, outbox);
    if (!engine) return 0;
    while (auto message = read_message(fd)) {
      switch (message->type) {
        case MessageType::kSubmit:
          submit(*engine, std::move(*message), requests, outbox);
          break;
        case MessageType::kCancel:
          if (const auto id = requests.find(message->id)) engine->cancel(*id);
          break;
        case MessageType::kStats:
          outbox.send(
              {.type = MessageType::kStatsReply, .id = message->id, .stats = engine->stats()});
          break;
        case MessageType::kLoad:
        case MessageType::kLoaded:
        case MessageType::kLoadFailed:
        case MessageType::kSubmitted:
        case MessageType::kEvent:
        case MessageType::kStatsReply:
          throw WireError("engine message: wrong direction");
      }
    }
  } catch (const WireError& error) {
    spdlog::error("engine process: {}", error.what());
    return 1;
  }
  return 0;
}

int engine_process_main(int fd) {
  // Die with the server, however it ends; and let only the server decide, not a Ctrl-C that the
  // terminal sends to the whole group, nor the SIGTERM of a service manager.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGTERM, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  // Declared first: the engine uses them until its end.
  std::optional<gguf::GgufFile> file;
  std::unique_ptr<engine::Tokenizer> tokenizer;
  // While weights are read nobody listens to the socket: a server that gives up must not wait.
  std::atomic<bool> loading{true};
  std::thread watcher([fd, &loading] {
    char byte = 0;
    while (loading) {
      const ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      if (n == 0) _exit(0);
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  const int code = serve_engine(fd, [&](const LoadMessage& message) {
    std::vector<std::filesystem::path> paths(message.weight_paths.begin(),
                                             message.weight_paths.end());
    file.emplace(paths.size() == 1 ? gguf::GgufFile::open(paths.front())
                                   : gguf::GgufFile::open_shards(paths));
    tokenizer = engine::Tokenizer::from_gguf(*file);
    engine::EngineOptions options = message.options;
    options.tokenizer = tokenizer.get();
    auto engine = engine::Engine::load(*file, options);
    loading = false;
    return engine;
  });
  loading = false;
  watcher.join();
  return code;
}

}  // namespace dsctl::commands::serve
