#include <nlohmann/json.hpp>
#include <thread>

#include "tests/support/catch.h"
#include "tests/support/commands_server.h"

namespace dsctl {
namespace {

using nlohmann::json;
using tests::EngineScript;
using tests::eventually;
using tests::HttpReply;
using tests::TestServer;

std::vector<json> lines_of(const std::string& body) {
  std::vector<json> lines;
  for (size_t begin = 0, end = 0; (end = body.find('\n', begin)) != std::string::npos;
       begin = end + 1)
    lines.push_back(json::parse(body.substr(begin, end - begin)));
  return lines;
}

std::vector<json> sse_of(const std::string& body) {
  std::vector<json> events;
  for (size_t begin = 0, end = 0; (end = body.find("\n\n", begin)) != std::string::npos;
       begin = end + 2) {
    const std::string event = body.substr(begin, end - begin);
    REQUIRE(event.starts_with("data: "));
    if (event != "data: [DONE]") events.push_back(json::parse(event.substr(6)));
  }
  CHECK(body.ends_with("data: [DONE]\n\n"));
  return events;
}

TEST_CASE("/api/generate streams lines and ends with counts and times") {
  TestServer server;
  const HttpReply reply = server.post("/api/generate", R"({"model":"bytes","prompt":"hi"})");
  REQUIRE(reply.status == 200);
  CHECK(reply.has_header("Content-Type: application/x-ndjson"));
  const auto lines = lines_of(reply.body);
  std::string text;
  for (const json& line : lines)
    text += line.at("response").get<std::string>();
  CHECK(text == "Hello, world!");
  const json& last = lines.back();
  CHECK(last.at("done") == true);
  CHECK(last.at("done_reason") == "stop");
  CHECK(last.at("model") == "bytes");
  CHECK(last.at("eval_count") == 13);
  CHECK(last.at("prompt_eval_count") == 10);  // BOS and "user: hi\n"
  CHECK(last.at("prompt_eval_duration") == 1'000'000);
  CHECK(last.at("eval_duration") == 2'000'000);
  CHECK(last.at("total_duration").get<int64_t>() > 0);
  CHECK(last.at("context").size() == 10 + 13);
  CHECK(lines.front().at("created_at").get<std::string>().size() == 30);
}

TEST_CASE("/api/generate continues from the context of the answer before") {
  TestServer server;
  const json first = json::parse(
      server.post("/api/generate", R"({"model":"bytes","prompt":"a","stream":false})").body);
  json second = {{"model", "bytes"}, {"prompt", "b"}, {"stream", false}};
  second["context"] = first.at("context");
  REQUIRE(server.post("/api/generate", second.dump()).status == 200);
  const auto tokens = server.script->get([](EngineScript& s) { return s.requests; });
  REQUIRE(tokens.size() == 2);
  CHECK(tokens[1].prompt_tokens.size() == first.at("context").size() + 8);
}

TEST_CASE("/api/chat answers with a message, whole or in pieces") {
  TestServer server;
  const std::string question =
      R"("model":"bytes","messages":[{"role":"system","content":"s"},{"role":"user","content":"q"}])";
  const json whole =
      json::parse(server.post("/api/chat", "{" + question + ",\"stream\":false}").body);
  CHECK(whole.at("message") == json({{"role", "assistant"}, {"content", "Hello, world!"}}));
  std::string text;
  for (const json& line : lines_of(server.post("/api/chat", "{" + question + "}").body))
    text += line.at("message").at("content").get<std::string>();
  CHECK(text == "Hello, world!");
}

TEST_CASE("Options reach the engine, the request's over the API's defaults") {
  TestServer server;
  server.post(
      "/api/generate",
      R"({"model":"bytes","prompt":"x","stream":false,"options":{"temperature":0.25,"top_k":7,
                  "seed":0,"num_predict":4,"repeat_penalty":1.5,"stop":["q"],"mirostat":2}})");
  server.post("/v1/chat/completions",
              R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"max_tokens":5,
                  "logit_bias":{"65":-100},"presence_penalty":0.5})");
  const auto requests = server.script->get([](EngineScript& s) { return s.requests; });
  REQUIRE(requests.size() == 2);
  CHECK(requests[0].sampling.temperature == 0.25f);
  CHECK(requests[0].sampling.top_k == 7);
  CHECK(requests[0].sampling.top_p == 0.9f);
  CHECK(requests[0].sampling.seed == 0u);
  CHECK(requests[0].sampling.repeat_penalty == 1.5f);
  CHECK(requests[0].sampling.mirostat == 2);
  CHECK(requests[0].max_tokens == 4);
  CHECK(requests[1].sampling.temperature == 1.0f);
  CHECK(requests[1].sampling.top_p == 1.0f);
  CHECK(requests[1].sampling.penalize_prompt == false);
  CHECK(requests[1].sampling.presence_penalty == 0.5f);
  CHECK(requests[1].sampling.logit_bias == std::vector<std::pair<int32_t, float>>{{65, -100.0f}});
  CHECK(requests[1].max_tokens == 5);
}

TEST_CASE("A stop string ends the answer before it and frees the place") {
  TestServer server;
  const json reply = json::parse(
      server
          .post("/api/generate",
                R"({"model":"bytes","prompt":"x","stream":false,"options":{"stop":["wor"]}})")
          .body);
  CHECK(reply.at("response") == "Hello, ");
  CHECK(reply.at("done_reason") == "stop");
  CHECK(reply.at("eval_count") == 10);
  CHECK(eventually(
      [&] { return server.script->get([](EngineScript& s) { return s.n_running == 0; }); }));
}

TEST_CASE("An answer cut by max_tokens says length in both APIs") {
  TestServer server;
  const json ollama = json::parse(
      server
          .post("/api/generate",
                R"({"model":"bytes","prompt":"x","stream":false,"options":{"num_predict":3}})")
          .body);
  CHECK(ollama.at("response") == "Hel");
  CHECK(ollama.at("done_reason") == "length");
  const json openai = json::parse(
      server.post("/v1/completions", R"({"model":"bytes","prompt":"x","max_tokens":3})").body);
  CHECK(openai.at("choices").at(0).at("text") == "Hel");
  CHECK(openai.at("choices").at(0).at("finish_reason") == "length");
}

TEST_CASE("Half a character is never sent") {
  TestServer server;
  server.script->set([](EngineScript& s) {
    s.answer = [](const std::string&) { return std::string("é中😀\xf0\x9f"); };
  });
  std::string text;
  for (const json& line :
       lines_of(server.post("/api/generate", R"({"model":"bytes","prompt":"x"})").body))
    text += line.at("response").get<std::string>();
  CHECK(text.starts_with("é中😀"));
  CHECK(text.ends_with("\xEF\xBF\xBD"));
}

TEST_CASE("Thoughts are told from the answer") {
  TestServer server;
  server.script->set([](EngineScript& s) {
    s.answer = [](const std::string&) { return std::string("<think>\nhm\n</think>\n\nyes"); };
  });
  const std::string question = R"("messages":[{"role":"user","content":"q"}],"stream":false)";
  const json chat =
      json::parse(server.post("/api/chat", R"({"model":"thinker",)" + question + "}").body);
  CHECK(chat.at("message").at("thinking") == "hm");
  CHECK(chat.at("message").at("content") == "yes");
  const json openai = json::parse(
      server.post("/v1/chat/completions", R"({"model":"thinker",)" + question + "}").body);
  CHECK(openai.at("choices").at(0).at("message").at("reasoning") == "hm");
  CHECK(openai.at("choices").at(0).at("message").at("reasoning_content") == "hm");
  CHECK(openai.at("choices").at(0).at("message").at("content") == "yes");
  const HttpReply refused =
      server.post("/api/chat", R"({"model":"bytes","think":true,)" + question + "}");
  CHECK(refused.status == 400);
  CHECK(refused.body.find("does not support thinking") != std::string::npos);
}

TEST_CASE("Log-probabilities come with their tokens in both APIs") {
  TestServer server;
  const json ollama = json::parse(
      server
          .post("/api/generate",
                R"({"model":"bytes","prompt":"x","stream":false,"logprobs":true,"top_logprobs":2})")
          .body);
  REQUIRE(ollama.at("logprobs").size() == 13);
  CHECK(ollama.at("logprobs").at(0).at("token") == "H");
  CHECK(ollama.at("logprobs").at(0).at("logprob") == -0.5);
  CHECK(ollama.at("logprobs").at(0).at("bytes") == json::array({72}));
  CHECK(ollama.at("logprobs").at(0).at("top_logprobs").size() == 2);
  const json chat = json::parse(
      server
          .post("/v1/chat/completions",
                R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"logprobs":true})")
          .body);
  CHECK(chat.at("choices").at(0).at("logprobs").at("content").size() == 13);
  const json text = json::parse(
      server
          .post("/v1/completions", R"({"model":"bytes","prompt":"x","max_tokens":4,"logprobs":1})")
          .body);
  const json& logprobs = text.at("choices").at(0).at("logprobs");
  CHECK(logprobs.at("tokens") == json::array({"H", "e", "l", "l"}));
  CHECK(logprobs.at("text_offset") == json::array({0, 1, 2, 3}));
  CHECK(logprobs.at("top_logprobs").at(0) == json({{"a", -1.0}}));
}

TEST_CASE("/v1/chat/completions streams events, usage and [DONE]") {
  TestServer server;
  const HttpReply reply = server.post(
      "/v1/chat/completions",
      R"({"model":"bytes","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],
          "stream":true,"stream_options":{"include_usage":true}})");
  REQUIRE(reply.status == 200);
  CHECK(reply.has_header("Content-Type: text/event-stream"));
  const auto events = sse_of(reply.body);
  CHECK(events.front().at("choices").at(0).at("delta").at("role") == "assistant");
  std::string text;
  std::string reason;
  for (const json& event : events) {
    CHECK(event.at("id") == events.front().at("id"));
    CHECK(event.at("object") == "chat.completion.chunk");
    if (event.at("choices").empty()) continue;
    const json& choice = event.at("choices").at(0);
    text += choice.at("delta").value("content", "");
    if (choice.at("finish_reason").is_string()) reason = choice.at("finish_reason");
  }
  CHECK(text == "Hello, world!");
  CHECK(reason == "stop");
  CHECK(events.back().at("usage").at("completion_tokens") == 13);
  CHECK(events.back().at("usage").at("prompt_tokens") == 10);
}

TEST_CASE("n answers come with their index and other seeds") {
  TestServer server;
  const json reply = json::parse(
      server
          .post("/v1/chat/completions",
                R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"n":3,"seed":10})")
          .body);
  REQUIRE(reply.at("choices").size() == 3);
  for (int i = 0; i < 3; ++i) {
    CHECK(reply.at("choices").at(i).at("index") == i);
    CHECK(reply.at("choices").at(i).at("message").at("content") == "Hello, world!");
  }
  CHECK(reply.at("usage").at("completion_tokens") == 39);
  const auto requests = server.script->get([](EngineScript& s) { return s.requests; });
  CHECK(requests.at(0).sampling.seed == 10u);
  CHECK(requests.at(2).sampling.seed == 12u);
}

TEST_CASE("/v1/completions is raw, may echo and takes token ids") {
  TestServer server;
  const json echo = json::parse(
      server.post("/v1/completions", R"({"model":"bytes","prompt":"say: ","echo":true})").body);
  CHECK(echo.at("choices").at(0).at("text") == "say: Hello, world!");
  CHECK(server.post("/v1/completions", R"({"model":"bytes","prompt":[104,105]})").status == 200);
  const auto requests = server.script->get([](EngineScript& s) { return s.requests; });
  CHECK(requests.at(0).prompt_tokens.size() == 6);
  CHECK(requests.at(1).prompt_tokens == std::vector<int32_t>{104, 105});
  CHECK(requests.at(1).max_tokens == 16);
}

struct Refusal {
  const char* path;
  const char* body;
  int status;
  const char* text;
};

TEST_CASE("Wrong requests are refused naming the field, in the API's form") {
  TestServer server;
  const Refusal refusals[] = {
      {"/api/chat", "", 400, "missing request body"},
      {"/api/chat", "{", 400, "column 2"},
      {"/api/chat", "[1]", 400, "request body: expected an object"},
      {"/api/chat", "{\"model\":\"\xff\"}", 400, "invalid JSON"},
      {"/api/chat", R"({"messages":[]})", 400, "\\\"model\\\" is missing"},
      {"/api/chat", R"({"model":7})", 400, "field \\\"model\\\": expected a string, found 7"},
      {"/api/chat", R"({"model":"nobody","messages":[{"role":"user","content":"x"}]})", 404,
       "model 'nobody' not found"},
      {"/api/chat", R"({"model":"bytes","messages":[{"role":"robot"}]})", 400, "messages[0].role"},
      {"/api/chat", R"({"model":"bytes","messages":[{"role":"user","content":3}]})", 400,
       "messages[0].content"},
      {"/api/chat", R"({"model":"bytes","messages":{},"stream":true})", 400, "messages"},
      {"/api/chat", R"({"model":"bytes","stream":"yes"})", 400, "stream"},
      {"/api/chat", R"({"model":"bytes","tools":[{"type":"function"}]})", 400, "tools[0].function"},
      {"/api/chat", R"({"model":"bytes","format":"xml"})", 400, "field \\\"format\\\""},
      {"/api/chat", R"({"model":"bytes","format":[1]})", 400, "field \\\"format\\\""},
      {"/api/chat", R"({"model":"bytes","messages":[{"role":"user","images":["AA"]}]})", 400,
       "not supported yet"},
      {"/api/chat", R"({"model":"bytes","think":"very"})", 400, "invalid think value"},
      {"/api/chat", R"({"model":"bytes","keep_alive":"300"})", 400, "keep_alive"},
      {"/api/chat", R"({"model":"bytes","top_logprobs":21})", 400,
       "top_logprobs must be between 0 and 20"},
      {"/api/generate", R"({"model":"bytes","prompt":"x","options":{"num_ctx":"big"}})", 400,
       "option \\\"num_ctx\\\" must be of type integer"},
      {"/api/generate", R"({"model":"bytes","prompt":"x","options":{"top_k":1.5}})", 400,
       "integer"},
      {"/api/generate", R"({"model":"bytes","prompt":"x","options":{"colour":1}})", 400, "colour"},
      {"/api/generate", R"({"model":"bytes","prompt":"x","options":[]})", 400, "options"},
      {"/api/generate", R"({"model":"bytes","prompt":"x","raw":true,"system":"s"})", 400,
       "raw mode does not support template, system, or context"},
      {"/api/generate", R"({"model":"bytes","prompt":"x","context":["a"]})", 400, "context"},
      {"/api/generate", R"({"model":"bytes","prompt":"x","suffix":"y"})", 400, "insert"},
      {"/v1/chat/completions", R"({"model":"bytes"})", 400, "\"param\":\"messages\""},
      {"/v1/chat/completions", R"({"model":"nobody","messages":[{"role":"user","content":"x"}]})",
       404, "\"code\":\"model_not_found\""},
      {"/v1/chat/completions",
       R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"temperature":3})", 400,
       "temperature"},
      {"/v1/chat/completions",
       R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"n":0})", 400,
       "\"param\":\"n\""},
      {"/v1/chat/completions",
       R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"logit_bias":{"a":1}})", 400,
       "logit_bias"},
      {"/v1/chat/completions",
       R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"top_logprobs":2})", 400,
       "top_logprobs"},
      {"/v1/chat/completions",
       R"({"model":"bytes","messages":[{"role":"user","content":[{"type":"image_url"}]}]})", 400,
       "messages[0].content[0].type"},
      {"/v1/chat/completions",
       R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"response_format":{"type":"xml"}})",
       400, "response_format.type"},
      {"/v1/chat/completions",
       R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema"}})",
       400, "response_format.json_schema"},
      {"/v1/chat/completions",
       R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"guided_regex":"a","grammar":"root ::= [a]"})",
       400, "give one of them"},
      {"/v1/chat/completions",
       R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"structured_outputs":{"choice":"a"}})",
       400, "structured_outputs.choice"},
      {"/v1/chat/completions",
       R"({"model":"bytes","messages":[{"role":"user","content":"x"}],"tools":[{}]})", 400,
       "tools"},
      {"/v1/completions", R"({"model":"bytes"})", 400, "prompt"},
      {"/v1/completions", R"({"model":"bytes","prompt":["a","b"]})", 400, "not supported yet"},
      {"/api/show", R"({"model":"nobody"})", 404, "not found"},
      {"/api/show", R"({"model":"a b"})", 400, "invalid model name"},
      {"/api/copy", R"({"source":"nobody","destination":"x"})", 404, "not found"},
      {"/api/create", R"({"model":"x"})", 400, "neither 'from' or 'files' was specified"},
      {"/api/create", R"({"model":"x","from":"nobody"})", 404, "not found"},
      {"/api/create", R"({"model":"x","files":{"a.gguf":"sha256:12"}})", 400, "files"},
  };
  for (const Refusal& refusal : refusals) {
    CAPTURE(refusal.path, refusal.body);
    const HttpReply reply = server.post(refusal.path, refusal.body);
    CHECK(reply.status == refusal.status);
    CHECK_THAT(reply.body, Catch::Contains(refusal.text));
    const json body = json::parse(reply.body);
    CHECK(body.at("error").is_object() == std::string(refusal.path).starts_with("/v1"));
  }
}

TEST_CASE("Nesting beyond reason is refused") {
  TestServer server;
  const HttpReply reply = server.post("/api/chat", std::string(100'000, '['));
  CHECK(reply.status == 400);
  CHECK(reply.body.find("nested deeper") != std::string::npos);
}

TEST_CASE("A full queue is 503 with Retry-After") {
  TestServer server;
  server.script->set([](EngineScript& s) { s.max_queue = 0; });
  const HttpReply reply = server.post("/api/generate", R"({"model":"bytes","prompt":"x"})");
  CHECK(reply.status == 503);
  CHECK(reply.has_header("Retry-After: 1"));
  CHECK(reply.body.find("maximum pending requests exceeded") != std::string::npos);
}

TEST_CASE("A failure in the middle of a stream is a line of it") {
  TestServer server;
  server.script->set([](EngineScript& s) { s.allowed_tokens = 2; });
  tests::RawClient client(server.port());
  const std::string body = R"({"model":"bytes","prompt":"x"})";
  client.send(
      "POST /api/generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  REQUIRE(client.read_until("\"e\""));
  server.script->set([](EngineScript& s) {
    s.fail_with = "the graphics card fell out";
    s.allowed_tokens = 3;
  });
  REQUIRE(client.read_to_end());
  CHECK(client.received.find("{\"error\":\"the graphics card fell out\"}\n") != std::string::npos);
}

TEST_CASE("Nothing to generate loads or unloads the model") {
  TestServer server;
  const json loaded = json::parse(server.post("/api/generate", R"({"model":"bytes"})").body);
  CHECK(loaded.at("done_reason") == "load");
  const json ps = json::parse(server.get("/api/ps").body);
  REQUIRE(ps.at("models").size() == 1);
  CHECK(ps.at("models").at(0).at("name") == "bytes:latest");
  CHECK(ps.at("models").at(0).at("size") == 1024);
  CHECK(ps.at("models").at(0).at("context_length") == 4096);
  const json unloaded = json::parse(
      server.post("/api/chat", R"({"model":"bytes","messages":[],"keep_alive":0})").body);
  CHECK(unloaded.at("done_reason") == "unload");
  CHECK(eventually([&] { return json::parse(server.get("/api/ps").body).at("models").empty(); }));
}

TEST_CASE("Thirty-two requests run at once and each gets its own answer") {
  TestServer server;
  server.script->set([](EngineScript& s) {
    s.allowed_tokens = 0;
    s.answer = [](const std::string& prompt) { return "you said " + prompt; };
  });
  std::vector<std::thread> threads;
  std::vector<std::string> answers(32);
  for (int i = 0; i < 32; ++i) {
    threads.emplace_back([&server, &answers, i] {
      const json body = {
          {"model", "bytes"}, {"prompt", "n" + std::to_string(i)}, {"stream", false}};
      answers[static_cast<size_t>(i)] =
          json::parse(server.post("/api/generate", body.dump()).body).at("response");
    });
  }
  CHECK(eventually(
      [&] { return server.script->get([](EngineScript& s) { return s.n_running == 32; }); }));
  server.script->set([](EngineScript& s) { s.allowed_tokens = INT64_MAX; });
  for (std::thread& thread : threads)
    thread.join();
  for (int i = 0; i < 32; ++i)
    CHECK(answers[static_cast<size_t>(i)] == "you said user: n" + std::to_string(i) + "\n");
}

TEST_CASE("A conversation too long loses its oldest turns or is refused") {
  TestServer server;
  json messages = json::array({{{"role", "system"}, {"content", "keep"}}});
  for (int i = 0; i < 50; ++i)
    messages.push_back({{"role", i % 2 ? "assistant" : "user"}, {"content", std::string(20, 'x')}});
  messages.push_back({{"role", "user"}, {"content", "last"}});
  json body = {{"model", "bytes"},
               {"messages", messages},
               {"stream", false},
               {"options", {{"num_ctx", 200}}}};
  const json reply = json::parse(server.post("/api/chat", body.dump()).body);
  CHECK(reply.at("truncated_messages").get<int>() > 0);
  const auto request = server.script->get([](EngineScript& s) { return s.requests.back(); });
  CHECK(request.prompt_tokens.size() < 200);
  CHECK(request.prompt_tokens.size() > 140);  // no more was dropped than needed
  std::string prompt;
  for (const int32_t token : request.prompt_tokens) {
    if (token < 256) prompt += static_cast<char>(token);
  }
  CHECK(prompt.starts_with("system: keep\n"));
  CHECK(prompt.ends_with("user: last\n"));
  body["truncate"] = false;
  const HttpReply refused = server.post("/api/chat", body.dump());
  CHECK(refused.status == 400);
  CHECK(refused.body.find("longer than the context length") != std::string::npos);
}

TEST_CASE("A blob is uploaded once, checked and known afterwards") {
  TestServer server;
  const std::string content = "some bytes that are a blob";
  const std::string digest = registry::Digest::of(content).to_string();
  const std::string path = "/api/blobs/" + digest;
  CHECK(tests::fetch(server.port(), "HEAD", path).status == 404);
  const HttpReply wrong = tests::fetch(server.port(), "POST", path, "other bytes");
  CHECK(wrong.status == 400);
  CHECK_THAT(wrong.body, Catch::Contains("digest mismatch"));
  CHECK(tests::fetch(server.port(), "HEAD", path).status == 404);
  CHECK(tests::fetch(server.port(), "POST", path, content).status == 201);
  CHECK(tests::fetch(server.port(), "HEAD", path).status == 200);
  CHECK(tests::fetch(server.port(), "POST", path, content).status == 200);
  CHECK(tests::fetch(server.port(), "POST", "/api/blobs/sha256:xyz", content).status == 400);
  CHECK(server.registry.blobs().read(registry::Digest::of(content), 100) == content);
}

TEST_CASE("Models that can't be loaded are a 500 with the reason") {
  TestServer server;
  server.source.load_error = "the file is damaged";
  const HttpReply reply = server.post("/api/generate", R"({"model":"bytes","prompt":"x"})");
  CHECK(reply.status == 500);
  CHECK(reply.body == R"({"error":"the file is damaged"})");
}

TEST_CASE("A dead engine is started again for the next request") {
  TestServer server;
  REQUIRE(server.post("/api/generate", R"({"model":"bytes","prompt":"x"})").status == 200);
  server.script->set([](EngineScript& s) { s.stopped = true; });
  const HttpReply dead = server.post("/api/generate", R"({"model":"bytes","prompt":"x"})");
  CHECK(dead.status == 500);
  server.script->set([](EngineScript& s) { s.stopped = false; });
  CHECK(server.post("/api/generate", R"({"model":"bytes","prompt":"x"})").status == 200);
}

}  // namespace
}  // namespace dsctl
