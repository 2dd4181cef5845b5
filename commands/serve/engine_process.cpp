#include "commands/serve/engine_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "commands/error.h"

namespace dsctl::commands::serve {
namespace {

using engine::FinishReason;
using engine::SubmitError;

constexpr auto kStatsTimeout = std::chrono::seconds(1);
constexpr auto kSubmitTimeout = std::chrono::seconds(30);
constexpr auto kExitTimeout = std::chrono::seconds(5);
constexpr auto kExitPoll = std::chrono::milliseconds(5);
constexpr int kChildFd = 3;

std::string describe_exit(int status) {
  if (WIFSIGNALED(status)) {
    const int number = WTERMSIG(status);
    std::string text =
        "killed by signal " + std::to_string(number) + " (" + strsignal(number) + ")";
    if (number == SIGKILL) text += "; perhaps the machine ran out of memory";
    return text;
  }
  return "exited with code " + std::to_string(WEXITSTATUS(status));
}

// In the child between fork and exec: only async-signal-safe calls.
[[noreturn]] void exec_child(const char* program, int fd, char* const* arguments) {
  // The engine's end goes to a fixed number; every other descriptor of the server (client
  // connections above all) is closed, or clients would not see their connections end.
  if (fd == kChildFd) {
    fcntl(fd, F_SETFD, 0);
  } else {
    dup2(fd, kChildFd);
  }
  syscall(SYS_close_range, kChildFd + 1, ~0u, 0);
  const int null = open("/dev/null", O_RDONLY);
  if (null >= 0) dup2(null, 0);
  if (null > kChildFd) close(null);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execv(program, arguments);
  _exit(127);
}

}  // namespace

EngineChild spawn_engine_child(const std::string& program) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    throw Error(std::string("engine process: socketpair: ") + std::strerror(errno));
  }
  std::string words[] = {program, "engine-process", "--fd", std::to_string(kChildFd)};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), nullptr};
  const pid_t pid = fork();
  if (pid == 0) exec_child(arguments[0], fds[1], arguments);
  const int fork_errno = errno;
  close(fds[1]);
  if (pid < 0) {
    close(fds[0]);
    throw Error(std::string("engine process: fork: ") + std::strerror(fork_errno));
  }
  return {.fd = fds[0], .pid = pid};
}

EngineProcess::EngineProcess(EngineChild child, const std::vector<std::string>& weight_paths,
                             const engine::EngineOptions& options)
    : child_(child) {
  reader_ = std::thread([this] { read_loop(); });
  writer_ = std::thread([this] { write_loop(); });
  send({.type = MessageType::kLoad, .load = {.weight_paths = weight_paths, .options = options}});
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return loaded_ || dead_; });
  if (loaded_) return;
  const std::string reason = death_;
  lock.unlock();
  // The destructor does not run for an object whose constructor throws.
  shutdown(child_.fd, SHUT_RDWR);
  reader_.join();
  writer_.join();
  close(child_.fd);
  throw Error(reason);
}

EngineProcess::~EngineProcess() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  shutdown(child_.fd, SHUT_RDWR);
  reader_.join();
  writer_.join();
  close(child_.fd);
}

engine::SubmitResult EngineProcess::submit(engine::Request request, engine::EventSink sink) {
  std::unique_lock lock(mutex_);
  if (dead_) return {.request_id = 0, .error = SubmitError::kStopped, .message = death_};
  const uint64_t id = next_id_++;
  sinks_[id] = std::make_shared<engine::EventSink>(std::move(sink));
  pending_[id] = {};
  lock.unlock();
  send({.type = MessageType::kSubmit, .id = id, .request = std::move(request)});
  lock.lock();
  const bool in_time = changed_.wait_for(lock, kSubmitTimeout,
                                         [this, id] { return dead_ || pending_.at(id).answered; });
  engine::SubmitResult result = pending_.at(id).result;
  const bool answered = pending_.at(id).answered;
  pending_.erase(id);
  if (!answered) {
    sinks_.erase(id);
    return {.request_id = 0,
            .error = SubmitError::kStopped,
            .message = in_time ? death_ : "the model's engine does not answer"};
  }
  if (result.error) sinks_.erase(id);
  result.request_id = id;
  return result;
}

void EngineProcess::cancel(engine::RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    if (!sinks_.contains(id)) return;
  }
  send({.type = MessageType::kCancel, .id = id});
}

engine::EngineStats EngineProcess::stats() const {
  std::unique_lock lock(mutex_);
  if (dead_) return stats_;
  const uint64_t id = next_stats_id_++;
  lock.unlock();
  send({.type = MessageType::kStats, .id = id});
  lock.lock();
  changed_.wait_for(lock, kStatsTimeout, [this, id] { return dead_ || answered_stats_id_ >= id; });
  return stats_;
}

void EngineProcess::send(const Message& message) const {
  std::string frame = encode_message(message);
  {
    const std::lock_guard lock(mutex_);
    if (dead_) return;
    out_.push_back(std::move(frame));
  }
  changed_.notify_all();
}

void EngineProcess::write_loop() {
  for (;;) {
    std::string frame;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return dead_ || ending_ || !out_.empty(); });
      if (dead_ || ending_) return;
      frame = std::move(out_.front());
      out_.pop_front();
    }
    // A failed write means that the process is gone: the reader sees the same and says so.
    if (!write_bytes(child_.fd, frame)) return;
  }
}

void EngineProcess::read_loop() {
  std::string reason;
  try {
    while (auto message = read_message(child_.fd))
      handle(std::move(*message));
  } catch (const WireError& error) {
    reason = error.what();
  }
  bool ending = false;
  {
    const std::lock_guard lock(mutex_);
    ending = ending_;
    if (!death_.empty()) reason = death_;  // the load failed and said why
  }
  const std::string how = death_message();
  if (ending) {
    die("the model was unloaded", FinishReason::kCancelled);
    return;
  }
  if (reason.empty()) reason = "the model's engine process died: " + how;
  if (loaded_) spdlog::error("engine process {}: {}", child_.pid, reason);
  die(reason, FinishReason::kError);
}

// How the process ended; it is asked to and then made to.
std::string EngineProcess::death_message() {
  if (child_.pid < 0) return "its connection was closed";
  shutdown(child_.fd, SHUT_RDWR);
  const auto deadline = std::chrono::steady_clock::now() + kExitTimeout;
  int status = 0;
  pid_t done = 0;
  while ((done = waitpid(child_.pid, &status, WNOHANG)) == 0 &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kExitPoll);
  }
  if (done == 0) {
    kill(child_.pid, SIGKILL);
    done = waitpid(child_.pid, &status, 0);
  }
  return done > 0 ? describe_exit(status) : "it is gone";
}

void EngineProcess::handle(Message message) {
  switch (message.type) {
    case MessageType::kLoaded: {
      const std::lock_guard lock(mutex_);
      stats_ = message.stats;
      loaded_ = true;
      break;
    }
    case MessageType::kLoadFailed: {
      const std::lock_guard lock(mutex_);
      death_ = message.text;
      break;
    }
    case MessageType::kSubmitted: {
      const std::lock_guard lock(mutex_);
      if (const auto it = pending_.find(message.id); it != pending_.end()) {
        it->second = {.answered = true, .result = std::move(message.submitted)};
      }
      break;
    }
    case MessageType::kStatsReply: {
      const std::lock_guard lock(mutex_);
      stats_ = message.stats;
      answered_stats_id_ = std::max(answered_stats_id_, message.id);
      break;
    }
    case MessageType::kEvent:
      deliver(message.id, std::move(message.event));
      return;
    case MessageType::kLoad:
    case MessageType::kSubmit:
    case MessageType::kCancel:
    case MessageType::kStats:
      throw WireError("engine message: wrong direction");
  }
  changed_.notify_all();
}

void EngineProcess::deliver(uint64_t id, engine::Event event) {
  std::shared_ptr<engine::EventSink> sink;
  {
    const std::lock_guard lock(mutex_);
    const auto it = sinks_.find(id);
    if (it == sinks_.end()) return;
    sink = it->second;
    if (event.finished) sinks_.erase(it);
  }
  event.request_id = id;
  (*sink)(event);
}

void EngineProcess::die(const std::string& reason, FinishReason finish) {
  std::map<uint64_t, std::shared_ptr<engine::EventSink>> orphans;
  {
    const std::lock_guard lock(mutex_);
    dead_ = true;
    death_ = reason;
    for (auto it = sinks_.begin(); it != sinks_.end();) {
      // A submit that nobody answered reports its failure itself.
      const auto pending = pending_.find(it->first);
      if (pending != pending_.end() && !pending->second.answered) {
        ++it;
        continue;
      }
      orphans.insert(sinks_.extract(it++));
    }
  }
  changed_.notify_all();
  for (const auto& [id, sink] : orphans) {
    engine::Event event;
    event.request_id = id;
    event.finished = true;
    event.reason = finish;
    if (finish == FinishReason::kError) event.error = reason;
    (*sink)(event);
  }
}

}  // namespace dsctl::commands::serve
