// Go templates against real Go: the shared micro cases, Ollama's own cases and golden renders.
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "templates/error.h"
#include "templates/go/executor.h"
#include "templates/go/go_chat_template.h"
#include "templates/go/parser.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace {

using dsctl::templates::ChatTemplate;
using dsctl::templates::Error;
using dsctl::templates::Json;
using dsctl::templates::Message;
using dsctl::templates::RenderInput;
using dsctl::templates::ToolCall;
using dsctl::templates::go::builtin_functions;
using dsctl::templates::go::FunctionMap;
using dsctl::templates::go::Limits;
using dsctl::templates::go::List;
using dsctl::templates::go::Map;
using dsctl::templates::go::Struct;
using dsctl::templates::go::to_json;
using dsctl::templates::go::Value;

namespace fs = std::filesystem;

fs::path data_dir() {
  const fs::path shared = dsctl::tests::shared_dir();
  return shared.empty() ? shared : shared / "data" / "go_templates";
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

Json read_json(const fs::path& path) {
  return Json::parse(read_text(path));
}

Value list_of(std::vector<Value> items) {
  List list;
  list.items = std::move(items);
  return Value(std::move(list));
}

Value text(const char* value) {
  return Value(std::string(value));
}
Value number(int64_t value) {
  return Value(value);
}

/// The data that the micro cases were rendered with (their "_note").
Value micro_data() {
  const auto message = [](const char* role, const char* content, const char* upper, int64_t n,
                          std::vector<Value> l) {
    Struct record;
    record.type_name = "*main.Msg";
    record.fields = {{"Role", "Role", text(role)},
                     {"Content", "Content", text(content)},
                     {"N", "N", number(n)},
                     {"L", "L", list_of(std::move(l))},
                     {"Upper", "Upper", text(upper)}};
    return Value(std::move(record));
  };
  Map inner;
  inner.items = {{"x", number(1)}, {"y", list_of({text("p"), Value(2.0)})}, {"a", Value()}};
  Map data;
  data.items = {{"A", number(1)},
                {"B", Value(2.5)},
                {"T", Value(true)},
                {"F", Value(false)},
                {"S", text("Hello")},
                {"E", text("")},
                {"L", list_of({number(3), number(1), number(2)})},
                {"EL", list_of({})},
                {"D", Value(std::move(inner))},
                {"Ms", list_of({message("user", "hi", "HI", 1, {}),
                                message("assistant", "yo", "YO", 2, {text("q")}),
                                message("user", "bye", "BYE", 3, {})})},
                {"Nil", Value()},
                {"Q", text("it's \"q\" <b>&")},
                {"U", text("h\u00e9llo")},
                {"Fl", Value(1e8)},
                {"Sm", Value(1e-7)},
                {"I64", number(-5)}};
  return Value(std::move(data));
}

FunctionMap micro_functions() {
  FunctionMap functions = builtin_functions();
  functions["json"] = [](std::span<const Value> arguments) { return Value(to_json(arguments[0])); };
  functions["up"] = [](std::span<const Value> arguments) {
    std::string out = *arguments[0].as_string();
    for (char& c : out)
      c = static_cast<char>(std::toupper(c));
    return Value(out);
  };
  functions["add"] = [](std::span<const Value> arguments) {
    return Value(*arguments[0].as_int() + *arguments[1].as_int());
  };
  return functions;
}

std::string render_micro(const std::string& source, const Limits& limits = {}) {
  const FunctionMap functions = micro_functions();
  const auto tree = dsctl::templates::go::parse(source, [&](std::string_view name) {
    return name == "and" || name == "or" || functions.find(name) != functions.end();
  });
  return dsctl::templates::go::execute(tree, functions, micro_data(), limits);
}

std::string error_of(const std::string& source) {
  try {
    return "rendered: " + render_micro(source);
  } catch (const Error& error) {
    return error.what();
  }
}

/// Go's message without what we word differently: the template's name and the quoted context.
std::string essence(const std::string& go_error) {
  const size_t colon = go_error.rfind(">: ");
  if (colon != std::string::npos) return go_error.substr(colon + 3);
  return go_error.substr(go_error.find_last_of(':') + 2);
}

std::vector<Message> messages_of(const Json& list) {
  std::vector<Message> messages;
  for (const Json& item : list) {
    Message message;
    message.role = item.value("role", "");
    message.content = item.value("content", "");
    if (item.contains("thinking")) message.thinking = item["thinking"].get<std::string>();
    message.tool_name = item.value("tool_name", "");
    message.tool_call_id = item.value("tool_call_id", "");
    for (const Json& call : item.value("tool_calls", Json::array())) {
      message.tool_calls.push_back(
          {call.value("id", ""), call["function"]["name"], call["function"]["arguments"]});
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

std::unique_ptr<ChatTemplate> parse_fixed_date(const std::string& source) {
  // 2026-01-02, the day of the goldens.
  return dsctl::templates::go::parse_chat_template(source, [] { return int64_t{20455}; });
}

}  // namespace

TEST_CASE("Go micro cases render as Go renders them") {
  if (data_dir().empty()) {
    WARN("shared test data not found");
    return;
  }
  const Json cases = read_json(data_dir() / "go_micro_cases.json");
  for (const Json& item : cases["cases"]) {
    const std::string source = item["template"];
    INFO(source);
    if (item.contains("output")) {
      CHECK(render_micro(source) == item["output"].get<std::string>());
    } else {
      const std::string error = error_of(source);
      CHECK_THAT(error, Catch::Contains("template:1:"));
      const std::string expected = item["error"];
      // Where Go quotes the type interface {}, we know the value's own.
      if (expected.find("can't evaluate field") != std::string::npos) {
        CHECK_THAT(error, Catch::Contains("can't evaluate field X"));
      } else if (expected.find("unexpected EOF") != std::string::npos) {
        CHECK_THAT(error, Catch::Contains("unexpected end"));
      } else if (expected.find("undefined variable") != std::string::npos) {
        CHECK_THAT(error, Catch::Contains("undefined variable \"$undef\""));
      } else {
        CHECK_THAT(error, Catch::Contains(essence(expected)));
      }
    }
  }
}

TEST_CASE("Go templates render Ollama's own cases") {
  if (data_dir().empty()) {
    WARN("shared test data not found");
    return;
  }
  const Json cases = read_json(data_dir() / "execute_cases.json");
  for (const Json& item : cases["execute"]) {
    INFO(item["name"].get<std::string>());
    RenderInput input;
    input.messages = messages_of(item.value("messages", Json::array()));
    if (item.contains("prompt")) {
      Message prompt;
      prompt.role = "user";
      prompt.content = item["prompt"];
      input.messages.push_back(prompt);
    }
    input.suffix = item.value("suffix", "");
    const auto chat = parse_fixed_date(item["template"]);
    CHECK(chat->render(input) == item["expected"].get<std::string>());
  }
}

TEST_CASE("Go templates render the golden conversations") {
  if (data_dir().empty()) {
    WARN("shared test data not found");
    return;
  }
  const Json goldens = read_json(data_dir() / "golden_renders.json");
  int n_renders = 0;
  for (const auto& [file, renders] : goldens["renders"].items()) {
    const auto chat = parse_fixed_date(read_text(data_dir() / file));
    for (const Json& conversation : goldens["conversations"]) {
      const std::string name = conversation["name"];
      if (!renders.contains(name)) continue;
      INFO(file << " / " << name);
      RenderInput input;
      input.messages = messages_of(conversation["messages"]);
      if (conversation.contains("prompt")) {
        Message prompt;
        prompt.role = "user";
        prompt.content = conversation["prompt"];
        input.messages.push_back(prompt);
      }
      input.suffix = conversation.value("suffix", "");
      input.tools = conversation.value("tools", Json());
      if (conversation["is_think_set"].get<bool>()) {
        input.think = conversation["think"].get<bool>();
      }
      input.think_level = conversation["think_level"];
      const Json& expected = renders[name];
      ++n_renders;
      if (expected.is_string()) {
        CHECK(chat->render(input) == expected.get<std::string>());
      } else {
        CHECK_THROWS_WITH(chat->render(input), Catch::Contains(essence(expected["error"])));
      }
    }
  }
  CHECK(n_renders > 800);
}

TEST_CASE("Go templates render Ollama's tool cases") {
  if (data_dir().empty()) {
    WARN("shared test data not found");
    return;
  }
  const fs::path dir = data_dir() / "tools_testdata";
  RenderInput input;
  input.messages = messages_of(read_json(dir / "messages.json"));
  input.tools = read_json(dir / "tools.json");
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().extension() != ".gotmpl") continue;
    INFO(entry.path().filename().string());
    fs::path expected = entry.path();
    expected.replace_extension(".out");
    CHECK(parse_fixed_date(read_text(entry.path()))->render(input) == read_text(expected));
  }
}

TEST_CASE("The first user's template renders") {
  const auto chat = parse_fixed_date("<|User|>{{ .System }} {{ .Prompt }}<|Assistant|>");
  RenderInput input;
  input.messages = {{"system", "Be brief.", {}, {}, "", ""}, {"user", "hi", {}, {}, "", ""}};
  CHECK(chat->render(input) == "<|User|>Be brief. hi<|Assistant|>");
  input.messages.push_back({"assistant", "Hello.", {}, {}, "", ""});
  input.messages.push_back({"user", "bye", {}, {}, "", ""});
  CHECK(chat->render(input) == "<|User|>Be brief. hi<|Assistant|>Hello.<|User|> bye<|Assistant|>");
}

TEST_CASE("A Go template reveals its thinking tags, tools and suffix") {
  const auto chat = parse_fixed_date(
      "{{ range .Messages }}{{ if .Thinking }}<think>\n{{ .Thinking }}\n</think>\n{{ end }}"
      "{{ .Content }}{{ end }}{{ if .Tools }}{{ .Tools }}{{ end }}");
  CHECK(chat->capabilities().thinking);
  CHECK(chat->capabilities().think_open == "<think>");
  CHECK(chat->capabilities().think_close == "</think>");
  CHECK(chat->capabilities().tools);
  CHECK_FALSE(chat->capabilities().insert);
  CHECK(parse_fixed_date("{{ .Prompt }}{{ .Suffix }}")->capabilities().insert);
}

TEST_CASE("A Go template error names line and column") {
  CHECK_THAT(error_of("a\nb {{ .A "), Catch::Contains("template:2:3: unclosed action"));
  CHECK_THAT(error_of("a\n\n  {{ nofunc 1 }}"),
             Catch::Contains("template:3:6: function \"nofunc\" not defined"));
  CHECK_THROWS_WITH(parse_fixed_date("{{ define \"x\" }}{{ template \"x\" }}{{ end }}"
                                     "{{ template \"x\" }}"),
                    Catch::Contains("calls itself"));
  CHECK_THROWS_WITH(parse_fixed_date("{{ template \"y\" }}"),
                    Catch::Contains("undefined template"));
}

TEST_CASE("A damaged Go template gives an error, never a crash") {
  const std::string source =
      "{{- $x := 1 }}{{ range $i, $m := .Ms }}{{ if and (eq $m.Role \"user\") (gt $i 0) }}"
      "{{ printf \"%5.2f %q\" 1.5 `raw` }}{{ else if .L }}{{ index .L 0 }}{{ else }}{{ break }}"
      "{{ end }}{{ end }}{{/* c */}}{{ with .D }}{{ .x }}{{ end }}{{ 'a' }}{{ \"\\u00e9\" }}";
  for (size_t n = 0; n < source.size(); ++n) {
    const std::string ignored = error_of(source.substr(0, n));
    std::string damaged = source;
    for (const char c : {'{', '}', '"', '(', ')', '.', '$', '\0', '\xff'}) {
      damaged[n] = c;
      const std::string also_ignored = error_of(damaged);
    }
  }
  SUCCEED();
}

TEST_CASE("A Go template is bounded in depth, steps and output") {
  std::string deep;
  for (int i = 0; i < 100'000; ++i)
    deep += "{{ if .T }}";
  CHECK_THAT(error_of(deep), Catch::Contains("nested deeper"));
  CHECK_THAT(error_of("{{ " + std::string(100'000, '(') + " }}"), Catch::Contains("nested deeper"));
  std::string chain = "{{ if .F }}";
  for (int i = 0; i < 100'000; ++i)
    chain += "{{ else if .F }}";
  CHECK_THAT(error_of(chain + "{{ end }}"), Catch::Contains("nested deeper"));

  std::string loops = "x";
  for (int i = 0; i < 20; ++i)
    loops = "{{ range $.L }}" + loops + "{{ end }}";
  Limits limits;
  limits.max_steps = 100'000;
  CHECK_THROWS_WITH(render_micro(loops, limits), Catch::Contains("runs longer"));
  limits = {};
  limits.max_output_bytes = 1000;
  CHECK_THROWS_WITH(render_micro(loops, limits), Catch::Contains("writes more"));
  CHECK(render_micro("{{ printf \"%999999999d\" 1 }}").size() == 10'000);
}
