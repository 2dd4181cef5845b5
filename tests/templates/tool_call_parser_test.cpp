// Tool calls of every family: found, streamed, and never lost when they are none.
#include "templates/tool_call_parser.h"

#include "templates/chat_template.h"
#include "templates/tool_format.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/templates_jinja.h"

namespace dsctl::templates {
namespace {

/// A template's text that makes each family known.
const std::map<std::string, std::string> kTemplates = {
    {"hermes", "<tool_call>"},
    {"llama-3", "<|start_header_id|> \"parameters\": "},
    {"mistral", "[TOOL_CALLS]["},
    {"mistral-args", "[TOOL_CALLS]name[ARGS]"},
    {"deepseek-v3", "<｜tool▁calls▁begin｜> ```json"},
    {"deepseek-v3.1", "<｜tool▁calls▁begin｜>"},
    {"functionary-v3.1", "tool_call <function= </function>"},
    {"functionary-v3.2", ">>>all"},
    {"command-r", "Action: \"tool_name\""},
    {"command-r7b", "<|START_ACTION|>"},
    {"firefunction", "functools["},
    {"nemotron", "<toolcall>"},
    {"granite", "<|tool_call|>"},
    {"phi-4", "<|tool_call|> <|/tool_call|>"},
};

const std::vector<std::string> kTools = {"get_weather", "add", "python", "brave_search"};

struct Result {
  std::string content;
  std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
  bool operator==(const Result&) const = default;
};

/// The answer as a client sees it that shows calls when they are whole.
class Collector {
 public:
  void add(const ToolCallParser::Pieces& pieces) {
    for (const ToolCallParser::Piece& piece : pieces)
      add(piece);
  }
  void add(const ToolCallParser::Piece& piece) {
    result_.content += piece.content;
    for (const ToolCallPiece& call : piece.calls) {
      if (!call.name.empty()) {
        REQUIRE(call.index == n_opened_++);
        open_ = {call.name, ""};
      }
      REQUIRE(call.index == n_opened_ - 1);
      open_.second += call.arguments;
      if (call.state == ToolCallPiece::State::kDone) result_.calls.push_back(open_);
      if (call.state == ToolCallPiece::State::kBroken) result_.content += call.raw;
    }
  }
  const Result& result() const { return result_; }

 private:
  Result result_;
  std::pair<std::string, std::string> open_;
  int n_opened_ = 0;
};

ToolFormat format_of(const std::string& family) {
  if (family == "generic") return generic_tool_format("");
  const auto format = find_tool_format(kTemplates.at(family));
  REQUIRE(format);
  CHECK(format->family == family);
  return *format;
}

Result parse(const ToolFormat& format, std::string_view text, size_t piece_size,
             int max_calls = 100) {
  ToolCallParser parser(format, kTools, max_calls);
  Collector collector;
  for (size_t pos = 0; pos < text.size(); pos += piece_size)
    collector.add(parser.feed(text.substr(pos, piece_size)));
  collector.add(parser.finish());
  return collector.result();
}

struct Case {
  const char* family;
  const char* text;
  Result expected;
};

const Result kParis = {"", {{"get_weather", R"({"city": "Paris"})"}}};
const Result kTwo = {"",
                     {{"get_weather", R"({"city": "Paris"})"}, {"add", R"({"a": 1, "b": [2]})"}}};

Result with_content(std::string content, Result result) {
  result.content = std::move(content);
  return result;
}

Result text_only(const char* text) {
  return {text, {}};
}

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases = {
      // Hermes, Qwen.
      {"hermes",
       "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": "
       "\"Paris\"}}\n</tool_call>",
       kParis},
      {"hermes",
       "Let me look.\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": "
       "\"Paris\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, "
       "\"b\": [2]}}\n</tool_call>\n",
       with_content("Let me look.", kTwo)},
      {"hermes",
       "<tool_call>{\"arguments\": {\"city\": \"Paris\"}, \"name\": \"get_weather\"}</tool_call> "
       "and more",
       with_content("and more", kParis)},
      {"hermes", "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}", kParis},
      {"hermes",
       "<tool_call>{\"name\": \"get_weather\", \"arguments\": \"{\\\"city\\\": "
       "\\\"Paris\\\"}\"}</tool_call>",
       kParis},
      {"hermes",
       "<tool_call>{\"name\": \"get_weather\"}</tool_call>",
       {"", {{"get_weather", "{}"}}}},
      {"hermes",
       "<tool_call>{\"name\": \"add\", \"arguments\": {\"s\": \"}</tool_call>{ \\\" "
       "é\"}}</tool_call>",
       {"", {{"add", "{\"s\": \"}</tool_call>{ \\\" é\"}"}}}},
      {"hermes", "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}",
       kParis},
      {"hermes", "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Par",
       text_only("<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Par")},
      {"hermes",
       "a <tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": }}</tool_call> b",
       text_only(
           "a <tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": }}</tool_call> b")},
      {"hermes", "<tool_call>{\"name\": \"get_weather\", \"arguments\": [1]}</tool_call>",
       text_only("<tool_call>{\"name\": \"get_weather\", \"arguments\": [1]}</tool_call>")},
      {"hermes",
       "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}</tool_call>",
       text_only("<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": "
                 "\"Paris\"}</tool_call>")},
      {"hermes", "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>",
       text_only("<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>")},
      {"hermes", "<tool_call>\nnot JSON</tool_call>",
       text_only("<tool_call>\nnot JSON</tool_call>")},
      {"hermes", "x < y, <tool, <tool_calls are words. ",
       text_only("x < y, <tool, <tool_calls are words. ")},
      {"hermes", "{\"answer\": 42, \"name\": \"get_weather\"}",
       text_only("{\"answer\": 42, \"name\": \"get_weather\"}")},
      {"hermes", "[1] is a note", text_only("[1] is a note")},
      {"hermes", "  \n", text_only("  \n")},
      {"hermes", "", text_only("")},
      // Llama 3.
      {"llama-3", "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}", kParis},
      {"llama-3",
       "\n{\"type\": \"function\", \"name\": \"get_weather\", \"parameters\": {\"city\": "
       "\"Paris\"}}\n",
       kParis},
      {"llama-3",
       "<|python_tag|>{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}; "
       "{\"name\": \"add\", \"parameters\": {\"a\": 1, \"b\": [2]}}",
       kTwo},
      {"llama-3",
       "<|python_tag|>brave_search.call(query=\"it's\", n=3, deep=True)",
       {"", {{"brave_search", R"({"query":"it's","n":3,"deep":true})"}}}},
      {"llama-3",
       "<|python_tag|>print('hi')\nx = 1",
       {"", {{"python", R"({"code":"print('hi')\nx = 1"})"}}}},
      {"llama-3", "{\"name\": \"John\", \"parameters\": {}}",
       text_only("{\"name\": \"John\", \"parameters\": {}}")},
      {"llama-3", "{\"name\": \"add\"}", text_only("{\"name\": \"add\"}")},
      {"llama-3", "The answer is {\"name\": \"add\", \"parameters\": {}}",
       text_only("The answer is {\"name\": \"add\", \"parameters\": {}}")},
      // Mistral.
      {"mistral",
       "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}, \"id\": "
       "\"abcdefghi\"}, {\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": [2]}}]",
       kTwo},
      {"mistral",
       "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]", kParis},
      {"mistral", "[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]", kParis},
      {"mistral", "[TOOL_CALLS][]", text_only("[TOOL_CALLS][]")},
      {"mistral",
       "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}, {\"name\": "
       "\"add\"",
       with_content(", {\"name\": \"add\"", kParis)},
      {"mistral-args",
       "Text[TOOL_CALLS]get_weather[ARGS]{\"city\": "
       "\"Paris\"}[TOOL_CALLS]add[CALL_ID]123456789[ARGS]{\"a\": 1, \"b\": [2]}",
       with_content("Text", kTwo)},
      {"mistral-args",
       "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]", kParis},
      {"mistral-args", "[TOOL_CALLS]get_weather[ARGS]{\"city\": ",
       text_only("[TOOL_CALLS]get_weather[ARGS]{\"city\": ")},
      {"mistral-args", "[TOOL_CALLS]nothing[ARGS]{}", text_only("[TOOL_CALLS]nothing[ARGS]{}")},
      // DeepSeek.
      {"deepseek-v3",
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"
       "\"city\": "
       "\"Paris\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```"
       "json\n{\"a\": 1, \"b\": [2]}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       kTwo},
      {"deepseek-v3",
       "Text.\n<｜tool▁calls▁begin｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```"
       "json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜> ",
       with_content("Text.", kParis)},
      {"deepseek-v3.1",
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": "
       "\"Paris\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1, \"b\": "
       "[2]}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       kTwo},
      {"deepseek-v3.1",
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\" "
       "\"Paris\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       text_only("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\" "
                 "\"Paris\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>")},
      {"deepseek-v3.1", "a ｜ b <｜tool▁", text_only("a ｜ b <｜tool▁")},
      // Functionary.
      {"functionary-v3.1",
       "<function=get_weather>{\"city\": \"Paris\"}</function><function=add>{\"a\": 1, \"b\": "
       "[2]}</function>",
       kTwo},
      {"functionary-v3.1", "Sure: <function=get_weather>{\"city\": \"Paris\"}</function>",
       with_content("Sure:", kParis)},
      {"functionary-v3.1", "<function=get_weather>Paris</function>",
       text_only("<function=get_weather>Paris</function>")},
      {"functionary-v3.2", "get_weather\n{\"city\": \"Paris\"}>>>add\n{\"a\": 1, \"b\": [2]}",
       kTwo},
      {"functionary-v3.2", "all\nLet me see.\n>>>get_weather\n{\"city\": \"Paris\"}",
       with_content("Let me see.", kParis)},
      {"functionary-v3.2", "all\nJust text.", text_only("Just text.")},
      {"functionary-v3.2", "Just text.", text_only("Just text.")},
      // Cohere.
      {"command-r",
       "Plan.\nAction:\n```json\n[\n    {\n        \"tool_name\": \"get_weather\",\n        "
       "\"parameters\": {\"city\": \"Paris\"}\n    },\n    {\n        \"tool_name\": \"add\",\n    "
       "    \"parameters\": {\"a\": 1, \"b\": [2]}\n    }\n]```",
       with_content("Plan.", kTwo)},
      {"command-r",
       "Action: ```json\n[{\"tool_name\": \"get_weather\", \"parameters\": {\"city\": "
       "\"Paris\"}}]\n```",
       kParis},
      {"command-r", "Action: sit down.", text_only("Action: sit down.")},
      {"command-r7b",
       "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"get_weather\", "
       "\"parameters\": {\"city\": \"Paris\"}},\n    {\"tool_call_id\": \"1\", \"tool_name\": "
       "\"add\", \"parameters\": {\"a\": 1, \"b\": [2]}}\n]<|END_ACTION|>",
       kTwo},
      {"command-r7b", "<|START_RESPONSE|>It is sunny.<|END_RESPONSE|>", text_only("It is sunny.")},
      // Others.
      {"firefunction",
       "Sure. functools[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}, "
       "{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": [2]}}]",
       with_content("Sure.", kTwo)},
      {"firefunction", "Use functools.lru_cache here", text_only("Use functools.lru_cache here")},
      {"nemotron",
       "<toolcall> {\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}} </toolcall>",
       kParis},
      {"granite",
       "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]", kParis},
      {"phi-4",
       "<|tool_call|>[{\"name\":\"get_weather\",\"arguments\":{\"city\": "
       "\"Paris\"}}]<|/tool_call|>",
       kParis},
      {"generic",
       "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n{\"name\": \"add\", "
       "\"arguments\": {\"a\": 1, \"b\": [2]}}",
       kTwo},
      {"generic",
       "{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"arguments\": "
       "{\"city\": \"Paris\"}}}",
       {"", {{"get_weather", R"({"city":"Paris"})"}}}},
  };
  return kCases;
}

}  // namespace

TEST_CASE("ToolCallParser reads each family's calls however the text is cut") {
  for (const Case& test : cases()) {
    INFO(test.family << ": " << test.text);
    const ToolFormat format = format_of(test.family);
    for (const size_t piece_size : {1, 2, 3, 7, 100'000}) {
      INFO("pieces of " << piece_size);
      const Result got = parse(format, test.text, piece_size);
      CHECK(got.content == test.expected.content);
      CHECK(got.calls == test.expected.calls);
    }
  }
}

TEST_CASE("ToolCallParser reads back what its format writes") {
  for (const auto& [family, source] : kTemplates) {
    INFO(family);
    const ToolFormat format = format_of(family);
    const auto call = [&](const std::string& name, const std::string& arguments) {
      return format.before_name + name + format.before_arguments + arguments +
             format.after_arguments;
    };
    std::string text = format.open + call("get_weather", R"({"city": "Paris"})");
    if (format.is_parallel) text += format.separator + call("add", R"({"a": 1, "b": [2]})");
    text += format.close;
    CHECK(parse(format, text, 1) == (format.is_parallel ? kTwo : kParis));
  }
}

TEST_CASE("ToolCallParser shows the name and the arguments while they are written") {
  ToolCallParser parser(format_of("hermes"), kTools, 100);
  CHECK(parser.feed("<tool_call>{\"name\": \"get_w").empty());
  CHECK(parser.feed("eather\", \"arguments\":").empty());
  const auto begin = parser.feed(" {\"city\": \"Pa").at(0).calls.at(0);
  CHECK(begin.name == "get_weather");
  CHECK(begin.arguments == "{\"city\": \"Pa");
  const auto more = parser.feed("ris\"}").at(0).calls.at(0);
  CHECK(more.name.empty());
  CHECK(more.arguments == "ris\"}");
  CHECK(more.state == ToolCallPiece::State::kOpen);
  CHECK(parser.feed("}").at(0).calls.at(0).state == ToolCallPiece::State::kDone);
  CHECK(parser.n_calls() == 1);
}

TEST_CASE("ToolCallParser shows text at once that can be no call") {
  ToolCallParser parser(format_of("hermes"), kTools, 100);
  CHECK(parser.feed("Hello").at(0).content == "Hello");
  CHECK(parser.feed(" <").empty());
  CHECK(parser.feed("b>").at(0).content == " <b>");
  CHECK(parser.feed(" {").at(0).content == " {");
  CHECK(parser.feed(" \n").empty());
  CHECK(parser.finish().at(0).content == " \n");
}

TEST_CASE("ToolCallParser drops what follows the last call that is wanted") {
  const Result got =
      parse(format_of("hermes"),
            "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}"
            "</tool_call><tool_call>{\"name\": \"add\", \"arguments\": {}}</tool_call>",
            3, 1);
  CHECK(got == kParis);
}

TEST_CASE("The tool format is read off real templates") {
  if (tests::shared_dir().empty()) {
    WARN("no shared data: skipped");
    return;
  }
  const std::map<std::string, std::string> kFamilies = {
      {"CohereForAI-c4ai-command-r-plus-tool_use", "command-r"},
      {"CohereForAI-c4ai-command-r7b-12-2024-tool_use", "command-r7b"},
      {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "hermes"},
      {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes"},
      {"Qwen-Qwen2.5-7B-Instruct", "hermes"},
      {"Qwen-Qwen3-0.6B", "hermes"},
      {"deepseek-ai-DeepSeek-V3.1", "deepseek-v3.1"},
      {"deepseek-ai-DeepSeek-V3", "deepseek-v3"},
      {"deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek-v3"},
      {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek-v3"},
      {"llama-cpp-deepseek-r1", "deepseek-v3"},
      {"fireworks-ai-llama-3-firefunction-v2", "firefunction"},
      {"meetkai-functionary-medium-v3.1", "functionary-v3.1"},
      {"meetkai-functionary-medium-v3.2", "functionary-v3.2"},
      {"meta-llama-Llama-3.1-8B-Instruct", "llama-3"},
      {"meta-llama-Llama-3.2-3B-Instruct", "llama-3"},
      {"meta-llama-Llama-3.3-70B-Instruct", "llama-3"},
      {"mistralai-Mistral-Nemo-Instruct-2407", "mistral"},
  };
  for (const auto& [name, family] : kFamilies) {
    INFO(name);
    const auto format = find_tool_format(
        tests::read_text(tests::shared_dir() / "data/chat_templates" / (name + ".jinja")));
    REQUIRE(format);
    CHECK(format->family == family);
  }
}

}  // namespace dsctl::templates
