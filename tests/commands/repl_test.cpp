#include "commands/repl.h"

#include "commands/error.h"
#include "commands/run.h"
#include "commands/word_wrap.h"
#include "tests/support/catch.h"
#include "tests/support/commands_fakes.h"

namespace dsctl {
namespace {

using commands::AnswerPrinter;
using commands::ChatSummary;
using commands::GenerationRequest;
using commands::ModelFacts;
using commands::Repl;
using commands::TextPiece;
using commands::WordWrap;
using tests::FakeConsole;

class FakeBackend final : public commands::ChatBackend {
 public:
  FakeBackend() {
    facts_.name = "fake";
    facts_.architecture = "llama";
    facts_.parameters = "num_ctx                        2048";
    facts_.system = "own system";
  }
  void use(const std::string& model) override {
    if (model == "nobody") throw commands::Error("model 'nobody' not found");
    facts_.name = model;
  }
  const ModelFacts& facts() const override { return facts_; }
  void preload(const GenerationRequest&) override {}
  ChatSummary generate(const GenerationRequest& request,
                       const std::function<void(const TextPiece&)>& on_piece,
                       const std::function<bool()>& interrupted) override {
    requests.push_back(request);
    if (fail) throw commands::Error("the engine is on fire");
    ChatSummary summary;
    for (const TextPiece& piece : answer) {
      if (on_answer) on_answer();
      if (interrupted()) {
        summary.reason = engine::FinishReason::kCancelled;
        return summary;
      }
      on_piece(piece);
    }
    return summary;
  }
  std::vector<commands::ListedModel> list() override { return {{.name = "one:latest"}}; }
  void save(const std::string& name, const GenerationRequest& session) override {
    saved = name;
    requests.push_back(session);
  }

  std::vector<TextPiece> answer{{.content = "fine"}};
  std::vector<GenerationRequest> requests;
  std::function<void()> on_answer;
  std::string saved;
  bool fail = false;

 private:
  ModelFacts facts_;
};

struct Session {
  explicit Session(std::deque<std::string> lines, commands::ReplOptions options = {}) {
    console.lines = std::move(lines);
    Repl(backend, console, std::move(options)).run();
  }
  FakeBackend backend;
  FakeConsole console;
};

std::vector<std::string> contents(const GenerationRequest& request) {
  std::vector<std::string> texts;
  for (const auto& message : request.messages)
    texts.push_back(message.role + ": " + message.content);
  return texts;
}

TEST_CASE("A conversation remembers what was said until it is cleared") {
  Session session({"hello", "and now?", "/clear", "again"});
  REQUIRE(session.backend.requests.size() == 3);
  CHECK(contents(session.backend.requests[1]) ==
        std::vector<std::string>{"user: hello", "assistant: fine", "user: and now?"});
  CHECK(contents(session.backend.requests[2]) == std::vector<std::string>{"user: again"});
  CHECK_THAT(session.console.out, Catch::StartsWith("fine\n\n"));
}

TEST_CASE("/set nohistory asks each question on its own") {
  Session session({"/set system be brief", "/set nohistory", "a", "b"});
  CHECK(contents(session.backend.requests.at(1)) ==
        std::vector<std::string>{"system: be brief", "user: b"});
}

TEST_CASE("Three quotes begin and end a message of many lines") {
  Session session(
      {"\"\"\"one", "two", "three\"\"\"", "\"\"\"short\"\"\"", "\"\"\"left", "^C", "x"});
  REQUIRE(session.backend.requests.size() == 3);
  CHECK(session.backend.requests[0].messages.back().content == "one\ntwo\nthree");
  CHECK(session.backend.requests[1].messages.back().content == "short");
  CHECK(session.backend.requests[2].messages.back().content == "x");
  CHECK(session.console.prompts[1] == "... ");
}

TEST_CASE("/set parameter checks and remembers") {
  Session session({"/set parameter temperature 0.5", "/set parameter stop a b",
                   "/set parameter top_k many", "/set parameter colour red", "/set parameter",
                   "/show parameters", "hi"});
  CHECK_THAT(session.console.out, Catch::Contains("Set parameter 'temperature' to '0.5'") &&
                                      Catch::Contains("Set parameter 'stop' to 'a, b'") &&
                                      Catch::Contains("Available Parameters:") &&
                                      Catch::Contains("Model defined parameters:\nnum_ctx") &&
                                      Catch::Contains("User defined parameters:\nstop"));
  CHECK_THAT(session.console.notes, Catch::Contains("invalid int value [many]") &&
                                        Catch::Contains("unknown parameter 'colour'"));
  const auto& options = session.backend.requests.at(0).options;
  CHECK(options.at("temperature") == commands::OptionValue(0.5));
  CHECK(options.size() == 2);
}

TEST_CASE("/set system takes quotes and many lines, the last one wins") {
  Session session(
      {"/set system \"be brief\"", "/set system \"\"\"one", "two\"\"\"", "hi", "/show system"});
  CHECK(contents(session.backend.requests.at(0)) ==
        std::vector<std::string>{"system: one\ntwo", "user: hi"});
  CHECK_THAT(session.console.out, Catch::Contains("one\ntwo\n"));
}

TEST_CASE("Slash commands that are wrong say what is right") {
  Session session({"/nonsense", "/set nonsense", "/show nonsense", "/load", "/save", "/set system",
                   "/set format xml", "/load nobody", "/?", "/? set", "/help show",
                   "/? shortcuts"});
  CHECK_THAT(session.console.out,
             Catch::Contains("Unknown command '/nonsense'. Type /? for help") &&
                 Catch::Contains("Unknown command '/set nonsense'") &&
                 Catch::Contains("Unknown command '/show nonsense'") &&
                 Catch::Contains("/load <modelname>") && Catch::Contains("/save <modelname>") &&
                 Catch::Contains("use '/set format json'") && Catch::Contains("Ctrl + d"));
  CHECK_THAT(session.console.notes, Catch::Contains("model 'nobody' not found"));
  CHECK(session.backend.requests.empty());
}

TEST_CASE("/set format json asks for JSON until /set noformat") {
  Session session({"/set format json", "hi", "/set noformat", "ho"});
  REQUIRE(session.backend.requests.size() == 2);
  REQUIRE(session.backend.requests[0].grammar);
  CHECK(session.backend.requests[0].grammar->kind == engine::GrammarSpec::Kind::kJsonObject);
  CHECK_FALSE(session.backend.requests[1].grammar);
}

TEST_CASE("/save keeps the session, /load begins another") {
  Session session({"/set system s", "hi", "/save mine", "/load other", "ho", "/list"});
  CHECK(session.backend.saved == "mine");
  CHECK(contents(session.backend.requests.at(1)) ==
        std::vector<std::string>{"system: s", "user: hi", "assistant: fine"});
  CHECK(contents(session.backend.requests.at(2)) == std::vector<std::string>{"user: ho"});
  CHECK_THAT(session.console.out, Catch::Contains("one:latest"));
}

TEST_CASE("Ctrl-C at the prompt hints, in an answer it stops the answer") {
  FakeConsole console;
  FakeBackend backend;
  backend.answer = {{.content = "one "}, {.content = "two "}, {.content = "three"}};
  int n_pieces = 0;
  backend.on_answer = [&] { console.interrupt = ++n_pieces == 2; };
  console.lines = {"^C", "hi", "more"};
  Repl(backend, console, {}).run();
  CHECK_THAT(console.out, Catch::Contains("Use Ctrl + d or /bye to exit.") &&
                              Catch::Contains("one \n") && Catch::Contains("one two three\n"));
  CHECK(contents(backend.requests.at(1)).at(1) == "assistant: one ");
}

TEST_CASE("A question that fails does not end the session") {
  FakeConsole console;
  FakeBackend backend;
  backend.fail = true;
  console.lines = {"hi", "ho", "/bye", "never"};
  Repl(backend, console, {}).run();
  CHECK(backend.requests.size() == 2);
  CHECK(contents(backend.requests.at(1)).size() == 1);  // the failed question is forgotten
  CHECK(console.notes == "error: the engine is on fire\nerror: the engine is on fire\n");
}

TEST_CASE("Thoughts are printed in a block, or hidden") {
  const auto printed = [](bool hide) {
    FakeConsole console;
    AnswerPrinter printer(console, {.hide_thinking = hide});
    printer.print({.thinking = "hm "});
    printer.print({.content = "yes", .thinking = "so"});
    printer.finish();
    CHECK(printer.thinking() == "hm so");
    return console.out;
  };
  CHECK(printed(false) == "Thinking...\nhm so\n...done thinking.\n\nyes\n");
  CHECK(printed(true) == "yes\n");
}

TEST_CASE("Ollama's timing block has its keys in its order") {
  FakeConsole console;
  ChatSummary summary;
  summary.n_prompt_tokens = 26;
  summary.prefill_time = std::chrono::milliseconds(130);
  summary.n_generated_tokens = 259;
  summary.decode_time = std::chrono::milliseconds(4232);
  commands::print_timings(summary, console);
  CHECK(console.notes ==
        "total duration:       0s\n"
        "load duration:        0s\n"
        "prompt eval count:    26 token(s)\n"
        "prompt eval duration: 130ms\n"
        "prompt eval rate:     200.00 tokens/s\n"
        "eval count:           259 token(s)\n"
        "eval duration:        4.232s\n"
        "eval rate:            61.20 tokens/s\n");
}

std::string wrapped(int width, std::string_view text, size_t piece_size) {
  WordWrap wrap(width);
  std::string out;
  for (size_t i = 0; i < text.size(); i += piece_size)
    out += wrap.push(text.substr(i, piece_size));
  return out + wrap.finish();
}

TEST_CASE("WordWrap breaks between words however the text is cut") {
  const std::string text = "the quick brown fox jumps\nover it";
  for (const size_t piece : {1, 2, 3, 7, 100})
    CHECK(wrapped(12, text, piece) == "the quick \nbrown fox \njumps\nover it");
  CHECK(wrapped(0, text, 3) == text);
  CHECK(wrapped(5, "abcdefghij", 1) == wrapped(5, "abcdefghij", 10));
  for (const size_t piece : {1, 2, 3, 4, 100})
    CHECK(wrapped(7, "日本語日本語", piece) == "日本語\n日本語");
}

}  // namespace
}  // namespace dsctl
