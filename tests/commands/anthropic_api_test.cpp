#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/commands_server.h"

namespace dsctl {
namespace {

using nlohmann::json;
using tests::EngineScript;
using tests::HttpReply;
using tests::TestServer;

struct SseEvent {
  std::string name;
  json data;
};

std::vector<SseEvent> events_of(const std::string& body) {
  std::vector<SseEvent> events;
  for (size_t begin = 0, end = 0; (end = body.find("\n\n", begin)) != std::string::npos;
       begin = end + 2) {
    const std::string event = body.substr(begin, end - begin);
    const size_t line = event.find("\ndata: ");
    REQUIRE(event.starts_with("event: "));
    REQUIRE(line != std::string::npos);
    events.push_back({event.substr(7, line - 7), json::parse(event.substr(line + 7))});
    CHECK(events.back().data.at("type") == events.back().name);
  }
  return events;
}

std::string request(const std::string& more, const std::string& model = "bytes") {
  return R"({"model":")" + model +
         R"(","max_tokens":64,"messages":[{"role":"user","content":"q"}])" + more + "}";
}

json answer(const HttpReply& reply) {
  INFO(reply.body);
  REQUIRE(reply.status == 200);
  return json::parse(reply.body);
}

std::string prompt_of(TestServer& server) {
  const auto requests = server.script->get([](EngineScript& s) { return s.requests; });
  REQUIRE_FALSE(requests.empty());
  std::string text;
  for (const int32_t token : requests.back().prompt_tokens) {
    if (token < 256) text += static_cast<char>(token);
  }
  return text;
}

TEST_CASE("/v1/messages answers with a message of one text block") {
  TestServer server;
  const json body = answer(server.post("/v1/messages", request("")));
  CHECK(body.at("type") == "message");
  CHECK(body.at("role") == "assistant");
  CHECK(body.at("model") == "bytes");
  CHECK(body.at("id").get<std::string>().starts_with("msg_"));
  CHECK(body.at("content") == json::array({{{"type", "text"}, {"text", "Hello, world!"}}}));
  CHECK(body.at("stop_reason") == "end_turn");
  CHECK(body.at("stop_sequence").is_null());
  CHECK(body.at("usage").at("input_tokens") == 9);
  CHECK(body.at("usage").at("output_tokens") == 13);
}

TEST_CASE("/v1/messages streams Anthropic's events in their order") {
  TestServer server;
  const HttpReply reply = server.post("/v1/messages", request(R"(,"stream":true)"));
  REQUIRE(reply.status == 200);
  CHECK(reply.has_header("Content-Type: text/event-stream; charset=utf-8"));
  const auto events = events_of(reply.body);
  REQUIRE(events.size() >= 7);
  CHECK(events[0].name == "message_start");
  CHECK(events[0].data.at("message").at("content") == json::array());
  CHECK(events[0].data.at("message").at("stop_reason").is_null());
  CHECK(events[0].data.at("message").at("usage").at("input_tokens") == 9);
  CHECK(events[1].name == "content_block_start");
  CHECK(events[1].data.at("content_block") == json({{"type", "text"}, {"text", ""}}));
  CHECK(events[2].name == "ping");
  std::string text;
  size_t i = 3;
  for (; i < events.size() && events[i].name == "content_block_delta"; ++i) {
    CHECK(events[i].data.at("index") == 0);
    CHECK(events[i].data.at("delta").at("type") == "text_delta");
    text += events[i].data.at("delta").at("text").get<std::string>();
  }
  CHECK(text == "Hello, world!");
  REQUIRE(events.size() == i + 3);
  CHECK(events[i].name == "content_block_stop");
  CHECK(events[i + 1].name == "message_delta");
  CHECK(events[i + 1].data.at("delta").at("stop_reason") == "end_turn");
  CHECK(events[i + 1].data.at("usage").at("output_tokens") == 13);
  CHECK(events[i + 2].name == "message_stop");
}

TEST_CASE("/v1/messages keeps thoughts in a block of their own") {
  TestServer server;
  server.script->set([](EngineScript& s) {
    s.answer = [](const std::string&) { return "<think>hm</think>yes"; };
  });
  const std::string thinking =
      R"(,"thinking":{"type":"enabled","budget_tokens":1024},"max_tokens":2048)";
  const std::string body = R"({"model":"thinker","messages":[{"role":"user","content":"q"}])";
  const json whole = answer(server.post("/v1/messages", body + thinking + "}"));
  REQUIRE(whole.at("content").size() == 2);
  CHECK(whole.at("content")[0] ==
        json({{"type", "thinking"}, {"thinking", "hm"}, {"signature", ""}}));
  CHECK(whole.at("content")[1] == json({{"type", "text"}, {"text", "yes"}}));
  const auto events =
      events_of(server.post("/v1/messages", body + thinking + R"(,"stream":true})").body);
  std::string order;
  for (const SseEvent& event : events) {
    if (event.name == "content_block_start") {
      order += event.data.at("content_block").at("type").get<std::string>() + " ";
    }
    if (event.name == "content_block_stop") {
      order += "stop" + event.data.at("index").dump() + " ";
    }
    if (event.data.contains("delta") &&
        event.data.at("delta").value("type", "") == "signature_delta")
      order += "signature ";
  }
  CHECK(order == "thinking signature stop0 text stop1 ");
  // A model that can't think is asked for it by clients that ask every model.
  CHECK(answer(server.post("/v1/messages",
                           R"({"model":"bytes","messages":[{"role":"user","content":"q"}])" +
                               thinking + "}"))
            .at("content")
            .size() == 1);
}

TEST_CASE("/v1/messages says which stop sequence or limit ended the answer") {
  TestServer server;
  const json stopped =
      answer(server.post("/v1/messages", request(R"(,"stop_sequences":["zzz",", "])")));
  CHECK(stopped.at("content")[0].at("text") == "Hello");
  CHECK(stopped.at("stop_reason") == "stop_sequence");
  CHECK(stopped.at("stop_sequence") == ", ");
  const json cut = answer(server.post(
      "/v1/messages",
      R"({"model":"bytes","max_tokens":5,"messages":[{"role":"user","content":"q"}]})"));
  CHECK(cut.at("content")[0].at("text") == "Hello");
  CHECK(cut.at("stop_reason") == "max_tokens");
  CHECK(cut.at("stop_sequence").is_null());
}

TEST_CASE("/v1/messages reads system, blocks and turns of one role") {
  TestServer server;
  answer(server.post("/v1/messages", R"({"model":"bytes","max_tokens":9,
    "system":[{"type":"text","text":"be "},{"type":"text","text":"brief",
               "cache_control":{"type":"ephemeral"}}],
    "metadata":{"user_id":"x"},
    "messages":[{"role":"user","content":[{"type":"text","text":"a"}]},
                {"role":"user","content":"b"},
                {"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},
                                               {"type":"text","text":"c"}]},
                {"role":"user","content":"d"}]})"));
  CHECK(prompt_of(server) == "system: be brief\nuser: a\n\nb\nassistant: c\nuser: d\n");
}

TEST_CASE("/v1/messages goes on with an answer that the client has begun") {
  TestServer server;
  answer(server.post("/v1/messages", R"({"model":"bytes","max_tokens":9,
    "messages":[{"role":"user","content":"q"},{"role":"assistant","content":"{\"a\":"}]})"));
  CHECK(prompt_of(server) == "user: q\n{\"a\":");
}

TEST_CASE("/v1/messages/count_tokens counts without loading weights") {
  TestServer server;
  const json body =
      answer(server.post("/v1/messages/count_tokens",
                         R"({"model":"bytes","messages":[{"role":"user","content":"q"}]})"));
  CHECK(body == json({{"input_tokens", 9}}));
  CHECK(server.script->get([](EngineScript& s) { return s.n_engines; }) == 0);
}

TEST_CASE("Wrong messages are refused in Anthropic's form, naming the field") {
  TestServer server;
  const auto [body, field] = GENERATE(table<std::string, std::string>({
      {R"({"model":"bytes","messages":[{"role":"user","content":"q"}]})", "max_tokens"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":"q"}]})", "model"},
      {R"({"model":"bytes","max_tokens":1})", "messages"},
      {R"({"model":"bytes","max_tokens":1,"messages":[]})", "messages"},
      {R"({"model":"bytes","max_tokens":1,"messages":[{"role":"system","content":"q"}]})",
       "messages[0].role"},
      {R"({"model":"bytes","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image"}]}]})",
       "messages[0].content[0].type"},
      {R"({"model":"bytes","max_tokens":1,"messages":[{"role":"user","content":7}]})",
       "messages[0].content"},
      {request(R"(,"tools":[{"name":"x"}])"), "tools[0].input_schema"},
      {request(R"(,"tools":[{"input_schema":{}}])"), "tools[0].name"},
      {request(R"(,"tools":[{"type":"web_search_20250305","name":"web_search"}])"),
       "tools[0].type"},
      {request(R"(,"tool_choice":{"type":"any"})"), "tool_choice"},
      {request(R"(,"tool_choice":{"type":"sometimes"})"), "tool_choice.type"},
      {request(R"(,"tools":[{"name":"x","input_schema":{}}],"tool_choice":{"type":"tool"})"),
       "tool_choice.name"},
      {R"({"model":"bytes","max_tokens":1,"messages":[{"role":"user","content":
          [{"type":"tool_result","tool_use_id":"t1","content":"1"}]}]})",
       "messages"},
      {R"({"model":"bytes","max_tokens":1,"messages":[{"role":"user","content":"q"},
          {"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"x"}]}]})",
       "messages[1].content[0].input"},
      {R"({"model":"bytes","max_tokens":1,"messages":[{"role":"user","content":"q"},
          {"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"x","input":{}}]}]})",
       "tool_result"},
      {request(R"(,"temperature":"hot")"), "temperature"},
      {request(R"(,"stop_sequences":[""])"), "stop_sequences"},
      {request(R"(,"thinking":{"type":"enabled"})"), "thinking.budget_tokens"},
      {request(R"(,"thinking":{"type":"enabled","budget_tokens":2000})"), "thinking.budget_tokens"},
      {request(R"(,"thinking":{"type":"much"})"), "thinking.type"},
      {request(R"(,"output_config":{"effort":"some"})"), "output_config.effort"},
  }));
  CAPTURE(body);
  const HttpReply reply = server.post("/v1/messages", body);
  CHECK(reply.status == 400);
  const json answered = json::parse(reply.body);
  CHECK(answered.at("type") == "error");
  CHECK(answered.at("error").at("type") == "invalid_request_error");
  CHECK(answered.at("error").at("message").get<std::string>().find(field) != std::string::npos);
}

constexpr const char* kToolTemplate =
    "{% for tool in tools or [] %}{{ tool.function.name }}: {{ tool.function.parameters | tojson "
    "}}\n"
    "{% endfor %}{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{\"name\": \"{{ c.function.name }}\", "
    "\"arguments\": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}"
    "{% if m.role == 'tool' %} (of {{ m.name }}){% endif %};{% endfor %}";

/// Adds the model "caller", which answers with `text`.
void add_caller(TestServer& server, const std::string& text) {
  server.source.digests["caller:latest"] = "d9";
  server.source.templates["caller:latest"] = kToolTemplate;
  server.script->set(
      [&](EngineScript& s) { s.answer = [text](const std::string&) { return text; }; });
}

std::string tool_request(const std::string& more) {
  return R"({"model":"caller","max_tokens":256,"messages":[{"role":"user","content":"q"}],
      "tools":[{"name":"add","description":"Adds","input_schema":{"type":"object",
      "properties":{"a":{"type":"integer"}},"required":["a"]}}])" +
         more + "}";
}

constexpr const char* kCall =
    "Let me add.<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 7}}</tool_call>";

TEST_CASE("/v1/messages answers with tool_use blocks") {
  TestServer server;
  add_caller(server, kCall);
  const json body = answer(server.post("/v1/messages", tool_request("")));
  const json& content = body.at("content");
  INFO(content);
  REQUIRE(content.size() == 2);
  CHECK(content[0] == json({{"type", "text"}, {"text", "Let me add."}}));
  CHECK(content[1].at("type") == "tool_use");
  CHECK(content[1].at("id").get<std::string>().starts_with("toolu_"));
  CHECK(content[1].at("name") == "add");
  CHECK(content[1].at("input") == json({{"a", 7}}));
  CHECK(body.at("stop_reason") == "tool_use");
  CHECK(prompt_of(server).starts_with("add: {\"type\": \"object\""));
}

TEST_CASE("/v1/messages streams a tool_use block with its input as JSON text") {
  TestServer server;
  add_caller(server, kCall);
  const auto events =
      events_of(server.post("/v1/messages", tool_request(R"(,"stream":true)")).body);
  std::string input;
  json start;
  for (const SseEvent& event : events) {
    if (event.name == "content_block_start") start = event.data;
    if (event.name != "content_block_delta") continue;
    const json& delta = event.data.at("delta");
    if (delta.at("type") == "input_json_delta") input += delta.at("partial_json");
  }
  CHECK(start.at("index") == 1);
  CHECK(start.at("content_block").at("type") == "tool_use");
  CHECK(start.at("content_block").at("input") == json::object());
  CHECK(json::parse(input) == json({{"a", 7}}));
  REQUIRE(events.size() > 2);
  CHECK(events[events.size() - 2].data.at("delta").at("stop_reason") == "tool_use");
}

TEST_CASE("What only looks like a call is text in /v1/messages") {
  TestServer server;
  const std::string text = "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": </tool_call>";
  add_caller(server, text);
  const json body = answer(server.post("/v1/messages", tool_request("")));
  CHECK(body.at("content") == json::array({{{"type", "text"}, {"text", text}}}));
  CHECK(body.at("stop_reason") == "end_turn");
}

TEST_CASE("Calls and results of a conversation in /v1/messages reach the template") {
  TestServer server;
  add_caller(server, "14.");
  answer(server.post("/v1/messages", R"({"model":"caller","max_tokens":64,"messages":[
      {"role":"user","content":"7 and 7?"},
      {"role":"assistant","content":[{"type":"text","text":"Wait."},
        {"type":"tool_use","id":"t1","name":"add","input":{"a":7}},
        {"type":"tool_use","id":"t2","name":"add","input":{"a":8}}]},
      {"role":"user","content":[{"type":"text","text":"Well?"},
        {"type":"tool_result","tool_use_id":"t2","content":"16"},
        {"type":"tool_result","tool_use_id":"t1",
         "content":[{"type":"text","text":"14"}],"is_error":false}]}]})"));
  CHECK(prompt_of(server) ==
        "user: 7 and 7?;"
        "assistant: Wait.<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 7}}</tool_call>"
        "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 8}}</tool_call>;"
        "tool: 16 (of add);"
        "tool: 14 (of add);"
        "user: Well?;");
}

TEST_CASE("tool_choice of /v1/messages becomes a grammar") {
  TestServer server;
  add_caller(server, kCall);
  const auto grammar_of = [&](const std::string& choice) {
    answer(server.post("/v1/messages", tool_request(R"(,"tool_choice":)" + choice)));
    return server.script->get(
        [](EngineScript& s) { return s.requests.back().grammar.has_value(); });
  };
  CHECK_FALSE(grammar_of(R"({"type":"auto"})"));
  CHECK(grammar_of(R"({"type":"any"})"));
  CHECK(grammar_of(R"({"type":"tool","name":"add","disable_parallel_tool_use":true})"));
  CHECK_FALSE(grammar_of(R"({"type":"none"})"));
}

TEST_CASE("An unknown model and a failure in a stream have Anthropic's form") {
  TestServer server;
  const HttpReply unknown = server.post("/v1/messages", request("", "nobody"));
  CHECK(unknown.status == 404);
  CHECK(json::parse(unknown.body).at("error").at("type") == "not_found_error");
  // A failure before the first text would be a plain 500.
  server.script->set([](EngineScript& s) { s.allowed_tokens = 2; });
  const std::string body = request(R"(,"stream":true)");
  tests::RawClient client(server.port());
  client.send(
      "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  REQUIRE(client.read_until("content_block_delta"));
  server.script->set([](EngineScript& s) {
    s.fail_with = "it broke";
    s.allowed_tokens = 3;
  });
  REQUIRE(client.read_to_end());
  const auto events = events_of(tests::parse_reply(client.received).body);
  REQUIRE_FALSE(events.empty());
  CHECK(events.back().name == "error");
  CHECK(events.back().data.at("error").at("type") == "api_error");
  CHECK(events.back().data.at("error").at("message") == "it broke");
}

}  // namespace
}  // namespace dsctl
