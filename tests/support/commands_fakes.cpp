#include "tests/support/commands_fakes.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <list>
#include <stdexcept>

#include "commands/error.h"

namespace dsctl::tests {
namespace {

using engine::AddSpecial;
using engine::SpecialTokens;

constexpr auto kPatience = std::chrono::seconds(10);
constexpr int32_t kBos = 256;
constexpr int32_t kEos = 257;

class ByteTokenizer final : public engine::Tokenizer {
 public:
  ByteTokenizer() {
    for (int i = 0; i < 256; ++i)
      texts_[static_cast<size_t>(i)] = std::string(1, static_cast<char>(i));
    texts_[kBos] = "<s>";
    texts_[kEos] = "</s>";
  }
  std::vector<int32_t> encode(std::string_view text, AddSpecial add_special,
                              SpecialTokens) const override {
    std::vector<int32_t> tokens;
    if (add_special == AddSpecial::kYes) tokens.push_back(kBos);
    for (const char c : text)
      tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  std::string_view piece(int32_t token, SpecialTokens special) const override {
    if (token >= kBos && special == SpecialTokens::kAsText) return {};
    return texts_.at(static_cast<size_t>(token));
  }
  std::string decode(std::span<const int32_t> tokens, SpecialTokens special) const override {
    std::string text;
    for (const int32_t token : tokens)
      text += piece(token, special);
    return text;
  }
  int vocab_size() const override { return 258; }
  std::string_view text(int32_t token) const override {
    return texts_.at(static_cast<size_t>(token));
  }
  engine::TokenType type(int32_t token) const override {
    return token >= kBos ? engine::TokenType::kControl : engine::TokenType::kByte;
  }
  int32_t find(std::string_view text) const override {
    const auto it = std::find(texts_.begin(), texts_.end(), text);
    return it == texts_.end() ? -1 : static_cast<int32_t>(it - texts_.begin());
  }
  int32_t bos() const override { return kBos; }
  int32_t eos() const override { return kEos; }
  bool adds_bos() const override { return true; }
  bool adds_eos() const override { return false; }
  const std::vector<int32_t>& eog_tokens() const override { return eog_; }
  bool is_eog(int32_t token) const override { return token == kEos; }
  std::string description() const override { return "bytes"; }

 private:
  std::array<std::string, 258> texts_;
  std::vector<int32_t> eog_{kEos};
};

class LineTemplate final : public templates::ChatTemplate {
 public:
  explicit LineTemplate(bool can_think) {
    capabilities_.thinking = can_think;
    capabilities_.think_open = "<think>";
    capabilities_.think_close = "</think>";
  }
  std::string render(const templates::RenderInput& input) const override {
    std::string text;
    for (const templates::Message& message : input.messages)
      text += message.role + ": " + message.content + "\n";
    return text;
  }
  templates::TemplateLanguage language() const override {
    return templates::TemplateLanguage::kJinja;
  }
  const std::string& source() const override { return source_; }
  const templates::TemplateCapabilities& capabilities() const override { return capabilities_; }

 private:
  std::string source_ = "lines";
  templates::TemplateCapabilities capabilities_;
};

// Something that tells prompts apart: 3, 4, the number of tokens and their sum; a score for kRank.
std::vector<float> fake_pooled(const engine::Request& request) {
  float sum = 0.0f;
  for (const int32_t token : request.prompt_tokens)
    sum += static_cast<float>(token);
  if (request.pooling == engine::Pooling::kRank) return {1.0f / (1.0f + sum)};
  return {3.0f, 4.0f, static_cast<float>(request.prompt_tokens.size()), sum};
}

class FakeEngine final : public engine::Engine {
 public:
  FakeEngine(std::shared_ptr<EngineScript> script, const engine::EngineOptions& options)
      : script_(std::move(script)), options_(options), thread_([this] { run(); }) {
    script_->set([](EngineScript& s) { ++s.n_engines; });
  }
  ~FakeEngine() override {
    script_->set([this](EngineScript&) { ending_ = true; });
    thread_.join();
    for (Job& job : jobs_)
      finish(job, engine::FinishReason::kCancelled);
    script_->set([](EngineScript& s) { --s.n_engines; });
  }

  engine::SubmitResult submit(engine::Request request, engine::EventSink sink) override {
    engine::SubmitResult result;
    const std::lock_guard lock(script_->mutex);
    if (script_->stopped) {
      result.error = engine::SubmitError::kStopped;
      result.message = "the engine is stopped";
    } else if (n_jobs_ >= script_->max_queue) {
      result.error = engine::SubmitError::kQueueFull;
      result.message = "queue full";
    } else {
      result.request_id = ++last_id_;
      std::string prompt;
      for (const int32_t token : request.prompt_tokens) {
        if (token < kBos) prompt += static_cast<char>(token);
      }
      Job job;
      job.id = result.request_id;
      job.answer = script_->answer(prompt);
      job.request = request;
      job.sink = std::move(sink);
      script_->requests.push_back(std::move(request));
      script_->max_running = std::max(script_->max_running, ++script_->n_running);
      jobs_.push_back(std::move(job));
      ++n_jobs_;
    }
    script_->changed.notify_all();
    return result;
  }

  void cancel(engine::RequestId id) override {
    const std::lock_guard lock(script_->mutex);
    cancelled_.push_back(id);
    script_->changed.notify_all();
  }

  engine::EngineStats stats() const override {
    const std::lock_guard lock(script_->mutex);
    engine::EngineStats stats;
    stats.n_running = n_jobs_;
    stats.max_model_len = options_.max_model_len;
    stats.weight_bytes = 1000;
    stats.kv_bytes = 24;
    stats.device = "CPU (fake)";
    return stats;
  }

 private:
  struct Job {
    engine::RequestId id = 0;
    std::string answer;
    size_t n_sent = 0;
    engine::Request request;
    engine::EventSink sink;
    bool done = false;
  };

  static void finish(Job& job, engine::FinishReason reason, const std::string& error = "") {
    engine::Event event;
    if (job.request.pooling && reason == engine::FinishReason::kStop) {
      event.pooled = fake_pooled(job.request);
    }
    event.request_id = job.id;
    event.finished = true;
    event.reason = reason;
    event.error = error;
    event.stats.n_prompt_tokens = static_cast<int>(job.request.prompt_tokens.size());
    event.stats.n_generated_tokens = static_cast<int>(job.n_sent);
    event.stats.prefill_ns = 1'000'000;
    event.stats.decode_ns = 2'000'000;
    job.done = true;
    job.sink(event);
  }

  bool ready(const Job& job) const {
    return static_cast<int64_t>(job.n_sent) < script_->allowed_tokens;
  }

  // One event of each request that may go on, outside the lock as a real engine's sinks are.
  void run() {
    std::unique_lock lock(script_->mutex);
    for (;;) {
      script_->changed.wait(lock, [this] {
        return ending_ || !cancelled_.empty() ||
               std::any_of(jobs_.begin(), jobs_.end(), [this](const Job& j) { return ready(j); });
      });
      if (ending_) return;
      std::vector<engine::RequestId> cancelled = std::move(cancelled_);
      cancelled_.clear();
      std::list<Job> stepping;
      std::vector<bool> may_step;
      stepping.splice(stepping.begin(), jobs_);
      for (const Job& job : stepping)
        may_step.push_back(ready(job));
      const std::string failure = script_->fail_with;
      lock.unlock();
      size_t i = 0;
      int n_cancelled = 0;
      for (Job& job : stepping) {
        const bool may = may_step[i++];
        if (std::find(cancelled.begin(), cancelled.end(), job.id) != cancelled.end()) {
          ++n_cancelled;
          finish(job, engine::FinishReason::kCancelled);
        } else if (may) {
          step(job, failure);
        }
      }
      lock.lock();
      script_->n_cancelled += n_cancelled;
      for (const Job& job : stepping)
        script_->n_running -= job.done ? 1 : 0;
      n_jobs_ -= static_cast<int>(stepping.remove_if([](const Job& job) { return job.done; }));
      jobs_.splice(jobs_.begin(), stepping);
      script_->changed.notify_all();
    }
  }

  static void step(Job& job, const std::string& failure) {
    if (!failure.empty()) return finish(job, engine::FinishReason::kError, failure);
    if (job.request.pooling) return finish(job, engine::FinishReason::kStop);
    const int max_tokens = job.request.max_tokens;
    if (max_tokens >= 0 && static_cast<int>(job.n_sent) >= max_tokens) {
      return finish(job, engine::FinishReason::kLength);
    }
    if (job.n_sent == job.answer.size()) return finish(job, engine::FinishReason::kStop);
    engine::Event event;
    event.request_id = job.id;
    event.token = static_cast<unsigned char>(job.answer[job.n_sent++]);
    event.logprob = -0.5f;
    for (int k = 0; k < job.request.sampling.n_logprobs; ++k)
      event.top_logprobs.push_back({.token = 'a' + k, .logprob = -1.0f - static_cast<float>(k)});
    job.sink(event);
  }

  std::shared_ptr<EngineScript> script_;
  const engine::EngineOptions options_;
  // Under the script's mutex.
  std::list<Job> jobs_;  // without those that step
  int n_jobs_ = 0;       // with them
  std::vector<engine::RequestId> cancelled_;
  engine::RequestId last_id_ = 0;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

std::shared_ptr<const commands::LoadedModel> byte_model(const std::string& name, bool can_think) {
  auto model = std::make_shared<commands::LoadedModel>();
  model->name = name;
  model->tokenizer = std::make_shared<ByteTokenizer>();
  model->chat_template = std::make_shared<LineTemplate>(can_think);
  model->context_length = 8192;
  model->size_bytes = 1000;
  if (name == "ranker:latest") model->pooling = engine::Pooling::kRank;
  return model;
}

std::unique_ptr<engine::Engine> make_fake_engine(std::shared_ptr<EngineScript> script,
                                                 const engine::EngineOptions& options) {
  script->set([&options](EngineScript& s) { s.loads.push_back(options); });
  return std::make_unique<FakeEngine>(std::move(script), options);
}

std::optional<commands::serve::ModelId> FakeSource::find(const std::string& name) {
  const std::lock_guard lock(mutex);
  const std::string full = name.find(':') == std::string::npos ? name + ":latest" : name;
  const auto it = digests.find(full);
  if (it == digests.end()) return std::nullopt;
  return commands::serve::ModelId{.name = it->first, .digest = it->second};
}

std::shared_ptr<const commands::LoadedModel> FakeSource::load(const commands::serve::ModelId& id) {
  const std::lock_guard lock(mutex);
  if (!load_error.empty()) throw commands::Error(load_error);
  const auto source = templates.find(id.name);
  if (source == templates.end()) return byte_model(id.name, id.name == "thinker:latest");
  auto model = std::make_shared<commands::LoadedModel>(*byte_model(id.name));
  model->chat_template =
      templates::ChatTemplate::parse(templates::TemplateLanguage::kJinja, source->second);
  return model;
}

std::unique_ptr<engine::Engine> FakeSource::start_engine(const commands::LoadedModel&,
                                                         const engine::EngineOptions& options) {
  return make_fake_engine(script_, options);
}

std::optional<std::string> FakeConsole::read_line(std::string_view prompt) {
  prompts.emplace_back(prompt);
  if (lines.empty()) return std::nullopt;
  std::string line = lines.front();
  lines.pop_front();
  if (line == "^C") {
    interrupt = true;
    return std::nullopt;
  }
  return line;
}

RawClient::RawClient(int port, int receive_buffer_bytes) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer_bytes > 0) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    throw std::runtime_error("connect failed");
  }
}

RawClient::~RawClient() {
  close();
}

void RawClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return;  // the server has closed: what it said is still to be read
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

bool RawClient::read_until(std::string_view text) {
  while (received.find(text) == std::string::npos) {
    pollfd waited{.fd = fd_, .events = POLLIN, .revents = 0};
    if (poll(&waited, 1, 10'000) <= 0) return false;
    char buffer[65536];
    const ssize_t n = recv(fd_, buffer, sizeof(buffer), 0);
    if (n <= 0) return false;
    received.append(buffer, static_cast<size_t>(n));
  }
  return true;
}

bool RawClient::read_to_end() {
  for (;;) {
    pollfd waited{.fd = fd_, .events = POLLIN, .revents = 0};
    if (poll(&waited, 1, 10'000) <= 0) return false;
    char buffer[65536];
    const ssize_t n = recv(fd_, buffer, sizeof(buffer), 0);
    if (n <= 0) return true;
    received.append(buffer, static_cast<size_t>(n));
  }
}

bool HttpReply::has_header(const std::string& line) const {
  return head.find("\r\n" + line + "\r\n") != std::string::npos;
}

HttpReply parse_reply(const std::string& bytes) {
  HttpReply reply;
  const size_t end = bytes.find("\r\n\r\n");
  if (bytes.size() < 12 || end == std::string::npos) return reply;
  reply.status = std::stoi(bytes.substr(9, 3));
  reply.head = bytes.substr(0, end + 2);
  std::string rest = bytes.substr(end + 4);
  if (!reply.has_header("Transfer-Encoding: chunked")) {
    reply.body = rest;
    return reply;
  }
  while (!rest.empty()) {
    const size_t line = rest.find("\r\n");
    if (line == std::string::npos) break;
    const size_t size = std::stoul(rest.substr(0, line), nullptr, 16);
    if (size == 0) break;
    reply.body += rest.substr(line + 2, size);
    rest.erase(0, std::min(rest.size(), line + 2 + size + 2));
  }
  return reply;
}

HttpReply fetch(int port, const std::string& method, const std::string& path,
                const std::string& body, const std::string& headers) {
  RawClient client(port);
  std::string request =
      method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
  if (!body.empty()) request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  client.send(request + headers + "\r\n" + body);
  client.read_to_end();
  return parse_reply(client.received);
}

}  // namespace dsctl::tests
