// Fakes for the commands: a model of bytes, an engine whose every token the test releases, a source
// of such models, a console that records, and a plain HTTP client.
#pragma once

#include <chrono>
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

#include "commands/console.h"
#include "commands/loaded_model.h"
#include "commands/serve/model_host.h"
#include "engine/engine.h"

namespace dsctl::tests {

/// A model whose tokens are bytes (0..255), with BOS 256, EOS 257. Its template writes
/// "role: content\n" for each message; with thinking, tags are <think> and </think>.
std::shared_ptr<const commands::LoadedModel> byte_model(const std::string& name,
                                                        bool can_think = false);

/// Waits until `condition` is true; false after ten seconds.
bool eventually(const std::function<bool()>& condition);

/// What fake engines have in common; the test holds it.
struct EngineScript {
  std::mutex mutex;
  std::condition_variable changed;
  /// The answer to a prompt, byte for byte.
  std::function<std::string(const std::string& prompt)> answer = [](const std::string&) {
    return std::string("Hello, world!");
  };
  int64_t allowed_tokens = INT64_MAX;  // of each request; the rest waits
  int max_queue = 1 << 20;             // requests at a time
  bool stopped = false;                // submit says kStopped
  std::string fail_with;               // instead of a token: a failed request
  // What was seen.
  std::vector<engine::Request> requests;
  std::vector<engine::EngineOptions> loads;
  int n_running = 0;
  int max_running = 0;
  int n_cancelled = 0;
  int n_engines = 0;

  template <typename Function>
  void set(Function function) {
    {
      const std::lock_guard lock(mutex);
      function(*this);
    }
    changed.notify_all();
  }
  template <typename Function>
  auto get(Function function) {
    const std::lock_guard lock(mutex);
    return function(*this);
  }
};

std::unique_ptr<engine::Engine> make_fake_engine(std::shared_ptr<EngineScript> script,
                                                 const engine::EngineOptions& options);

/// Byte models by name, all on one script. "thinker:latest" can think, "ranker:latest" ranks.
class FakeSource final : public commands::serve::ModelSource {
 public:
  explicit FakeSource(std::shared_ptr<EngineScript> script) : script_(std::move(script)) {}
  std::optional<commands::serve::ModelId> find(const std::string& name) override;
  std::shared_ptr<const commands::LoadedModel> load(const commands::serve::ModelId& id) override;
  std::unique_ptr<engine::Engine> start_engine(const commands::LoadedModel& model,
                                               const engine::EngineOptions& options) override;

  std::mutex mutex;
  std::map<std::string, std::string> digests{{"bytes:latest", "d1"},
                                             {"thinker:latest", "d2"},
                                             {"other:latest", "d3"},
                                             {"ranker:latest", "d4"}};
  std::string load_error;  // instead of a model
  /// Jinja templates by model, instead of the byte models' own.
  std::map<std::string, std::string> templates;

 private:
  std::shared_ptr<EngineScript> script_;
};

/// Records what is printed and answers from a list.
class FakeConsole final : public commands::Console {
 public:
  void print(std::string_view text) override { out += text; }
  void note(std::string_view line) override { notes += std::string(line) + "\n"; }
  void progress(std::string_view, int64_t, int64_t) override {}
  void finish_progress() override {}
  std::optional<std::string> read_line(std::string_view prompt) override;
  bool stdin_is_terminal() const override { return stdin_terminal; }
  bool stdout_is_terminal() const override { return stdout_terminal; }
  int width() const override { return 80; }
  bool interrupted() const override { return interrupt; }
  void clear_interrupt() override { interrupt = false; }

  std::string out;
  std::string notes;
  std::deque<std::string> lines;  // "^C": Ctrl-C at the prompt
  std::vector<std::string> prompts;
  bool stdin_terminal = true;
  bool stdout_terminal = false;
  bool interrupt = false;
};

/// A TCP connection to 127.0.0.1 that sends and receives exactly what it is told.
class RawClient {
 public:
  explicit RawClient(int port, int receive_buffer_bytes = 0);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void send(std::string_view bytes);
  /// Reads until what came contains `text`; false at the end of the stream or after ten seconds.
  bool read_until(std::string_view text);
  /// Reads to the end of the stream; false when it is not ended after ten seconds.
  bool read_to_end();
  void close();
  std::string received;

 private:
  int fd_ = -1;
};

struct HttpReply {
  int status = 0;
  std::string head;
  std::string body;  // without chunk framing
  bool has_header(const std::string& line) const;
};

/// One request on a connection of its own.
HttpReply fetch(int port, const std::string& method, const std::string& path,
                const std::string& body = "", const std::string& headers = "");

HttpReply parse_reply(const std::string& bytes);

}  // namespace dsctl::tests
