#include "commands/serve/engine_process.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/catch.h"
#include "tests/support/commands_fakes.h"

namespace dsctl {
namespace {

using commands::serve::EngineChild;
using commands::serve::EngineProcess;
using commands::serve::LoadMessage;
using commands::serve::MessageType;
using commands::serve::WireError;
using tests::EngineScript;
using tests::eventually;
using WireMessage = commands::serve::Message;

// The child as a thread of this process, at the other end of a real socket pair.
class ThreadChild {
 public:
  explicit ThreadChild(std::shared_ptr<EngineScript> script, const std::string& load_error = "") {
    spdlog::set_level(spdlog::level::off);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds_) == 0);
    thread_ = std::thread([this, script = std::move(script), load_error] {
      commands::serve::serve_engine(fds_[1], [&](const LoadMessage& load) {
        if (!load_error.empty()) throw std::runtime_error(load_error);
        return tests::make_fake_engine(script, load.options);
      });
      ::shutdown(fds_[1], SHUT_RDWR);
    });
  }
  ~ThreadChild() {
    crash();
    thread_.join();
    ::close(fds_[1]);
  }
  EngineChild child() const { return {.fd = fds_[0], .pid = -1}; }
  void crash() { ::shutdown(fds_[1], SHUT_RDWR); }

 private:
  int fds_[2] = {-1, -1};
  std::thread thread_;
};

struct Recorder {
  std::mutex mutex;
  std::string text;
  std::optional<engine::Event> end;
  int n_ends = 0;  // checked by the test's own thread: Catch2's checks belong to one
  bool is_done() {
    const std::lock_guard lock(mutex);
    return end.has_value();
  }
  engine::EventSink sink() {
    return [this](const engine::Event& event) {
      const std::lock_guard lock(mutex);
      if (event.finished) {
        ++n_ends;
        end = event;
      } else {
        text += static_cast<char>(event.token);
      }
    };
  }
};

engine::Request request_of(const std::string& prompt) {
  engine::Request request;
  for (const char c : prompt)
    request.prompt_tokens.push_back(static_cast<unsigned char>(c));
  return request;
}

TEST_CASE("A pooled request and its vector cross the process boundary") {
  auto script = std::make_shared<EngineScript>();
  ThreadChild thread(script);
  EngineProcess engine(thread.child(), {"weights.gguf"}, {});
  Recorder recorder;
  engine::Request request = request_of("ab");
  request.pooling = engine::Pooling::kMean;
  REQUIRE_FALSE(engine.submit(request, recorder.sink()).error);
  REQUIRE(eventually([&] { return recorder.is_done(); }));
  CHECK(recorder.end->reason == engine::FinishReason::kStop);
  CHECK(recorder.end->pooled == std::vector<float>{3.0f, 4.0f, 2.0f, 97.0f + 98.0f});
  CHECK(script->get([](EngineScript& s) { return s.requests.front().pooling; }) ==
        engine::Pooling::kMean);
}

TEST_CASE("EngineProcess answers many requests at once") {
  auto script = std::make_shared<EngineScript>();
  script->answer = [](const std::string& prompt) { return "re: " + prompt; };
  ThreadChild child(script);
  engine::EngineOptions options;
  options.max_model_len = 777;
  EngineProcess process(child.child(), {"/a.gguf"}, options);
  CHECK(script->get([](EngineScript& s) { return s.loads.at(0).max_model_len; }) == 777);
  CHECK(process.stats().max_model_len == 777);
  std::vector<Recorder> recorders(20);
  for (int i = 0; i < 20; ++i) {
    const auto result =
        process.submit(request_of(std::to_string(i)), recorders[static_cast<size_t>(i)].sink());
    REQUIRE(!result.error);
  }
  for (int i = 0; i < 20; ++i) {
    Recorder& recorder = recorders[static_cast<size_t>(i)];
    REQUIRE(eventually([&] { return recorder.is_done(); }));
    CHECK(recorder.text == "re: " + std::to_string(i));
    CHECK(recorder.end->reason == engine::FinishReason::kStop);
    CHECK(recorder.n_ends == 1);
  }
}

TEST_CASE("EngineProcess passes on cancels and refusals") {
  auto script = std::make_shared<EngineScript>();
  script->allowed_tokens = 1;
  script->max_queue = 1;
  ThreadChild child(script);
  EngineProcess process(child.child(), {"/a.gguf"}, {});
  Recorder recorder;
  const auto result = process.submit(request_of("x"), recorder.sink());
  REQUIRE(!result.error);
  const auto refused = process.submit(request_of("y"), [](const engine::Event&) { FAIL(); });
  CHECK(refused.error == engine::SubmitError::kQueueFull);
  CHECK(refused.message == "queue full");
  process.cancel(result.request_id);
  REQUIRE(eventually([&] { return recorder.is_done(); }));
  CHECK(recorder.end->reason == engine::FinishReason::kCancelled);
}

TEST_CASE("A crash of the engine process fails its requests and later ones") {
  auto script = std::make_shared<EngineScript>();
  script->allowed_tokens = 1;
  ThreadChild child(script);
  EngineProcess process(child.child(), {"/a.gguf"}, {});
  Recorder recorder;
  REQUIRE(!process.submit(request_of("x"), recorder.sink()).error);
  child.crash();
  REQUIRE(eventually([&] { return recorder.is_done(); }));
  CHECK(recorder.end->reason == engine::FinishReason::kError);
  CHECK_THAT(recorder.end->error, Catch::Contains("engine process died"));
  const auto result = process.submit(request_of("y"), [](const engine::Event&) { FAIL(); });
  CHECK(result.error == engine::SubmitError::kStopped);
  CHECK(process.stats().max_model_len > 0);  // the last known
}

TEST_CASE("EngineProcess reports why the weights could not be loaded") {
  ThreadChild child(std::make_shared<EngineScript>(), "blk.0.attn_q.weight is missing");
  CHECK_THROWS_WITH(EngineProcess(child.child(), {"/a.gguf"}, {}),
                    "blk.0.attn_q.weight is missing");
}

TEST_CASE("Destroying an EngineProcess cancels what runs") {
  auto script = std::make_shared<EngineScript>();
  script->allowed_tokens = 1;
  ThreadChild child(script);
  Recorder recorder;
  {
    EngineProcess process(child.child(), {"/a.gguf"}, {});
    REQUIRE(!process.submit(request_of("x"), recorder.sink()).error);
  }
  REQUIRE(recorder.is_done());
  CHECK(recorder.end->reason == engine::FinishReason::kCancelled);
}

WireMessage submit_message() {
  WireMessage message{.type = MessageType::kSubmit, .id = 42};
  message.request.prompt_tokens = {1, 2, 3};
  message.request.stop_token_ids = {7};
  message.request.max_tokens = 9;
  message.request.sampling.temperature = 0.25f;
  message.request.sampling.seed = 99;
  message.request.sampling.logit_bias = {{5, -1.5f}};
  message.request.sampling.dry_sequence_breakers = {"a", "bc"};
  message.request.grammar = {.kind = engine::GrammarSpec::Kind::kRegex,
                             .source = "a+",
                             .start_after = "</think>",
                             .may_begin_with = "<think>",
                             .triggers = {"<tool>", "["}};
  return message;
}

TEST_CASE("Engine messages survive the way over the wire") {
  const WireMessage message = submit_message();
  const std::string frame = commands::serve::encode_message(message);
  const WireMessage read = commands::serve::decode_message(std::string_view(frame).substr(4));
  CHECK(read.id == 42);
  CHECK(read.request.prompt_tokens == message.request.prompt_tokens);
  CHECK(read.request.stop_token_ids == message.request.stop_token_ids);
  CHECK(read.request.max_tokens == 9);
  CHECK(read.request.sampling.temperature == 0.25f);
  CHECK(read.request.sampling.seed == 99u);
  CHECK(read.request.sampling.logit_bias == message.request.sampling.logit_bias);
  CHECK(read.request.sampling.dry_sequence_breakers ==
        message.request.sampling.dry_sequence_breakers);
  REQUIRE(read.request.grammar);
  CHECK(read.request.grammar->kind == engine::GrammarSpec::Kind::kRegex);
  CHECK(read.request.grammar->source == "a+");
  CHECK(read.request.grammar->start_after == "</think>");
  CHECK(read.request.grammar->may_begin_with == "<think>");
  CHECK(read.request.grammar->triggers == std::vector<std::string>{"<tool>", "["});

  WireMessage event{.type = MessageType::kEvent, .id = 1};
  event.event.token = 5;
  event.event.top_logprobs = {{.token = 3, .logprob = -2.0f}};
  const std::string bytes = commands::serve::encode_message(event);
  const WireMessage back = commands::serve::decode_message(std::string_view(bytes).substr(4));
  CHECK(back.event.top_logprobs.at(0).token == 3);
}

TEST_CASE("Engine messages that are cut short, too long or out of range are refused") {
  const std::string frame = commands::serve::encode_message(submit_message());
  const std::string payload = frame.substr(4);
  for (size_t size = 0; size < payload.size(); ++size)
    CHECK_THROWS_AS(commands::serve::decode_message(payload.substr(0, size)), WireError);
  CHECK_THROWS_AS(commands::serve::decode_message(payload + "x"), WireError);
  std::string unknown = payload;
  unknown[0] = 99;
  CHECK_THROWS_AS(commands::serve::decode_message(unknown), WireError);
  std::string huge = payload;
  for (size_t i = 9; i < 13; ++i)
    huge[i] = '\xff';  // the count of prompt tokens
  CHECK_THROWS_AS(commands::serve::decode_message(huge), WireError);
}

}  // namespace
}  // namespace dsctl
