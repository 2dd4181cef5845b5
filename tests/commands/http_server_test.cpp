#include "commands/serve/http_server.h"

#include "tests/support/catch.h"
#include "tests/support/commands_server.h"

namespace dsctl {
namespace {

using namespace std::chrono_literals;
using commands::serve::HttpServerOptions;
using tests::EngineScript;
using tests::eventually;
using tests::fetch;
using tests::HttpReply;
using tests::RawClient;
using tests::TestServer;

const std::string kGet = "GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n";

TEST_CASE("HttpServer answers many requests on one connection") {
  TestServer server;
  RawClient client(server.port());
  for (int i = 0; i < 3; ++i) {
    client.received.clear();
    client.send(kGet);
    REQUIRE(client.read_until("\"version\""));
  }
}

TEST_CASE("HttpServer answers pipelined requests in order") {
  TestServer server;
  RawClient client(server.port());
  client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n" + kGet +
              "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  REQUIRE(client.read_to_end());
  const size_t version = client.received.find("\"version\"");
  const size_t running = client.received.find("Ollama is running");
  CHECK(version != std::string::npos);
  CHECK(running != std::string::npos);
  CHECK(version < running);
}

TEST_CASE("HttpServer answers HEAD without a body") {
  TestServer server;
  const HttpReply reply = fetch(server.port(), "HEAD", "/");
  CHECK(reply.status == 200);
  CHECK(reply.body.empty());
}

TEST_CASE("HttpServer says 404 and 405 in the form of the API") {
  TestServer server;
  const HttpReply unknown = server.get("/nowhere");
  CHECK(unknown.status == 404);
  CHECK(unknown.body.starts_with("{\"error\":\"path"));
  const HttpReply openai = server.get("/v1/nowhere");
  CHECK(openai.status == 404);
  CHECK(openai.body.find("\"type\":\"not_found_error\"") != std::string::npos);
  const HttpReply method = server.get("/api/chat");
  CHECK(method.status == 405);
  CHECK(method.has_header("Allow: POST"));
}

TEST_CASE("HttpServer refuses a body over the limit before and while it arrives") {
  TestServer server;
  RawClient announced(server.port());
  announced.send(
      "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
  REQUIRE(announced.read_to_end());
  CHECK(announced.received.starts_with("HTTP/1.1 413"));
  CHECK(announced.received.find("expected at most") != std::string::npos);

  RawClient chunked(server.port());
  chunked.send("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string piece = "100000\r\n" + std::string(0x100000, 'x') + "\r\n";
  for (int i = 0; i < 40; ++i)
    chunked.send(piece);
  REQUIRE(chunked.read_to_end());
  CHECK(chunked.received.starts_with("HTTP/1.1 413"));
}

TEST_CASE("HttpServer refuses a header over the limit") {
  TestServer server;
  RawClient client(server.port());
  client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX-Big: " + std::string(64 << 10, 'x') +
              "\r\n\r\n");
  REQUIRE(client.read_to_end());
  CHECK(client.received.starts_with("HTTP/1.1 431"));
}

TEST_CASE("HttpServer refuses what is no HTTP") {
  TestServer server;
  for (const char* text : {"\x16\x03\x01\x02\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
                           "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                           "GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n"}) {
    RawClient client(server.port());
    client.send(text);
    REQUIRE(client.read_to_end());
    CHECK(client.received.starts_with("HTTP/1.1 400"));
  }
}

TEST_CASE("HttpServer closes connections that send a request too slowly") {
  HttpServerOptions options;
  options.limits.header_timeout = 50ms;
  options.limits.body_timeout = 50ms;
  TestServer server(options);
  RawClient header(server.port());
  header.send("GET / HTTP/1.1\r\nHost: loc");
  REQUIRE(header.read_to_end());
  CHECK(header.received.starts_with("HTTP/1.1 408"));
  RawClient body(server.port());
  body.send("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"mod");
  REQUIRE(body.read_to_end());
  CHECK(body.received.starts_with("HTTP/1.1 408"));
  CHECK(eventually([&] { return server.server().n_connections() == 0; }));
}

TEST_CASE("HttpServer closes idle connections and refuses more than its limit") {
  HttpServerOptions options;
  options.limits.max_connections = 2;
  options.limits.idle_timeout = 300ms;
  TestServer server(options);
  RawClient first(server.port());
  RawClient second(server.port());
  REQUIRE(eventually([&] { return server.server().n_connections() == 2; }));
  RawClient third(server.port());
  REQUIRE(third.read_to_end());
  CHECK(third.received.starts_with("HTTP/1.1 503"));
  REQUIRE(first.read_to_end());  // by the idle timeout
  CHECK(eventually([&] { return server.server().n_connections() == 0; }));
}

TEST_CASE("HttpServer refuses foreign Host names on a loopback address") {
  TestServer server;
  for (const std::string host : {"attacker.example", "attacker.example:11434", "8.8.8.8"}) {
    RawClient client(server.port());
    client.send("GET /api/tags HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
    REQUIRE(client.read_to_end());
    CHECK(client.received.starts_with("HTTP/1.1 403"));
  }
  for (const std::string host :
       {"127.0.0.1:11434", "localhost", "[::1]:80", "192.168.1.5", "box.local", "a.localhost:1"}) {
    RawClient client(server.port());
    client.send("GET /api/version HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
    CHECK(client.read_until("\"version\""));
  }
}

TEST_CASE("HttpServer lets local origins and those it was told of read answers") {
  HttpServerOptions options;
  options.origins = {"https://*.example.org"};
  TestServer server(options);
  const auto with_origin = [&](const std::string& origin) {
    return fetch(server.port(), "GET", "/api/version", "", "Origin: " + origin + "\r\n");
  };
  CHECK(with_origin("http://localhost:3000")
            .has_header("Access-Control-Allow-Origin: http://localhost:3000"));
  CHECK(with_origin("https://chat.example.org").status == 200);
  CHECK(with_origin("https://example.com").status == 403);
  CHECK(with_origin("http://localhost.example.com").status == 403);
  const HttpReply preflight =
      fetch(server.port(), "OPTIONS", "/api/chat", "",
            "Origin: http://127.0.0.1:5173\r\nAccess-Control-Request-Headers: content-type\r\n");
  CHECK(preflight.status == 204);
  CHECK(preflight.has_header("Access-Control-Allow-Headers: content-type"));
}

TEST_CASE("HttpServer sends 100 Continue to who asks for it") {
  TestServer server;
  RawClient client(server.port());
  const std::string body = R"({"model":"nobody","messages":[{"role":"user","content":"x"}]})";
  client.send(
      "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: "
      "100-continue\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n");
  REQUIRE(client.read_until("100 Continue\r\n\r\n"));
  client.send(body);
  REQUIRE(client.read_until("HTTP/1.1 404"));
}

TEST_CASE("HttpServer streams to HTTP/1.0 clients without chunks") {
  TestServer server;
  RawClient client(server.port());
  const std::string body = R"({"model":"bytes","prompt":"x"})";
  client.send("POST /api/generate HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n\r\n" + body);
  REQUIRE(client.read_to_end());
  CHECK(client.received.starts_with("HTTP/1.0 200"));
  CHECK(client.received.find("chunked") == std::string::npos);
  CHECK(client.received.find("\"done\":true") != std::string::npos);
}

TEST_CASE("A client that vanishes while its answer streams frees its place") {
  TestServer server;
  server.script->set([](EngineScript& s) { s.allowed_tokens = 3; });
  {
    RawClient client(server.port());
    const std::string body = R"({"model":"bytes","prompt":"x"})";
    client.send("POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n\r\n" + body);
    REQUIRE(client.read_until("\"l\""));
  }
  CHECK(eventually([&] {
    return server.script->get(
        [](EngineScript& s) { return s.n_cancelled == 1 && s.n_running == 0; });
  }));
}

TEST_CASE("A client that vanishes while it waits for the first token frees its place") {
  TestServer server;
  server.script->set([](EngineScript& s) { s.allowed_tokens = 0; });
  RawClient client(server.port());
  const std::string body = R"({"model":"bytes","prompt":"x","stream":false})";
  client.send("POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  REQUIRE(eventually(
      [&] { return server.script->get([](EngineScript& s) { return s.n_running == 1; }); }));
  client.close();
  CHECK(eventually([&] {
    return server.script->get(
        [](EngineScript& s) { return s.n_cancelled == 1 && s.n_running == 0; });
  }));
}

TEST_CASE("A client that does not read cancels only itself") {
  HttpServerOptions options;
  options.limits.max_queued_bytes = 64 << 10;
  TestServer server(options);
  server.script->set([](EngineScript& s) {
    s.answer = [](const std::string& prompt) {
      return prompt.find("long") != std::string::npos ? std::string(200'000, 'a') : "short";
    };
  });
  RawClient slow(server.port(), 4096);
  const std::string body = R"({"model":"bytes","prompt":"long"})";
  slow.send("POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
            std::to_string(body.size()) + "\r\n\r\n" + body);
  REQUIRE(eventually(
      [&] { return server.script->get([](EngineScript& s) { return s.n_cancelled == 1; }); }));
  const HttpReply other =
      server.post("/api/generate", R"({"model":"bytes","prompt":"x","stream":false})");
  CHECK(other.status == 200);
  CHECK(other.body.find("\"response\":\"short\"") != std::string::npos);
}

TEST_CASE("HttpServer lets a request in progress finish when it stops") {
  TestServer server;
  server.script->set([](EngineScript& s) { s.allowed_tokens = 1; });
  RawClient client(server.port());
  const std::string body = R"({"model":"bytes","prompt":"x"})";
  client.send("POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  REQUIRE(client.read_until("\"H\""));
  std::thread stopper([&] { server.server().stop(10s); });
  server.script->set([](EngineScript& s) { s.allowed_tokens = INT64_MAX; });
  CHECK(client.read_to_end());
  stopper.join();
  CHECK(client.received.find("\"done\":true") != std::string::npos);
}

TEST_CASE("HttpServer cuts off what does not finish in time when it stops") {
  TestServer server;
  server.script->set([](EngineScript& s) { s.allowed_tokens = 1; });
  RawClient client(server.port());
  const std::string body = R"({"model":"bytes","prompt":"x"})";
  client.send("POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  REQUIRE(client.read_until("\"H\""));
  server.server().stop(20ms);
  CHECK(client.read_to_end());
  CHECK(client.received.find("\"done\":true") == std::string::npos);
  CHECK(eventually(
      [&] { return server.script->get([](EngineScript& s) { return s.n_cancelled == 1; }); }));
}

TEST_CASE("A port in use is an error that says so") {
  TestServer server;
  HttpServerOptions options;
  options.port = server.port();
  CHECK_THROWS_WITH(TestServer(options), Catch::Contains("another server runs there"));
}

}  // namespace
}  // namespace dsctl
