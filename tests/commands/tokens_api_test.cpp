#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/commands_server.h"

namespace dsctl {
namespace {

using nlohmann::json;
using tests::EngineScript;
using tests::HttpReply;
using tests::TestServer;

json answer(const HttpReply& reply) {
  INFO(reply.body);
  REQUIRE(reply.status == 200);
  return json::parse(reply.body);
}

TEST_CASE("/api/tokenize and /api/detokenize are each other's reverse, and load no weights") {
  TestServer server;
  const json tokens =
      answer(server.post("/api/tokenize", R"({"model":"bytes","text":"hi","with_pieces":true})"));
  CHECK(tokens.at("tokens") == json({104, 105}));
  CHECK(tokens.at("count") == 2);
  CHECK(tokens.at("pieces") == json({"h", "i"}));
  const json with_bos = answer(
      server.post("/api/tokenize", R"({"model":"bytes","content":"hi","add_special":true})"));
  CHECK(with_bos.at("tokens") == json({256, 104, 105}));
  CHECK_FALSE(with_bos.contains("pieces"));
  const json text =
      answer(server.post("/api/detokenize", R"({"model":"bytes","tokens":[256,104,105]})"));
  CHECK(text.at("text") == "<s>hi");
  const json plain = answer(server.post(
      "/api/detokenize", R"({"model":"bytes","tokens":[256,104,105],"skip_special_tokens":true})"));
  CHECK(plain.at("text") == "hi");
  CHECK(server.script->get([](EngineScript& s) { return s.n_engines; }) == 0);
}

TEST_CASE("/api/render gives the prompt of a chat or of a prompt") {
  TestServer server;
  const json chat = answer(server.post(
      "/api/render", R"({"model":"bytes","messages":[{"role":"user","content":"q"}]})"));
  CHECK(chat.at("prompt") == "user: q\n");
  CHECK(chat.at("count") == 9);
  const json prompt =
      answer(server.post("/api/render", R"({"model":"bytes","prompt":"q","system":"s"})"));
  CHECK(prompt.at("prompt") == "system: s\nuser: q\n");
}

TEST_CASE("vLLM's /tokenize takes a prompt or a conversation") {
  TestServer server;
  const json prompt = answer(
      server.post("/tokenize", R"({"model":"bytes","prompt":"hi","return_token_strs":true})"));
  CHECK(prompt.at("tokens") == json({256, 104, 105}));
  CHECK(prompt.at("count") == 3);
  CHECK(prompt.contains("max_model_len"));
  CHECK(prompt.at("token_strs") == json({"<s>", "h", "i"}));
  const json bare = answer(
      server.post("/tokenize", R"({"model":"bytes","prompt":"hi","add_special_tokens":false})"));
  CHECK(bare.at("tokens") == json({104, 105}));
  const json chat = answer(
      server.post("/tokenize", R"({"model":"bytes","messages":[{"role":"user","content":"q"}]})"));
  CHECK(chat.at("count") == 9);
  const json text = answer(server.post("/detokenize", R"({"model":"bytes","tokens":[104,105]})"));
  CHECK(text == json({{"prompt", "hi"}}));
}

TEST_CASE("Wrong tokenize requests are refused naming the field, in the form of their API") {
  TestServer server;
  const HttpReply missing = server.post("/api/tokenize", R"({"model":"bytes"})");
  CHECK(missing.status == 400);
  CHECK(json::parse(missing.body).at("error").get<std::string>().find("\"text\"") !=
        std::string::npos);
  const HttpReply two =
      server.post("/api/tokenize", R"({"model":"bytes","text":"a","prompt":"b"})");
  CHECK(two.status == 400);
  const HttpReply outside = server.post("/detokenize", R"({"model":"bytes","tokens":[9999]})");
  CHECK(outside.status == 400);
  CHECK(json::parse(outside.body).at("error").at("param") == "tokens");
  CHECK(server.post("/detokenize", R"({"model":"bytes","tokens":["x"]})").status == 400);
  CHECK(server.post("/detokenize", R"({"model":"bytes","tokens":[-1]})").status == 400);
  const HttpReply unknown = server.post("/tokenize", R"({"model":"nobody","prompt":"a"})");
  CHECK(unknown.status == 404);
  CHECK(json::parse(unknown.body).at("error").at("code") == "model_not_found");
  CHECK(server.post("/tokenize", R"({"model":"bytes","messages":[],"add_generation_prompt":false})")
            .status == 400);
}

}  // namespace
}  // namespace dsctl
