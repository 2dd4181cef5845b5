// HttpClient against a server that does what servers should not.
#include "registry/http.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <set>
#include <thread>

#include "registry/curl_transfer.h"
#include "registry/error.h"
#include "registry/http_headers.h"
#include "registry/request_target.h"
#include "registry/retry.h"
#include "tests/support/catch.h"
#include "tests/support/registry_http_server.h"

namespace dsctl::registry {
namespace {

using Catch::Contains;
using std::chrono::milliseconds;
using tests::HttpServer;
using tests::ServedReply;
using tests::ServedRequest;

HttpOptions quick() {
  HttpOptions options;
  options.first_retry_ms = 2;
  options.stall_timeout_ms = 20'000;  // a busy machine is no stall
  return options;
}

ServedReply reply_of(int status, std::vector<std::string> headers = {}, std::string body = "") {
  ServedReply reply;
  reply.status = status;
  reply.headers = std::move(headers);
  reply.body = std::move(body);
  return reply;
}

std::string failure_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("HttpClient sends what it is given and returns the answer") {
  HttpServer server([](const ServedRequest& request) {
    return reply_of(201, {"X-One: a", "X-One: b", "X-Path: " + request.path},
                    request.method + " " + request.query.at("q") + " " + request.header("x-my") +
                        " " + request.body);
  });
  HttpClient client(quick());
  HttpRequest request;
  request.method = "POST";
  request.url = server.url("/a%20b?q=1%262");
  request.headers = {"X-My: header"};
  request.body = "text";
  const HttpResponse response = client.send(request);
  CHECK(response.status == 201);
  CHECK(response.body == "POST 1&2 header text");
  CHECK(response.header("x-one") == "b");
  CHECK(response.header("x-path") == "/a b");
  CHECK(!response.header("x-other"));
  CHECK(response.headers.count("x-one") == 2);
  CHECK(server.requests().at(0).header("user-agent").starts_with("dsctl/"));
}

TEST_CASE("HttpClient keeps its connection between requests") {
  HttpServer server([](const ServedRequest&) { return reply_of(200, {}, "x"); });
  HttpClient client(quick());
  for (int i = 0; i < 5; ++i)
    CHECK(client.send({.url = server.url("/")}).body == "x");
  CHECK(server.n_connections() == 1);
}

TEST_CASE("HttpClient returns HEAD and error answers as they are") {
  HttpServer server([](const ServedRequest& request) {
    return request.method == "HEAD" ? reply_of(200, {"X-Linked-Size: 7"}, "not sent")
                                    : reply_of(404, {"X-Error-Code: RepoNotFound"}, "no");
  });
  HttpClient client(quick());
  const HttpResponse head = client.send({.method = "HEAD", .url = server.url("/")});
  CHECK(head.header("x-linked-size") == "7");
  CHECK(head.body.empty());
  const HttpResponse missing = client.send({.url = server.url("/")});
  CHECK(missing.status == 404);
  CHECK(missing.body == "no");
  CHECK(server.n_requests() == 2);
}

TEST_CASE("HttpClient asks for a range and cuts an answer that is longer") {
  const auto content = tests::random_content(300'000, 1);
  HttpServer server([&](const ServedRequest& request) {
    ServedRequest asked = request;
    if (request.path == "/whole") asked.headers.erase("range");
    return tests::serve_content(asked, content);
  });
  HttpClient client(quick());
  HttpRequest request;
  request.range = {100, 199};
  request.max_body_bytes = 100;
  request.url = server.url("/ranged");
  CHECK(client.send(request).body == content->substr(100, 100));
  request.url = server.url("/whole");
  const HttpResponse whole = client.send(request);
  CHECK(whole.status == 200);
  CHECK(whole.body == content->substr(0, 100));
}

TEST_CASE("HttpClient refuses an answer longer than it may be") {
  HttpServer server([](const ServedRequest&) { return reply_of(200, {}, std::string(2000, 'x')); });
  HttpClient client(quick());
  HttpRequest request{.url = server.url("/long?secret")};
  request.max_body_bytes = 1000;
  const std::string failure = failure_of([&] { client.send(request); });
  CHECK_THAT(failure, Contains("more than 1000 bytes"));
  CHECK_THAT(failure, !Contains("secret"));
}

TEST_CASE("HttpClient follows redirects and leaves secrets at home") {
  HttpServer other([](const ServedRequest&) { return reply_of(200, {}, "there"); });
  HttpServer server([&](const ServedRequest& request) {
    if (request.path == "/same") return reply_of(307, {"Location: b/../last"});
    if (request.path == "/last") return reply_of(200, {}, "here");
    return reply_of(302, {"Location: " + other.url("/cdn?sig=1")});
  });
  HttpClient client(quick());
  HttpRequest request;
  request.headers = {"Authorization: Bearer secret", "cookie: id=1", "X-Token: t", "Accept: a/b"};
  request.url = server.url("/same");
  CHECK(client.send(request).body == "here");
  CHECK(server.requests().at(1).header("authorization") == "Bearer secret");

  request.url = server.url("/far");
  const HttpResponse response = client.send(request);
  CHECK(response.body == "there");
  CHECK(response.url == other.url("/cdn?sig=1"));
  const ServedRequest asked = other.requests().at(0);
  CHECK(asked.headers.count("authorization") == 0);
  CHECK(asked.headers.count("cookie") == 0);
  CHECK(asked.headers.count("x-token") == 0);
  CHECK(asked.header("accept") == "a/b");

  request.max_redirects = 0;
  const HttpResponse unfollowed = client.send(request);
  CHECK(unfollowed.status == 302);
  CHECK(unfollowed.header("location") == other.url("/cdn?sig=1"));
}

TEST_CASE("HttpClient keeps a URL's password within its origin") {
  HttpServer other([](const ServedRequest&) { return reply_of(200); });
  HttpServer server([&](const ServedRequest& request) {
    return request.path == "/1" ? reply_of(302, {"Location: /2"})
                                : reply_of(302, {"Location: http://evil:pw@127.0.0.1:" +
                                                 std::to_string(other.port()) + "/"});
  });
  HttpClient client(quick());
  const std::string port = std::to_string(server.port());
  client.send({.url = "http://me:secret@127.0.0.1:" + port + "/1"});
  CHECK(server.requests().at(0).header("authorization") == "Basic bWU6c2VjcmV0");
  CHECK(server.requests().at(1).header("authorization") == "Basic bWU6c2VjcmV0");
  CHECK(other.requests().at(0).headers.count("authorization") == 0);
}

TEST_CASE("HttpClient turns a redirected POST into a GET, but not after 307") {
  HttpServer server([&](const ServedRequest& request) {
    if (request.path == "/303") return reply_of(303, {"Location: /end"});
    if (request.path == "/307") return reply_of(307, {"Location: /end"});
    return reply_of(200, {}, request.method + request.body);
  });
  HttpClient client(quick());
  CHECK(client.send({.method = "POST", .url = server.url("/303"), .body = "b"}).body == "GET");
  CHECK(client.send({.method = "POST", .url = server.url("/307"), .body = "b"}).body == "POSTb");
}

TEST_CASE("HttpClient refuses redirects that lead astray") {
  std::string location;
  HttpServer server([&](const ServedRequest&) { return reply_of(302, {"Location: " + location}); });
  HttpClient client(quick());
  const auto failure = [&](const std::string& to) {
    location = to;
    return failure_of([&] { client.send({.url = server.url("/start?token=secret")}); });
  };
  CHECK_THAT(failure("file:///etc/passwd"), Contains("file:///etc/passwd: refused"));
  CHECK_THAT(failure("ftp://example.com/"), Contains("refused"));
  CHECK_THAT(failure("gopher://example.com/"), Contains("refused"));
  CHECK_THAT(failure("data:text/plain,x"), Contains("refused"));
  CHECK_THAT(failure("/start?token=secret"), Contains("more than 10 redirects"));
  CHECK_THAT(failure("/start?token=secret"), !Contains("secret"));
  CHECK(server.n_requests() == 4 + 11 + 11);
}

TEST_CASE("A redirect from a public host never leads into a private network or out of TLS") {
  const RequestTarget target = RequestTarget::of("https://hub.example/a?x", {});
  for (const std::string to :
       {"https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/",
        "https://localhost/", "https://api.localhost./", "https://10.1.2.3/", "https://172.31.0.1/",
        "https://192.168.0.1/", "https://169.254.169.254/latest/meta-data", "https://0.0.0.0/",
        "https://[::1]/", "https://[fe80::1]/", "https://[fd00::1]/", "https://[::ffff:10.0.0.1]/",
        "https://100.64.0.1/", "https://224.0.0.1/", "https://me@127.0.0.1/"}) {
    INFO(to);
    CHECK_THROWS_WITH(target.redirected(to, true), Contains("private network"));
    CHECK_NOTHROW(target.redirected(to, false));
  }
  for (const std::string to : {"https://1.1.1.1/", "https://cdn.example/", "/b", "//x.example/c",
                               "https://172.32.0.1/", "https://[2606:4700::1]/"}) {
    INFO(to);
    CHECK(target.redirected(to, true).refuses_private_peer);
  }
  CHECK_THROWS_WITH(target.redirected("http://hub.example/", false), Contains("encrypted"));
}

TEST_CASE("A public host's redirect is refused by the address its target turns out to have") {
  // The name may be innocent; only the connection shows where it leads.
  HttpServer server([&](const ServedRequest&) { return reply_of(200); });
  RequestTarget target = RequestTarget::of(server.url("/"), {});
  CurlTransfer transfer(quick());
  CurlSet set;
  for (const bool refuses : {false, true}) {
    target.refuses_private_peer = refuses;
    transfer.prepare(target, {}, nullptr);
    set.add(transfer, nullptr);
    std::optional<CurlSet::Done> done;
    while (!(done = set.next_done())) {
      set.wait(100);
      set.perform();
    }
    set.remove(transfer);
    CHECK((done->code == CURLE_OK) == !refuses);
    CHECK(transfer.is_hopeless(done->code) == refuses);
    if (refuses) CHECK_THAT(transfer.describe(done->code), Contains("private address 127.0.0.1"));
  }
  CHECK(server.n_requests() == 1);
}

/// A variable of the environment, as long as it lives.
struct Environment {
  Environment(const char* variable, const std::string& value) : name(variable) {
    ::setenv(name, value.c_str(), 1);
  }
  ~Environment() { ::unsetenv(name); }
  const char* name;
};

TEST_CASE("HttpClient goes through the environment's proxy, and judges redirects by name there") {
  std::string location = "http://cdn.example/b";
  HttpServer proxy([&](const ServedRequest& request) {
    return request.path == "http://hub.example/a" ? reply_of(302, {"Location: " + location})
                                                  : reply_of(200, {}, request.path);
  });
  const Environment environment("http_proxy", proxy.url(""));
  HttpClient client(quick());
  // The proxy lies on loopback, the hosts behind it do not.
  CHECK(client.send({.url = "http://hub.example/a"}).body == "http://cdn.example/b");
  location = "http://10.0.0.1/admin";
  CHECK_THROWS_WITH(client.send({.url = "http://hub.example/a"}), Contains("private network"));
}

TEST_CASE("HttpClient speaks http and https only") {
  HttpClient client(quick());
  for (const std::string url : {"file:///etc/passwd", "ftp://a/", "", "a/b", "http://", "x:y"}) {
    INFO(url);
    CHECK_THROWS_AS(client.send({.url = url}), Error);
  }
  CHECK_THROWS_WITH(client.send({.url = "http://a/" + std::string(20'000, 'x')}),
                    Contains("16384"));
  CHECK_THROWS_WITH(client.send({.url = "http://127.0.0.1:1/", .headers = {"A: secret\r\nB: c"}}),
                    Contains("on one line") && !Contains("secret"));
}

TEST_CASE("HttpClient tries again what may pass") {
  std::atomic<int> n{0};
  std::atomic<int> mode{0};
  HttpServer server([&](const ServedRequest&) {
    const int count = n++;
    ServedReply reply = reply_of(200, {}, "0123456789");
    if (count >= 3) return reply;
    if (mode == 0) return reply_of(count == 0 ? 429 : count == 1 ? 503 : 408);
    if (mode == 1) reply.cut_after = count * 3;
    if (mode == 2) reply.stall_after = count * 3;
    return reply;
  });
  for (mode = 0; mode < 3; ++mode) {
    n = 0;
    INFO(mode);
    HttpOptions options = quick();
    if (mode == 2) options.stall_timeout_ms = 200;
    std::vector<std::string> told;
    options.on_retry = [&](const std::string& what) { told.push_back(what); };
    HttpClient client(options);
    CHECK(client.send({.url = server.url("/x?secret")}).body == "0123456789");
    // Where time decides, a busy machine may need another try.
    CHECK((mode == 2 ? n >= 4 : n == 4));
    CHECK(static_cast<int>(told.size()) == n - 1);
    for (const std::string& what : told)
      CHECK_THAT(what, !Contains("secret"));
  }
}

TEST_CASE("HttpClient tries again what failed before there was a connection") {
  HttpServer server([](const ServedRequest&) { return reply_of(200, {}, "here"); });
  HttpOptions options = quick();
  options.connect_timeout_ms = 2000;
  std::vector<std::string> told;
  options.on_retry = [&](const std::string& what) { told.push_back(what); };
  HttpClient client(options);
  HttpRequest request{.url = "http://nowhere.invalid/"};
  request.retries = 2;
  CHECK_THROWS_WITH(client.send(request), Contains("nowhere.invalid") && !Contains("option"));
  CHECK(told.size() == 2);
  CHECK(client.send({.url = server.url("/")}).body == "here");
}

TEST_CASE("HttpClient gives up with the last answer, and does not repeat what can't pass") {
  std::atomic<int> status{500};
  HttpServer server([&](const ServedRequest&) { return reply_of(status); });
  HttpClient client(quick());
  HttpRequest request{.url = server.url("/")};
  request.retries = 2;
  CHECK(client.send(request).status == 500);
  CHECK(server.n_requests() == 3);
  for (const int once : {400, 401, 403, 404, 410, 416, 501, 507, 509}) {
    status = once;
    const size_t before = server.n_requests();
    CHECK(client.send(request).status == once);
    CHECK(server.n_requests() == before + 1);
  }
}

TEST_CASE("HttpClient waits as Retry-After says, within a bound") {
  std::atomic<int> n{0};
  std::string header = "Retry-After: 1";
  HttpServer server(
      [&](const ServedRequest&) { return n++ % 2 == 0 ? reply_of(429, {header}) : reply_of(200); });
  std::vector<std::string> told;
  HttpOptions options = quick();
  options.on_retry = [&](const std::string& what) { told.push_back(what); };
  HttpClient client(options);
  const auto begin = std::chrono::steady_clock::now();
  CHECK(client.send({.url = server.url("/")}).status == 200);
  CHECK(std::chrono::steady_clock::now() - begin >= milliseconds(1000));
  CHECK(told.size() == 1);
  header = "Retry-After: 100000";  // longer than anyone waits: the caller shall say so
  CHECK(client.send({.url = server.url("/")}).status == 429);
}

TEST_CASE("HttpClient ends a wait at once when stopped") {
  HttpServer server([&](const ServedRequest& request) {
    if (request.path == "/later") return reply_of(503, {"Retry-After: 60"});
    ServedReply reply = reply_of(200, {}, "x");
    reply.stall_after = 0;
    return reply;
  });
  HttpOptions options = quick();
  options.stall_timeout_ms = 60'000;
  HttpClient client(options);
  for (const std::string path : {"/later", "/stall"}) {
    std::stop_source stop;
    const size_t before = server.n_requests();
    std::thread stopper([&] {
      while (server.n_requests() == before)
        std::this_thread::sleep_for(milliseconds(1));
      stop.request_stop();
    });
    CHECK_THROWS_WITH(client.send({.url = server.url(path)}, stop.get_token()),
                      Contains("stopped"));
    stopper.join();
  }
}

TEST_CASE("HttpClient bounds headers") {
  bool many = false;
  HttpServer server([&](const ServedRequest&) {
    std::vector<std::string> headers;
    if (many) headers.assign(600, "X-Many: 1");
    if (!many) headers.assign(3, "X-Long: " + std::string(60'000, 'x'));
    return reply_of(200, headers);
  });
  HttpClient client(quick());
  CHECK_THROWS_WITH(client.send({.url = server.url("/")}), Contains("headers of more than"));
  many = true;
  CHECK_THROWS_WITH(client.send({.url = server.url("/")}), Contains("headers of more than"));
  CHECK(server.n_requests() == 2);
}

TEST_CASE("HttpClient says what it could not reach, without secrets") {
  HttpOptions options = quick();
  HttpClient client(options);
  const std::string failure =
      failure_of([&] { client.send({.url = "http://user:password@127.0.0.1:1/a?token=t"}); });
  CHECK_THAT(failure, Contains("http://127.0.0.1:1/a: "));
  CHECK_THAT(failure, !Contains("password") && !Contains("token"));
}

TEST_CASE("URLs are shown without what is secret in them") {
  CHECK(printable_url("https://u:p@h.example:8/a/b?sig=1#f") == "https://h.example:8/a/b");
  CHECK(printable_url("https://u:p/x@y@h/a") == "https://u:p/x@y@h/a");  // no user info: a path
  CHECK(printable_url("https://h/a@b") == "https://h/a@b");
  CHECK(printable_url("x\n\x1b[2J") == "x??[2J");
}

TEST_CASE("Percent-encoding leaves unreserved characters alone") {
  CHECK(percent_encode("a-b_c.d~e") == "a-b_c.d~e");
  CHECK(percent_encode("a/b c+\xe6\x9c\xa8") == "a%2Fb%20c%2B%E6%9C%A8");
  CHECK(percent_encode("a/b", "/") == "a/b");
}

TEST_CASE("References resolve as RFC 3986 says") {
  const std::string base = "http://a/b/c/d;p?q";
  const std::vector<std::pair<std::string, std::string>> cases{
      {"g", "http://a/b/c/g"},      {"./g", "http://a/b/c/g"},    {"/g", "http://a/g"},
      {"//g/", "http://g/"},        {"g?y", "http://a/b/c/g?y"},  {"../g", "http://a/b/g"},
      {"../../../g", "http://a/g"}, {"http://x/y", "http://x/y"}, {"/a b", "http://a/a%20b"},
      {"?y", "http://a/b/c/d;p?y"},
  };
  for (const auto& [reference, expected] : cases) {
    INFO(reference);
    CHECK(resolve_url(base, reference) == expected);
  }
}

TEST_CASE("Content-Range is taken only where it makes sense") {
  const auto range = parse_content_range("bytes 10-19/100");
  REQUIRE(range);
  CHECK(range->begin == 10);
  CHECK(range->end == 20);
  CHECK(range->total == 100);
  CHECK(parse_content_range("bytes 0-0/*")->total == -1);
  CHECK(parse_content_range("bytes */7")->begin == -1);
  CHECK(parse_content_range("bytes */7")->total == 7);
  for (const std::string broken :
       {"", "bytes", "bytes 1-0/5", "bytes 0-5/5", "bytes -1-2/5", "bytes 0-1", "lines 0-1/5",
        "bytes 0-9223372036854775807/*", "bytes 0-1/99999999999999999999", "bytes 0-1/5x",
        "bytes +0-1/5", "bytes */*"}) {
    INFO(broken);
    CHECK(!parse_content_range(broken));
  }
}

TEST_CASE("HTTP dates are read in their three forms") {
  for (const std::string date : {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
                                 "Sun Nov  6 08:49:37 1994"}) {
    INFO(date);
    CHECK(parse_http_date(date) == 784111777);
  }
  for (const std::string broken : {"", "tomorrow", "Sun, 31 Feb 2024 00:00:00 GMT",
                                   "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Xxx 1994 00:00:00"}) {
    INFO(broken);
    CHECK(!parse_http_date(broken));
  }
  CHECK(parse_retry_after("120", 0) == milliseconds(120'000));
  CHECK(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784111770) == milliseconds(7000));
  CHECK(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784111790) == milliseconds(0));
  CHECK(!parse_retry_after("-5", 0));
  CHECK(!parse_retry_after("soon", 0));
}

TEST_CASE("Link headers are read link by link") {
  const std::string text =
      "<https://h/a?x=1,2>; rel=\"prev\", </b>; title=\"a,b; rel=next\"; rel=next";
  CHECK(parse_link(text, "next") == "/b");
  CHECK(parse_link(text, "prev") == "https://h/a?x=1,2");
  CHECK(!parse_link(text, "last"));
  CHECK(!parse_link("<a; rel=next", "next"));
  CHECK(!parse_link("rel=next", "next"));
}

TEST_CASE("Back-off doubles with jitter and obeys the server within its bound") {
  Backoff backoff(100, 5000);
  std::set<int64_t> seen;
  for (int i = 0; i < 50; ++i) {
    const int64_t third = backoff.delay(3, std::nullopt).count();
    CHECK(third >= 200);
    CHECK(third <= 400);
    seen.insert(third);
    CHECK(backoff.delay(100, std::nullopt) <= milliseconds(30'000));
    const int64_t asked = backoff.delay(1, milliseconds(2000)).count();
    CHECK(asked >= 2000);
    CHECK(asked <= 2200);
    CHECK(backoff.delay(1, milliseconds(60'000)).count() <= 5500);
  }
  CHECK(seen.size() > 5);
}

}  // namespace
}  // namespace dsctl::registry
