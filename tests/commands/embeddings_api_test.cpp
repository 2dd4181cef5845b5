#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "registry/sources/credentials.h"
#include "tests/support/catch.h"
#include "tests/support/commands_server.h"

namespace dsctl {
namespace {

using nlohmann::json;
using tests::EngineScript;
using tests::eventually;
using tests::HttpReply;
using tests::TestServer;

json answer(const HttpReply& reply) {
  INFO(reply.body);
  REQUIRE(reply.status == 200);
  return json::parse(reply.body);
}

// What the fake engine says of a text of `n` tokens, BOS included, that add up to `sum`.
std::vector<double> fake_vector(double n, double sum, bool normalized = true) {
  std::vector<double> vector{3.0, 4.0, n, sum};
  const double length = std::sqrt(9.0 + 16.0 + n * n + sum * sum);
  if (normalized) {
    for (double& value : vector)
      value /= length;
  }
  return vector;
}

void check_vector(const json& found, const std::vector<double>& expected) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    CHECK(found[i].get<double>() == Approx(expected[i]).epsilon(1e-6));
}

TEST_CASE("/api/embed gives a normalised vector for each text, in their order") {
  TestServer server;
  const json one = answer(server.post("/api/embed", R"({"model":"bytes","input":"hi"})"));
  CHECK(one.at("model") == "bytes");
  REQUIRE(one.at("embeddings").size() == 1);
  check_vector(one.at("embeddings")[0], fake_vector(3, 256 + 104 + 105));
  CHECK(one.at("prompt_eval_count") == 3);
  CHECK(one.at("total_duration").get<int64_t>() > 0);
  json many = {{"model", "bytes"}, {"input", json::array()}};
  // More than a job has in the engine at once.
  for (int i = 0; i < 200; ++i)
    many["input"].push_back(std::string(static_cast<size_t>(i % 7), 'a'));
  const json body = answer(server.post("/api/embed", many.dump()));
  REQUIRE(body.at("embeddings").size() == 200);
  for (size_t i = 0; i < 200; ++i) {
    const auto n = static_cast<double>(i % 7);
    check_vector(body.at("embeddings")[i], fake_vector(1 + n, 256 + 97 * n));
  }
  // The fake counts a text as running until a moment after its end was told.
  CHECK(server.script->get([](EngineScript& s) { return s.max_running; }) <= 2 * 64);
}

TEST_CASE("/api/embed goes on when the engine's queue is full") {
  TestServer server;
  server.script->set([](EngineScript& s) { s.max_queue = 3; });
  json many = {{"model", "bytes"}, {"input", json::array()}};
  for (int i = 0; i < 20; ++i)
    many["input"].push_back("x");
  CHECK(answer(server.post("/api/embed", many.dump())).at("embeddings").size() == 20);
}

TEST_CASE("/api/embed cuts dimensions before it normalises, and long texts unless told not to") {
  TestServer server;
  const json cut =
      answer(server.post("/api/embed", R"({"model":"bytes","input":["hi"],"dimensions":2})"));
  check_vector(cut.at("embeddings")[0], {0.6, 0.8});
  const std::string text(100, 'a');
  const std::string body = R"({"model":"bytes","input":")" + text + R"(","options":{"num_ctx":16})";
  const json truncated = answer(server.post("/api/embed", body + "}"));
  CHECK(truncated.at("prompt_eval_count") == 16);
  const HttpReply refused = server.post("/api/embed", body + R"(,"truncate":false})");
  CHECK(refused.status == 400);
  CHECK(refused.body.find("exceeds the context length") != std::string::npos);
}

TEST_CASE("/api/embed without input loads the model") {
  TestServer server;
  CHECK(answer(server.post("/api/embed", R"({"model":"bytes"})")).at("embeddings") ==
        json::array());
  CHECK(server.script->get([](EngineScript& s) { return s.n_engines; }) == 1);
}

TEST_CASE("/api/embeddings gives one vector as the model does") {
  TestServer server;
  const json body = answer(server.post("/api/embeddings", R"({"model":"bytes","prompt":"hi"})"));
  check_vector(body.at("embedding"), fake_vector(3, 465, false));
}

TEST_CASE("/v1/embeddings takes texts and tokens, and answers in floats or base64") {
  TestServer server;
  const json body =
      answer(server.post("/v1/embeddings", R"({"model":"bytes","input":["hi","h"]})"));
  CHECK(body.at("object") == "list");
  CHECK(body.at("model") == "bytes");
  CHECK(body.at("usage") == json({{"prompt_tokens", 5}, {"total_tokens", 5}}));
  CHECK(body.at("data")[1].at("object") == "embedding");
  CHECK(body.at("data")[1].at("index") == 1);
  check_vector(body.at("data")[1].at("embedding"), fake_vector(2, 360));
  const json tokens =
      answer(server.post("/v1/embeddings", R"({"model":"bytes","input":[104,105]})"));
  REQUIRE(tokens.at("data").size() == 1);
  check_vector(tokens.at("data")[0].at("embedding"), fake_vector(2, 209));
  const json lists = answer(server.post(
      "/v1/embeddings", R"({"model":"bytes","input":[[104],[105,1]],"encoding_format":"base64"})"));
  REQUIRE(lists.at("data").size() == 2);
  const auto bytes =
      registry::base64_decode(lists.at("data")[1].at("embedding").get<std::string>());
  REQUIRE(bytes);
  REQUIRE(bytes->size() == 4 * sizeof(float));
  float values[4];
  std::memcpy(values, bytes->data(), sizeof(values));
  check_vector(json(values), fake_vector(2, 106));
}

TEST_CASE("/v1/rerank sorts documents by their scores") {
  TestServer server;
  // The fake's score falls with the sum of the bytes.
  const json body = answer(server.post("/v1/rerank", R"({"model":"ranker","query":"q",
      "documents":["bbb",{"text":"a"},"cc"],"return_documents":true})"));
  REQUIRE(body.at("results").size() == 3);
  CHECK(body.at("results")[0].at("index") == 1);
  CHECK(body.at("results")[0].at("document").at("text") == "a");
  CHECK(body.at("results")[1].at("index") == 2);
  CHECK(body.at("results")[2].at("index") == 0);
  CHECK(body.at("results")[0].at("relevance_score").get<double>() >
        body.at("results")[1].at("relevance_score").get<double>());
  // BOS, query, EOS, document, EOS for each.
  CHECK(body.at("usage").at("prompt_tokens") == 3 * 4 + 6);
  const json best = answer(server.post(
      "/rerank", R"({"model":"ranker","query":"q","documents":["bbb","a"],"top_n":1})"));
  REQUIRE(best.at("results").size() == 1);
  CHECK(best.at("results")[0].at("index") == 1);
  CHECK_FALSE(best.at("results")[0].contains("document"));
}

TEST_CASE("A model that can't rank or embed says which one can") {
  TestServer server;
  const HttpReply rank =
      server.post("/v1/rerank", R"({"model":"bytes","query":"q","documents":["a"]})");
  CHECK(rank.status == 400);
  CHECK(rank.body.find("cls.output.weight") != std::string::npos);
  const HttpReply embed = server.post("/api/embed", R"({"model":"ranker","input":"q"})");
  CHECK(embed.status == 400);
  CHECK(embed.body.find("/v1/rerank") != std::string::npos);
}

TEST_CASE("Wrong embedding requests are refused naming the field, in the form of their API") {
  TestServer server;
  const auto [path, body, field] = GENERATE(table<std::string, std::string, std::string>({
      {"/api/embed", R"({"input":"x"})", "model"},
      {"/api/embed", R"({"model":"bytes","input":7})", "input"},
      {"/api/embed", R"({"model":"bytes","input":["a",7]})", "input"},
      {"/api/embed", R"({"model":"bytes","input":"a","truncate":"no"})", "truncate"},
      {"/api/embed", R"({"model":"bytes","input":"a","dimensions":99})", "dimensions"},
      {"/api/embed", R"({"model":"bytes","input":"a","options":{"bad":1}})", "bad"},
      {"/v1/embeddings", R"({"model":"bytes"})", "input"},
      {"/v1/embeddings", R"({"model":"bytes","input":[]})", "input"},
      {"/v1/embeddings", R"({"model":"bytes","input":[1,"a"]})", "input"},
      {"/v1/embeddings", R"({"model":"bytes","input":[[]]})", "input"},
      {"/v1/embeddings", R"({"model":"bytes","input":"a","encoding_format":"int8"})",
       "encoding_format"},
      {"/v1/embeddings", R"({"model":"bytes","input":"a","dimensions":5})", "dimensions"},
      {"/v1/rerank", R"({"model":"ranker","documents":["a"]})", "query"},
      {"/v1/rerank", R"({"model":"ranker","query":"q","documents":[]})", "documents"},
      {"/v1/rerank", R"({"model":"ranker","query":"q","documents":[7]})", "documents[0]"},
  }));
  CAPTURE(path, body);
  const HttpReply reply = server.post(path, body);
  CHECK(reply.status == 400);
  const json error = json::parse(reply.body).at("error");
  CHECK(error.is_string() == path.starts_with("/api"));
  CHECK(reply.body.find(field) != std::string::npos);
}

TEST_CASE("A failed engine and a client that leaves end an embedding job") {
  TestServer server;
  server.script->set([](EngineScript& s) { s.fail_with = "it broke"; });
  const HttpReply failed = server.post("/api/embed", R"({"model":"bytes","input":["a","b"]})");
  CHECK(failed.status == 500);
  CHECK(failed.body.find("it broke") != std::string::npos);
  server.script->set([](EngineScript& s) {
    s.fail_with.clear();
    s.allowed_tokens = 0;
  });
  {
    tests::RawClient client(server.port());
    const std::string body = R"({"model":"bytes","input":["a","b","c"]})";
    client.send("POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n\r\n" + body);
    CHECK(eventually(
        [&] { return server.script->get([](EngineScript& s) { return s.n_running; }) == 3; }));
  }
  CHECK(eventually(
      [&] { return server.script->get([](EngineScript& s) { return s.n_running; }) == 0; }));
}

}  // namespace
}  // namespace dsctl
