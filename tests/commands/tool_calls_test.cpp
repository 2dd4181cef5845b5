// Tools over both APIs with a scripted engine, and what grammars of forced calls let through.
#include "commands/tool_calls.h"

#include <nlohmann/json.hpp>
#include <random>

#include "engine/grammar/grammar.h"
#include "templates/tool_call_parser.h"
#include "tests/support/catch.h"
#include "tests/support/commands_server.h"

namespace dsctl {
namespace {

using nlohmann::json;
using tests::EngineScript;
using tests::HttpReply;
using tests::TestServer;

/// A template of the Hermes family, with thoughts.
constexpr const char* kTemplate =
    "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{\"name\": \"{{ c.function.name }}\", "
    "\"arguments\": {{ c.function.arguments | tojson }}}</tool_call>{{ c.id }}{% endfor %}"
    "{% if m.role == 'tool' %} ({{ m.name }}, {{ m.tool_call_id }}){% endif %}\n{% endfor %}"
    "{{ flavour or '' }}{% if enable_thinking %}<think>{% else %}say {% endif %}"
    "{% if 0 %}</think>{% endif %}";

constexpr const char* kCall =
    "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";

json weather_tool() {
  return json::parse(R"({"type": "function", "function": {"name": "get_weather",
      "description": "Weather", "parameters": {"type": "object",
      "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
      "required": ["city"]}}})");
}

json add_tool() {
  return json::parse(R"({"type": "function", "function": {"name": "add", "parameters":
      {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
       "required": ["a"]}}})");
}

/// A server with the model "caller", which answers with `answer`.
class ToolServer : public TestServer {
 public:
  explicit ToolServer(const std::string& answer) {
    source.digests["caller:latest"] = "d9";
    source.templates["caller:latest"] = kTemplate;
    script->set(
        [&](EngineScript& s) { s.answer = [answer](const std::string&) { return answer; }; });
  }
  HttpReply chat(const std::string& path, const json& more) {
    json body = {{"model", "caller"},
                 {"messages", {{{"role", "user"}, {"content", "Weather?"}}}},
                 {"tools", {weather_tool(), add_tool()}}};
    body.update(more);
    return post(path, body.dump());
  }
  json openai(const json& more = json::object()) {
    const HttpReply reply = chat("/v1/chat/completions", more);
    INFO(reply.body);
    REQUIRE(reply.status == 200);
    return json::parse(reply.body);
  }
  engine::Request last_request() {
    return script->get([](EngineScript& s) { return s.requests.back(); });
  }
  std::string last_prompt() {
    std::string text;
    for (const int32_t token : last_request().prompt_tokens) {
      if (token < 256) text += static_cast<char>(token);
    }
    return text;
  }
};

std::vector<json> sse(const std::string& body) {
  std::vector<json> events;
  for (size_t begin = 0, end = 0; (end = body.find("\n\n", begin)) != std::string::npos;
       begin = end + 2) {
    const std::string event = body.substr(begin, end - begin);
    if (event != "data: [DONE]") events.push_back(json::parse(event.substr(6)));
  }
  return events;
}

std::vector<json> ndjson(const std::string& body) {
  std::vector<json> lines;
  for (size_t begin = 0, end = 0; (end = body.find('\n', begin)) != std::string::npos;
       begin = end + 1)
    lines.push_back(json::parse(body.substr(begin, end - begin)));
  return lines;
}

std::string error_of(const HttpReply& reply) {
  CHECK(reply.status == 400);
  const json error = json::parse(reply.body).at("error");
  return error.is_string() ? error.get<std::string>() : error.at("message").get<std::string>();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("/v1/chat/completions answers with tool calls") {
  ToolServer server(std::string("hm</think>\n\nLet me look.\n") + kCall);
  const json reply = server.openai();
  const json& choice = reply.at("choices").at(0);
  CHECK(choice.at("finish_reason") == "tool_calls");
  const json& message = choice.at("message");
  CHECK(message.at("content") == "Let me look.");
  CHECK(message.at("reasoning") == "hm");
  REQUIRE(message.at("tool_calls").size() == 1);
  const json& call = message.at("tool_calls").at(0);
  CHECK(call.at("type") == "function");
  CHECK(call.at("id").get<std::string>().starts_with("call_"));
  CHECK(call.at("function").at("name") == "get_weather");
  CHECK(call.at("function").at("arguments") == R"({"city": "Paris"})");
  CHECK(contains(server.last_prompt(), "\"name\": \"get_weather\""));
  CHECK_FALSE(server.last_request().grammar);
}

TEST_CASE(
    "/v1/chat/completions has null content beside calls alone, and hides thoughts on request") {
  ToolServer server(std::string("hm</think>") + kCall + "\n" + kCall);
  const json message =
      server.openai({{"include_reasoning", false}}).at("choices").at(0).at("message");
  CHECK(message.at("content").is_null());
  CHECK_FALSE(message.contains("reasoning"));
  REQUIRE(message.at("tool_calls").size() == 2);
  CHECK(message.at("tool_calls").at(0).at("id") != message.at("tool_calls").at(1).at("id"));
}

TEST_CASE("/v1/chat/completions streams a call's name, then its arguments in pieces") {
  ToolServer server(std::string("</think>Look: ") + kCall);
  const HttpReply reply = server.chat("/v1/chat/completions", {{"stream", true}});
  REQUIRE(reply.status == 200);
  std::string content;
  std::string arguments;
  std::vector<json> parts;
  std::string reason;
  for (const json& event : sse(reply.body)) {
    const json& choice = event.at("choices").at(0);
    const json& delta = choice.at("delta");
    content += delta.value("content", "");
    for (const json& part : delta.value("tool_calls", json::array()))
      parts.push_back(part);
    if (!choice.at("finish_reason").is_null()) reason = choice.at("finish_reason");
  }
  CHECK(content == "Look:");
  CHECK(reason == "tool_calls");
  REQUIRE(parts.size() > 3);
  CHECK(parts[0].at("index") == 0);
  CHECK(parts[0].at("function").at("name") == "get_weather");
  CHECK(parts[0].at("function").at("arguments") == "");
  for (size_t i = 1; i < parts.size(); ++i) {
    CHECK(parts[i].at("index") == 0);
    CHECK_FALSE(parts[i].contains("id"));
    arguments += parts[i].at("function").at("arguments");
  }
  CHECK(arguments == R"({"city": "Paris"})");
}

TEST_CASE("A malformed call is content, and the answer ends with stop") {
  const std::string text =
      "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\"}}</tool_call>";
  ToolServer server("</think>" + text);
  const json choice = server.openai().at("choices").at(0);
  CHECK(choice.at("message").at("content") == text);
  CHECK_FALSE(choice.at("message").contains("tool_calls"));
  CHECK(choice.at("finish_reason") == "stop");
}

TEST_CASE("tool_choice none shows the model no tools and reads no calls") {
  ToolServer server(std::string("</think>") + kCall);
  const json choice = server.openai({{"tool_choice", "none"}}).at("choices").at(0);
  CHECK(choice.at("message").at("content") == kCall);
  CHECK_FALSE(contains(server.last_prompt(), "get_weather"));
}

TEST_CASE("parallel_tool_calls false ends the answer after one call") {
  ToolServer server(std::string("</think>") + kCall + kCall);
  const json choice = server.openai({{"parallel_tool_calls", false}}).at("choices").at(0);
  CHECK(choice.at("message").at("tool_calls").size() == 1);
  CHECK(choice.at("finish_reason") == "tool_calls");
  CHECK(tests::eventually(
      [&] { return server.script->get([](EngineScript& s) { return s.n_running == 0; }); }));
}

TEST_CASE("tool_choice required and named become grammars that begin after the thoughts") {
  ToolServer server(std::string("</think>") + kCall);
  server.openai({{"tool_choice", "required"}});
  auto grammar = server.last_request().grammar;
  REQUIRE(grammar);
  CHECK(grammar->kind == engine::GrammarSpec::Kind::kTagged);
  CHECK(grammar->triggers.empty());
  CHECK(grammar->start_after == "</think>");
  CHECK(json::parse(grammar->source).at("items").size() == 2);
  server.openai({{"tool_choice", {{"type", "function"}, {"function", {{"name", "add"}}}}},
                 {"chat_template_kwargs", {{"enable_thinking", false}}}});
  grammar = server.last_request().grammar;
  REQUIRE(grammar);
  CHECK(grammar->start_after.empty());
  const json source = json::parse(grammar->source);
  REQUIRE(source.at("items").size() == 1);
  CHECK(source.at("max_items") == 1);
  CHECK(contains(source.at("items").at(0).at("begin"), "add"));
}

TEST_CASE("A strict function alone asks for a grammar that waits for the marker") {
  ToolServer server("</think>fine");
  json strict = weather_tool();
  strict["function"]["strict"] = true;
  server.openai({{"tools", {strict, add_tool()}}});
  const auto grammar = server.last_request().grammar;
  REQUIRE(grammar);
  CHECK(grammar->triggers == std::vector<std::string>{"<tool_call>"});
  const json items = json::parse(grammar->source).at("items");
  CHECK(items.at(0).at("schema") == strict["function"]["parameters"]);
  CHECK(items.at(1).at("schema") == json({{"type", "object"}}));
}

TEST_CASE("Calls and results of a conversation reach the template") {
  ToolServer server("</think>fine");
  json call = {{"type", "function"},
               {"function", {{"name", "get_weather"}, {"arguments", R"({"city":"Paris"})"}}}};
  call["id"] = "call_abc";
  const json messages = {{{"role", "user"}, {"content", "q"}},
                         {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {call}}},
                         {{"role", "tool"}, {"content", "22C"}, {"tool_call_id", "call_abc"}}};
  server.openai({{"messages", messages}});
  CHECK(contains(server.last_prompt(),
                 "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}"
                 "</tool_call>call_abc"));
  CHECK(contains(server.last_prompt(), "tool: 22C (get_weather, call_abc)"));
  // Ollama's form: no ids, arguments as an object, the tool by its name.
  const json ollama = {
      {{"role", "user"}, {"content", "q"}},
      {{"role", "assistant"},
       {"tool_calls",
        {{{"function", {{"name", "get_weather"}, {"arguments", {{"city", "Paris"}}}}}}}}},
      {{"role", "tool"}, {"content", "22C"}, {"tool_name", "get_weather"}}};
  CHECK(server.chat("/api/chat", {{"messages", ollama}}).status == 200);
  CHECK(contains(server.last_prompt(), "tool: 22C (get_weather, call00000)"));
}

TEST_CASE("/api/chat answers with whole calls, streamed and not") {
  ToolServer server(std::string("hm</think>Look: ") + kCall + kCall);
  for (const bool stream : {false, true}) {
    const HttpReply reply = server.chat("/api/chat", {{"stream", stream}});
    REQUIRE(reply.status == 200);
    json calls = json::array();
    std::string content;
    const std::vector<json> lines = ndjson(reply.body + (stream ? "" : "\n"));
    for (const json& line : lines) {
      content += line.at("message").at("content").get<std::string>();
      for (const json& call : line.at("message").value("tool_calls", json::array()))
        calls.push_back(call.at("function"));
    }
    CHECK(content == "Look:");
    CHECK(lines.back().at("done_reason") == "stop");
    REQUIRE(calls.size() == 2);
    CHECK(calls[1] ==
          json({{"index", 1}, {"name", "get_weather"}, {"arguments", {{"city", "Paris"}}}}));
  }
}

TEST_CASE("A model whose template knows no tools refuses them in both APIs") {
  ToolServer server("x");
  CHECK(contains(error_of(server.chat("/v1/chat/completions", {{"model", "bytes"}})),
                 "does not support tools"));
  CHECK(contains(error_of(server.chat("/api/chat", {{"model", "bytes"}, {"stream", false}})),
                 "does not support tools"));
}

TEST_CASE("Wrong tool fields are refused by name") {
  ToolServer server("x");
  const auto refused = [&](const json& more) {
    return error_of(server.chat("/v1/chat/completions", more));
  };
  CHECK(contains(refused({{"tools", 1}}), "\"tools\""));
  CHECK(contains(refused({{"tools", {1}}}), "\"tools[0]\""));
  CHECK(contains(refused({{"tools", {{{"type", "web"}}}}}), "\"tools[0].type\""));
  CHECK(contains(refused({{"tools", {{{"type", "function"}}}}}), "\"tools[0].function\""));
  json tool = weather_tool();
  tool["function"]["name"] = "a \"b\"";
  CHECK(contains(refused({{"tools", {tool}}}), "\"tools[0].function.name\""));
  tool = weather_tool();
  tool["function"]["parameters"]["type"] = "string";
  CHECK(contains(refused({{"tools", {tool}}}), "\"tools[0].function.parameters.type\""));
  CHECK(contains(refused({{"tools", {weather_tool(), weather_tool()}}}), "a second tool"));
  CHECK(contains(refused({{"tool_choice", "sometimes"}}), "\"tool_choice\""));
  CHECK(contains(refused({{"tool_choice", 1}}), "\"tool_choice\""));
  CHECK(contains(refused({{"tool_choice", {{"type", "function"}, {"function", {{"name", "x"}}}}}}),
                 "not among"));
  CHECK(contains(refused({{"tools", json::array()}, {"tool_choice", "required"}}), "no \"tools\""));
  CHECK(contains(refused({{"parallel_tool_calls", "yes"}}), "\"parallel_tool_calls\""));
  const std::string both =
      refused({{"tool_choice", "required"}, {"response_format", {{"type", "json_object"}}}});
  CHECK(contains(both, "tool_choice"));
  CHECK(contains(both, "response_format"));
  CHECK(contains(refused({{"functions", json::array()}}), "\"tools\""));
  CHECK(contains(refused({{"function_call", "auto"}}), "\"tool_choice\""));
  CHECK(contains(refused({{"chat_template_kwargs", {{"messages", 1}}}}), "messages"));
  const json message = {{"role", "assistant"}, {"tool_calls", {{{"id", 1}}}}};
  CHECK(contains(refused({{"messages", {message}}}), "\"messages[0].tool_calls[0]."));
}

TEST_CASE("chat_template_kwargs reach the template") {
  ToolServer server("</think>fine");
  server.openai({{"chat_template_kwargs", {{"flavour", "sweet"}}}});
  CHECK(contains(server.last_prompt(), "sweet<think>"));
}

TEST_CASE("Whatever a forced grammar lets through is read as calls of the tools") {
  const std::vector<std::string> kSources = {"<tool_call>",
                                             "<|start_header_id|> \"parameters\": ",
                                             "[TOOL_CALLS][",
                                             "[TOOL_CALLS]name[ARGS]",
                                             "<｜tool▁calls▁begin｜> ```json",
                                             "<｜tool▁calls▁begin｜>",
                                             "tool_call <function= </function>",
                                             ">>>all",
                                             "Action: \"tool_name\"",
                                             "<|START_ACTION|>",
                                             "functools[",
                                             "<toolcall>",
                                             "<|tool_call|>"};
  const auto model = tests::byte_model("bytes");
  std::mt19937 random(7);
  for (const std::string& source : kSources) {
    INFO(source);
    const auto format = templates::find_tool_format(source);
    REQUIRE(format);
    commands::GenerationRequest request;
    request.tools = {weather_tool(), add_tool()};
    for (const bool named : {false, true}) {
      request.tool_choice = {.kind = named ? commands::ToolChoice::Kind::kNamed
                                           : commands::ToolChoice::Kind::kRequired,
                             .name = named ? "add" : ""};
      const auto spec = commands::tool_grammar(request, *format);
      REQUIRE(spec);
      engine::GrammarCache cache(*model->tokenizer);
      const auto grammar = cache.get(*spec);
      for (int round = 0; round < 5; ++round) {
        std::string text;
        engine::grammar::State state = grammar->start();
        engine::TokenMask mask;
        while (grammar->fill_mask(state, mask)) {
          std::vector<int32_t> allowed;
          for (int32_t token = 0; token < 256; ++token) {
            if (((mask[static_cast<size_t>(token) / 32] >> (token % 32)) & 1u) != 0) {
              allowed.push_back(token);
            }
          }
          if (allowed.empty() || (grammar->is_accepting(state) && random() % 3 == 0)) break;
          text += static_cast<char>(allowed[random() % allowed.size()]);
          state = grammar->next(state, text.substr(text.size() - 1));
        }
        INFO(text);
        REQUIRE(grammar->is_accepting(state));
        const auto reading = commands::read_tool_calls(request, *format);
        templates::ToolCallParser parser(reading.format, reading.names, reading.max_calls);
        auto pieces = parser.feed(text);
        for (auto& rest : parser.finish())
          pieces.push_back(rest);
        std::string arguments;
        for (const auto& piece : pieces) {
          CHECK(piece.content.empty());
          for (const auto& call : piece.calls) {
            if (!call.name.empty()) arguments.clear();
            arguments += call.arguments;
            CHECK(call.state != templates::ToolCallPiece::State::kBroken);
            if (call.state != templates::ToolCallPiece::State::kDone) continue;
            const json parsed = json::parse(arguments);
            CHECK((parsed.contains("a") || parsed.contains("city")));
          }
        }
        CHECK(parser.n_calls() >= 1);
      }
    }
  }
}

}  // namespace dsctl
