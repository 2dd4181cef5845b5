// download() against a server with every fault that a hub, a proxy or a bad line has shown.
#include "registry/download.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "registry/chunk_journal.h"
#include "registry/error.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/registry_http_server.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using std::chrono::milliseconds;
using tests::HttpServer;
using tests::random_content;
using tests::serve_content;
using tests::ServedReply;
using tests::ServedRequest;
using Content = std::shared_ptr<const std::string>;

constexpr size_t kMiB = 1 << 20;

DownloadOptions quick() {
  DownloadOptions options;
  options.jobs = 4;
  options.chunk_bytes = kMiB;
  options.http.first_retry_ms = 2;
  options.http.stall_timeout_ms = 20'000;  // a busy machine is no stall
  return options;
}

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream content;
  content << in.rdbuf();
  return content.str();
}

ServedReply status_only(int status) {
  ServedReply reply;
  reply.status = status;
  return reply;
}

void write_file(const fs::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

RemoteFile remote(const HttpServer& server, const std::string& path, const Content& content) {
  RemoteFile file;
  file.path = path;
  file.size_bytes = static_cast<int64_t>(content->size());
  file.sha256 = Digest::of(*content);
  file.locate = [url = server.url("/" + path)] { return DownloadUrl{url, {}, 0}; };
  return file;
}

/// Without size and digest: as a plain web server offers it.
RemoteFile unknown(const HttpServer& server, const std::string& path) {
  RemoteFile file;
  file.path = path;
  file.locate = [url = server.url("/" + path)] { return DownloadUrl{url, {}, 0}; };
  return file;
}

/// One file, one server whose faults a test chooses, one place to download to.
struct Fixture {
  explicit Fixture(size_t n_bytes = 5 * kMiB + 123)
      : content(random_content(n_bytes, 7)), partial(dir.path() / "file.part") {}

  using Fault = std::function<void(const ServedRequest&, ServedReply&, size_t count)>;

  HttpServer serve(Fault fault) {
    return HttpServer([this, fault](const ServedRequest& request) {
      ServedReply reply = serve_content(request, content, "\"one\"");
      fault(request, reply, count++);
      return reply;
    });
  }
  Digest fetch(const RemoteFile& file, const DownloadOptions& options = quick()) {
    const DownloadTask task{file, partial, {}};
    return download(std::span(&task, 1), options).at(0);
  }
  void check_whole() const {
    CHECK((read_file(partial) == *content));
    CHECK(!fs::exists(partial.string() + ".journal"));
  }

  tests::TempDir dir;
  Content content;
  fs::path partial;
  std::atomic<size_t> count{0};
};

TEST_CASE("download() brings a file in ranges over kept connections") {
  Fixture f(20 * kMiB + 5);
  auto server = f.serve([](auto&, auto&, size_t) {});
  CHECK(f.fetch(remote(server, "model.gguf", f.content)) == Digest::of(*f.content));
  f.check_whole();
  CHECK(server.body_bytes() == static_cast<int64_t>(f.content->size()));
  CHECK(server.n_connections() <= 4);
  CHECK(server.n_requests() >= 20);
  for (const ServedRequest& request : server.requests()) {
    CHECK(request.range());
    CHECK(request.header("accept-encoding") == "identity");
  }
}

TEST_CASE("download() tells what it does") {
  Fixture f(6 * kMiB);
  auto server =
      f.serve([](auto&, ServedReply& reply, size_t) { reply.bytes_per_second = 8 << 20; });
  DownloadOptions options = quick();
  std::vector<DownloadEvent> events;
  options.on_event = [&](const DownloadEvent& event) { events.push_back(event); };
  f.fetch(remote(server, "a", f.content), options);
  REQUIRE(events.size() >= 3);
  CHECK(events.front().type == DownloadEventType::kStarted);
  CHECK(events.front().done_bytes == 0);
  CHECK(events.back().type == DownloadEventType::kFinished);
  CHECK(events.back().done_bytes == static_cast<int64_t>(f.content->size()));
  CHECK(events.back().fetched_bytes == static_cast<int64_t>(f.content->size()));
  int64_t before = 0;
  bool verified = false;
  for (const DownloadEvent& event : events) {
    CHECK(event.total_bytes == static_cast<int64_t>(f.content->size()));
    CHECK(event.done_bytes >= before);
    before = event.done_bytes;
    verified |= event.type == DownloadEventType::kVerifying;
  }
  CHECK(verified);
}

TEST_CASE("download() brings many files, small, empty and of unknown size") {
  tests::TempDir dir;
  std::map<std::string, Content> contents;
  for (int i = 0; i < 30; ++i) {
    const size_t n_bytes = i % 5 == 0 ? 0 : static_cast<size_t>(i) * 7919 % 300'000;
    contents["/f" + std::to_string(i)] = random_content(n_bytes, static_cast<uint64_t>(i));
  }
  HttpServer server([&](const ServedRequest& request) {
    return serve_content(request, contents.at(request.path), "\"e\"");
  });
  std::vector<DownloadTask> tasks;
  for (int i = 0; i < 30; ++i) {
    const std::string name = "f" + std::to_string(i);
    RemoteFile file =
        i % 2 == 0 ? remote(server, name, contents.at("/" + name)) : unknown(server, name);
    tasks.push_back({file, dir.path() / "sub" / (name + ".part"), {}});
  }
  const std::vector<Digest> digests = download(tasks, quick());
  for (size_t i = 0; i < tasks.size(); ++i) {
    const Content& content = contents.at("/" + tasks[i].file.path);
    CHECK((read_file(tasks[i].partial) == *content));
    CHECK(digests[i] == Digest::of(*content));
  }
}

TEST_CASE("download() checks files of git by git's name for them") {
  Fixture f;
  f.content = std::make_shared<std::string>("hello\n");
  auto server = f.serve([](auto&, auto&, size_t) {});
  RemoteFile file = unknown(server, "a");
  file.git_sha1 = "ce013625030ba8dba906f756967f9e9ca394464a";  // git hash-object
  f.fetch(file);
  f.check_whole();
  file.git_sha1[0] = 'd';
  CHECK_THROWS_WITH(f.fetch(file), Contains("expected de0136"));
}

TEST_CASE("download() goes on inside a chunk when the connection is cut") {
  Fixture f;
  auto server = f.serve([](auto&, ServedReply& reply, size_t) { reply.cut_after = 100'000; });
  f.fetch(remote(server, "a", f.content));
  f.check_whole();
  CHECK(server.body_bytes() == static_cast<int64_t>(f.content->size()));  // not a byte twice
}

TEST_CASE("download() replaces a connection that stalls, and one that drips") {
  Fixture f;
  const bool drips = GENERATE(false, true);
  auto server = f.serve([drips](auto&, ServedReply& reply, size_t count) {
    if (count != 3 && count != 1) return;
    if (drips) reply.bytes_per_second = 2000;
    if (!drips) reply.stall_after = 50'000;
  });
  DownloadOptions options = quick();
  options.http.stall_timeout_ms = 400;
  options.max_attempts = 100;
  f.fetch(remote(server, "a", f.content), options);
  f.check_whole();
}

TEST_CASE("download() does not take what it did not ask for") {
  Fixture f;
  const int fault = GENERATE(range(0, 8));
  auto server = f.serve([&, fault](auto&, ServedReply& reply, size_t count) {
    if (count % 3 != 1) return;
    switch (fault) {
      case 0:  // another range, honestly named
        reply.headers = {"Content-Range: bytes 0-99/" + std::to_string(f.content->size())};
        break;
      case 1:  // no range named
        reply.headers.clear();
        break;
      case 2:  // nonsense
        reply.headers = {"Content-Range: bytes 9-1/x"};
        break;
      case 3:  // the whole file instead
        reply = serve_content({}, f.content, "\"one\"");
        break;
      case 4:  // shorter than asked for, honestly named
        reply.content_end = reply.content_begin + (reply.content_end - reply.content_begin) / 2 + 1;
        reply.headers.back() = "Content-Range: bytes " + std::to_string(reply.content_begin) + "-" +
                               std::to_string(reply.content_end - 1) + "/" +
                               std::to_string(f.content->size());
        break;
      case 5:  // a body longer than its range
        reply.content_end =
            std::min<int64_t>(reply.content_end + 5000, static_cast<int64_t>(f.content->size()));
        break;
      case 6:  // compressed
        reply.headers.push_back("Content-Encoding: gzip");
        break;
      case 7:  // 416 for a range that exists
        reply = {};
        reply.status = 416;
        reply.headers = {"Content-Range: bytes */" + std::to_string(f.content->size())};
        break;
    }
  });
  f.fetch(remote(server, "a", f.content));
  f.check_whole();
}

TEST_CASE("download() names what is wrong when a server never answers as it should") {
  Fixture f;
  DownloadOptions options = quick();
  options.max_attempts = 3;
  SECTION("wrong range") {
    auto server = f.serve(
        [](auto&, ServedReply& reply, size_t) { reply.headers = {"Content-Range: bytes 5-9/10"}; });
    CHECK_THROWS_WITH(f.fetch(remote(server, "a", f.content), options),
                      Contains("a: ") && Contains("bytes 5-9/10") && Contains("3 attempts"));
  }
  SECTION("another size") {
    auto server = f.serve(
        [](auto&, ServedReply& reply, size_t) { reply.headers = {"Content-Range: bytes 0-9/10"}; });
    RemoteFile file = remote(server, "a", f.content);
    CHECK_THROWS_WITH(f.fetch(file, options), Contains("has 10 bytes, expected 5243003"));
  }
  SECTION("nobody listens") {
    RemoteFile file;
    file.path = "a";
    file.size_bytes = 5;
    file.locate = [] { return DownloadUrl{"http://127.0.0.1:1/a?token=secret", {}, 0}; };
    CHECK_THROWS_WITH(f.fetch(file, options), Contains("http://127.0.0.1:1/a") &&
                                                  Contains("3 attempts") && !Contains("secret"));
  }
  SECTION("server errors") {
    auto server = f.serve([](auto&, ServedReply& reply, size_t) { reply = status_only(500); });
    CHECK_THROWS_WITH(f.fetch(remote(server, "a", f.content), options), Contains("HTTP 500"));
  }
}

TEST_CASE("download() takes the whole file as one stream where a server knows no ranges") {
  Fixture f;
  const bool cuts = GENERATE(false, true);
  const bool knows_size = GENERATE(false, true);
  const bool says_length = GENERATE(false, true);
  auto server = f.serve([&](auto&, ServedReply& reply, size_t count) {
    reply = serve_content({}, f.content);
    reply.says_length = says_length;
    if (cuts && count < 2 && (says_length || knows_size)) {
      reply.cut_after = static_cast<int64_t>(f.content->size() / 2 + count * 1000);
    }
  });
  RemoteFile file = knows_size ? remote(server, "a", f.content) : unknown(server, "a");
  CHECK(f.fetch(file) == Digest::of(*f.content));
  f.check_whole();
}

TEST_CASE("download() follows redirects once and keeps the address") {
  Fixture f;
  HttpServer cdn([&](const ServedRequest& request) { return serve_content(request, f.content); });
  HttpServer hub([&](const ServedRequest&) {
    ServedReply reply;
    reply.status = 302;
    reply.headers = {"Location: " + cdn.url("/blob?signature=x")};
    return reply;
  });
  RemoteFile file = remote(hub, "a", f.content);
  file.locate = [&] { return DownloadUrl{hub.url("/a"), {"Authorization: Bearer secret"}, 0}; };
  f.fetch(file);
  f.check_whole();
  CHECK(hub.n_requests() == 1);
  CHECK(hub.requests().at(0).header("authorization") == "Bearer secret");
  for (const ServedRequest& request : cdn.requests()) {
    CHECK(request.headers.count("authorization") == 0);
  }
}

TEST_CASE("download() refuses redirects that lead astray") {
  Fixture f;
  for (const std::string location : {"file:///etc/passwd", "ftp://127.0.0.1/x", "/again"}) {
    HttpServer server([&](const ServedRequest&) {
      ServedReply reply;
      reply.status = 302;
      reply.headers = {"Location: " + location};
      return reply;
    });
    CHECK_THROWS_WITH(f.fetch(remote(server, "again", f.content)),
                      Contains("refused") || Contains("more than 10 redirects"));
  }
}

TEST_CASE("download() asks for a new address when a signed one has expired") {
  Fixture f(12 * kMiB);
  std::atomic<int> good{0};
  std::atomic<int> n_answers{0};
  HttpServer cdn([&](const ServedRequest& request) {
    ServedReply reply;
    reply.status = 403;
    if (request.query.at("sig") != std::to_string(good)) return reply;
    if (++n_answers % 5 == 0) ++good;  // from now on the old ones are worth nothing
    return serve_content(request, f.content, "\"e\"");
  });
  const bool through_hub = GENERATE(false, true);
  HttpServer hub([&](const ServedRequest&) {
    ServedReply reply;
    reply.status = 307;
    reply.headers = {"Location: " + cdn.url("/b?sig=" + std::to_string(good))};
    return reply;
  });
  int n_located = 0;
  RemoteFile file = remote(hub, "a", f.content);
  file.locate = [&] {
    ++n_located;
    return DownloadUrl{
        through_hub ? hub.url("/a") : cdn.url("/b?sig=" + std::to_string(good)), {}, 0};
  };
  f.fetch(file);
  f.check_whole();
  CHECK(good >= 2);
  CHECK((through_hub ? n_located == 1 : n_located >= 2));
}

TEST_CASE("download() asks again before an address expires, and no more often than it helps") {
  Fixture f(4 * kMiB);
  std::atomic<int> status{200};
  auto server = f.serve([&](auto&, ServedReply& reply, size_t) {
    if (status != 200) reply = status_only(status);
  });
  int n_located = 0;
  RemoteFile file = remote(server, "a", f.content);
  const auto now_ms = [] {
    return std::chrono::duration_cast<milliseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  file.locate = [&] {
    ++n_located;
    return DownloadUrl{server.url("/a"), {}, now_ms() + (n_located == 1 ? 1 : 100'000)};
  };
  std::this_thread::sleep_for(milliseconds(2));
  f.fetch(file);
  f.check_whole();
  for (const int bad : {401, 403, 404, 410, 400}) {
    status = bad;
    n_located = 1;
    fs::remove(f.partial);
    CHECK_THROWS_WITH(f.fetch(file), Contains("HTTP " + std::to_string(bad)));
    CHECK(n_located <= 6);
  }
}

TEST_CASE("download() waits and slows down when a server says so") {
  Fixture f;
  std::atomic<int> n_refused{0};
  auto server = f.serve([&](auto&, ServedReply& reply, size_t count) {
    if (count % 4 != 1) return;
    ++n_refused;
    reply = {};
    reply.status = count % 8 == 1 ? 429 : 503;
    reply.headers = {"Retry-After: 100"};  // cut at the bound below
  });
  DownloadOptions options = quick();
  options.http.max_asked_wait_ms = 20;
  f.fetch(remote(server, "a", f.content), options);
  f.check_whole();
  CHECK(n_refused >= 1);
}

TEST_CASE("download() starts anew when the file changes and nothing else can tell") {
  Fixture f;
  const size_t n_more = GENERATE(size_t{0}, size_t{1000});
  const Content old = random_content(f.content->size() + n_more, 8);
  HttpServer server([&](const ServedRequest& request) {
    return f.count++ < 2 ? serve_content(request, old, "\"old\"")
                         : serve_content(request, f.content, "\"new\"");
  });
  CHECK(f.fetch(unknown(server, "a")) == Digest::of(*f.content));
  f.check_whole();
}

TEST_CASE("download() gives up on a file that never stops changing") {
  Fixture f;
  HttpServer server([&](const ServedRequest& request) {
    return serve_content(request, f.content, "\"" + std::to_string(f.count++) + "\"");
  });
  CHECK_THROWS_WITH(f.fetch(unknown(server, "a")), Contains("changed 5 times"));
}

TEST_CASE("download() with a digest fetches again only what came under another validator") {
  Fixture f(8 * kMiB);
  const Content old = random_content(f.content->size(), 9);
  HttpServer server([&](const ServedRequest& request) {
    return f.count++ < 2 ? serve_content(request, old, "\"old\"")
                         : serve_content(request, f.content, "\"new\"");
  });
  f.fetch(remote(server, "a", f.content));
  f.check_whole();
  CHECK(server.body_bytes() <= static_cast<int64_t>(f.content->size() + 3 * kMiB));
}

TEST_CASE("download() does not mind servers that disagree about validators") {
  Fixture f;
  HttpServer server([&](const ServedRequest& request) {
    return serve_content(request, f.content, f.count++ % 2 == 0 ? "\"a\"" : "\"b\"");
  });
  f.fetch(remote(server, "a", f.content));
  f.check_whole();
  CHECK(server.body_bytes() == static_cast<int64_t>(f.content->size()));
}

TEST_CASE("download() fetches everything a second time when a bit was flipped on the way") {
  Fixture f;
  auto server = f.serve([](auto&, ServedReply& reply, size_t count) {
    if (count == 2) reply.flip_at = 1000;
  });
  std::vector<std::string> told;
  DownloadOptions options = quick();
  options.on_event = [&](const DownloadEvent& event) {
    if (event.type == DownloadEventType::kRetry) told.push_back(event.message);
  };
  f.fetch(remote(server, "a", f.content), options);
  f.check_whole();
  REQUIRE(!told.empty());
  CHECK_THAT(told.front(), Contains("expected " + Digest::of(*f.content).hex()));
}

TEST_CASE("download() gives up on bytes that stay wrong, and removes them") {
  Fixture f;
  auto server = f.serve([](const ServedRequest& request, ServedReply& reply, size_t) {
    if (request.range()->first == 0) reply.flip_at = 5;
  });
  CHECK_THROWS_WITH(
      f.fetch(remote(server, "a", f.content)),
      Contains("expected " + Digest::of(*f.content).hex()) && Contains("second time"));
  CHECK(!fs::exists(f.partial));
  CHECK(!fs::exists(f.partial.string() + ".journal"));
  CHECK(server.body_bytes() == static_cast<int64_t>(2 * f.content->size()));
}

/// Fetches until about `n_bytes` are there, then stops.
void fetch_part(Fixture& f, const RemoteFile& file, int64_t n_bytes) {
  const auto stop = std::make_unique<std::stop_source>();  // GCC 12 doubts one on the stack
  DownloadOptions options = quick();
  options.limit_bytes_per_second = 20 << 20;
  options.on_event = [&](const DownloadEvent& event) {
    if (event.done_bytes >= n_bytes) stop->request_stop();
  };
  const DownloadTask task{file, f.partial, {}};
  CHECK_THROWS_WITH(download(std::span(&task, 1), options, stop->get_token()), Contains("stopped"));
}

TEST_CASE("download() goes on where a stopped one was") {
  Fixture f(16 * kMiB);
  auto server = f.serve([](auto&, auto&, size_t) {});
  const RemoteFile file =
      GENERATE(true, false) ? remote(server, "a", f.content) : unknown(server, "a");
  fetch_part(f, file, 5 * kMiB);
  const int64_t before = server.body_bytes();
  CHECK(before < static_cast<int64_t>(12 * kMiB));
  int64_t first_done = -1;
  DownloadOptions options = quick();
  options.on_event = [&](const DownloadEvent& event) {
    if (first_done < 0) first_done = event.done_bytes;
  };
  f.fetch(file, options);
  f.check_whole();
  CHECK(first_done >= static_cast<int64_t>(5 * kMiB) - 200'000);
  CHECK(server.body_bytes() - before <= static_cast<int64_t>(f.content->size()) - first_done);
}

TEST_CASE("download() fetches again what an interrupted run left damaged on disk") {
  Fixture f(16 * kMiB);
  auto server = f.serve([](auto&, auto&, size_t) {});
  const RemoteFile file = remote(server, "a", f.content);
  fetch_part(f, file, 8 * kMiB);
  SECTION("zeros where the power went off before the bytes reached the disk") {
    std::fstream damage(f.partial, std::ios::in | std::ios::out | std::ios::binary);
    damage.seekp(100'000);
    damage << std::string(600'000, '\0');
  }
  SECTION("the end is gone") {
    fs::resize_file(f.partial, 1 << 20);
  }
  SECTION("all is gone") {
    fs::remove(f.partial);
  }
  f.fetch(file);
  f.check_whole();
}

TEST_CASE("download() survives a journal that is torn, foreign or broken") {
  Fixture f(8 * kMiB);
  auto server = f.serve([](auto&, auto&, size_t) {});
  const RemoteFile file = remote(server, "a", f.content);
  fetch_part(f, file, 3 * kMiB);
  const fs::path journal = f.partial.string() + ".journal";
  const std::string bytes = read_file(journal);
  REQUIRE(bytes.size() > 200);
  SECTION("torn") {
    write_file(journal, bytes.substr(0, bytes.size() - 7));
  }
  SECTION("broken in the middle") {
    std::string broken = bytes;
    broken[bytes.size() / 2] ^= 4;
    write_file(journal, broken);
  }
  SECTION("nonsense") {
    write_file(journal, std::string(1000, 'x'));
  }
  SECTION("empty") {
    write_file(journal, "");
  }
  SECTION("of another file") {
    write_file(journal, journal_header_record({.size_bytes = 5, .sha256 = {}, .git_sha1 = {}}));
  }
  f.fetch(file);
  f.check_whole();
}

TEST_CASE("download() takes up what another program left as a prefix") {
  Fixture f(8 * kMiB);
  auto server = f.serve([](auto&, auto&, size_t) {});
  const RemoteFile file = remote(server, "a", f.content);
  const int64_t size = static_cast<int64_t>(f.content->size());
  SECTION("half of it") {
    write_file(f.partial, f.content->substr(0, 4 * kMiB + 77));
    f.fetch(file);
    CHECK(server.body_bytes() <= static_cast<int64_t>(4 * kMiB));
    CHECK(server.body_bytes() >= static_cast<int64_t>(4 * kMiB) - 77);
  }
  SECTION("all of it") {
    write_file(f.partial, *f.content);
    f.fetch(file);
    CHECK(server.body_bytes() == 0);
  }
  SECTION("something else") {
    write_file(f.partial, std::string(3 * kMiB, 'x'));
    f.fetch(file);
    CHECK(server.body_bytes() == size);  // the wrong prefix alone is fetched again
  }
  SECTION("something longer") {
    write_file(f.partial, std::string(9 * kMiB, 'x'));
    f.fetch(file);
    CHECK(server.body_bytes() == size);
  }
  f.check_whole();
}

TEST_CASE("download() renames to the target and finds it there the next time") {
  Fixture f;
  auto server = f.serve([](auto&, auto&, size_t) {});
  const DownloadTask task{remote(server, "a", f.content), f.partial, f.dir.path() / "blob"};
  download(std::span(&task, 1), quick());
  CHECK((read_file(task.target) == *f.content));
  CHECK(!fs::exists(f.partial));
  const int64_t before = server.body_bytes();
  download(std::span(&task, 1), quick());
  CHECK(server.body_bytes() == before);
  std::string other = *f.content;  // of the same size
  other[0] ^= 1;
  write_file(task.target, other);
  download(std::span(&task, 1), quick());
  CHECK((read_file(task.target) == *f.content));
  CHECK(!fs::exists(f.partial.string() + ".journal"));
}

TEST_CASE("Two downloads of the same files share the work") {
  tests::TempDir dir;
  std::vector<Content> contents;
  for (uint64_t i = 0; i < 4; ++i)
    contents.push_back(random_content(2 * kMiB, i));
  HttpServer server([&](const ServedRequest& request) {
    return serve_content(request, contents.at(static_cast<size_t>(request.path.at(1) - '0')));
  });
  server.set_bytes_per_second(16 << 20);
  std::vector<DownloadTask> tasks;
  for (size_t i = 0; i < contents.size(); ++i) {
    const std::string name = std::to_string(i);
    tasks.push_back(
        {remote(server, name, contents[i]), dir.path() / (name + ".part"), dir.path() / name});
  }
  std::atomic<int> n_waits{0};
  std::atomic<int> n_failed{0};
  std::vector<std::jthread> pulls;
  for (int i = 0; i < 2; ++i) {
    pulls.emplace_back([&] {
      DownloadOptions options = quick();
      options.on_event = [&](const DownloadEvent& event) {
        n_waits += event.type == DownloadEventType::kWaiting;
      };
      try {
        download(tasks, options);
      } catch (const Error&) {
        ++n_failed;
      }
    });
  }
  pulls.clear();
  CHECK(n_failed == 0);
  CHECK(n_waits >= 1);
  for (size_t i = 0; i < contents.size(); ++i)
    CHECK((read_file(tasks[i].target) == *contents[i]));
  CHECK(server.body_bytes() == static_cast<int64_t>(8 * kMiB));
}

TEST_CASE("download() keeps to a rate over all connections") {
  Fixture f(3 * kMiB);
  auto server = f.serve([](auto&, auto&, size_t) {});
  DownloadOptions options = quick();
  options.limit_bytes_per_second = 4 << 20;
  const auto begin = std::chrono::steady_clock::now();
  f.fetch(remote(server, "a", f.content), options);
  f.check_whole();
  // 3 MiB at 4 MiB/s, less what the bucket holds: never faster than this, however fast the machine.
  CHECK(std::chrono::steady_clock::now() - begin >= milliseconds(600));
}

TEST_CASE("download() ends soon after it is told to stop") {
  Fixture f;
  auto server = f.serve([](auto&, ServedReply& reply, size_t) { reply.stall_after = 1000; });
  DownloadOptions options = quick();
  options.http.stall_timeout_ms = 600'000;
  std::stop_source stop;
  std::thread stopper([&] {
    while (server.n_requests() == 0)
      std::this_thread::sleep_for(milliseconds(1));
    stop.request_stop();
  });
  const DownloadTask task{remote(server, "a", f.content), f.partial, {}};
  CHECK_THROWS_WITH(download(std::span(&task, 1), options, stop.get_token()), Contains("stopped"));
  stopper.join();
}

/// False under ThreadSanitizer, which ends the child of a process with threads (the test's server)
/// once it starts one of its own.
bool can_fork() {
#if defined(__SANITIZE_THREAD__)
  WARN("not under ThreadSanitizer");
  return false;
#else
  return true;
#endif
}

/// Runs `body` in a child: 0, or 1 when it throws, after `check` of the message.
int in_child(const std::function<void()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    int code = 0;
    try {
      body();
    } catch (...) {
      code = 1;
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_CASE("download() says so when the disk is full, and goes on when there is room") {
  if (!can_fork()) return;
  Fixture f(8 * kMiB);
  auto server = f.serve([](auto&, auto&, size_t) {});
  const RemoteFile file = remote(server, "a", f.content);
  const int code = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{4 << 20, 4 << 20};  // as a full disk: write fails with a reason
    ::setrlimit(RLIMIT_FSIZE, &small);
    try {
      f.fetch(file);
    } catch (const Error& error) {
      if (std::string_view(error.what()).find("make room") != std::string_view::npos) throw;
    }
  });
  CHECK(code == 1);
  const int64_t before = server.body_bytes();
  f.fetch(file);
  f.check_whole();
  CHECK(server.body_bytes() - before <= static_cast<int64_t>(7 * kMiB));
}

/// Kills a download `n_kills` times and lets it finish. What is on its way at a kill is lost: the
/// slower the server, the less that is: a client that gets no processor leaves socket buffers full.
void kill_and_finish(size_t n_bytes, int n_kills, int64_t bytes_per_second, unsigned max_wait_ms) {
  if (!can_fork()) return;
  Fixture f(n_bytes);
  auto server = f.serve([](auto&, auto&, size_t) {});
  server.set_bytes_per_second(bytes_per_second);
  const RemoteFile file = remote(server, "a", f.content);
  std::mt19937 random(5);
  int n_killed = 0;
  for (int round = 0; round < n_kills; ++round) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      int code = 0;
      try {
        f.fetch(file);
      } catch (...) {
        code = 1;
      }
      ::_exit(code);
    }
    std::this_thread::sleep_for(milliseconds(random() % max_wait_ms));
    ::kill(pid, SIGKILL);
    int status = 0;
    ::waitpid(pid, &status, 0);
    n_killed += WIFSIGNALED(status);
    CHECK((WIFSIGNALED(status) || WEXITSTATUS(status) == 0));
  }
  const int64_t before = server.body_bytes();
  server.set_bytes_per_second(0);
  f.fetch(file);
  f.check_whole();
  const auto fetched = static_cast<double>(server.body_bytes());
  INFO(n_killed << " kills within the first " << before << " bytes; fetched " << fetched);
  CHECK(n_killed > n_kills / 3);
  CHECK(fetched <= 1.02 * static_cast<double>(n_bytes));
}

TEST_CASE("download() goes on where kill -9 ended it") {
  if (!can_fork()) return;
  constexpr size_t kBytes = 32 * kMiB;
  constexpr int kKills = 8;
  Fixture f(kBytes);
  auto server = f.serve([](auto&, auto&, size_t) {});
  server.set_bytes_per_second(8 << 20);
  const RemoteFile file = remote(server, "a", f.content);
  for (int round = 1; round <= kKills; ++round) {
    const auto enough = static_cast<int64_t>(kBytes) * round / (kKills + 1);
    const pid_t pid = ::fork();
    if (pid == 0) {
      try {
        f.fetch(file);
      } catch (...) {
      }
      ::_exit(0);
    }
    for (int i = 0; i < 6'000 && server.body_bytes() < enough; ++i)
      std::this_thread::sleep_for(milliseconds(5));
    ::kill(pid, SIGKILL);
    int status = 0;
    ::waitpid(pid, &status, 0);
  }
  server.set_bytes_per_second(0);
  f.fetch(file);
  f.check_whole();
  // Starting anew each time would take 1.9 times the size. What lay unread in socket buffers at a
  // kill is fetched again, which on a busy machine is more than the journal ever loses.
  CHECK(server.body_bytes() >= static_cast<int64_t>(kBytes));
  CHECK(server.body_bytes() <= static_cast<int64_t>(kBytes + kBytes / 2));
}

TEST_CASE("download() loses next to nothing to kill -9 a hundred times", "[slow]") {
  kill_and_finish(1024 * kMiB, 100, 512 << 10, 250);
}

TEST_CASE("download() refuses what it can't write") {
  Fixture f;
  auto server = f.serve([](auto&, auto&, size_t) {});
  const RemoteFile file = remote(server, "a", f.content);
  fs::create_directories(f.partial);
  CHECK_THROWS_WITH(f.fetch(file), Contains(f.partial.string()));
  fs::remove_all(f.partial);
  write_file(f.dir.path() / "elsewhere", "precious");
  fs::create_symlink(f.dir.path() / "elsewhere", f.partial);
  CHECK_THROWS_WITH(f.fetch(file), Contains(f.partial.string()));
  CHECK((read_file(f.dir.path() / "elsewhere") == "precious"));
}

TEST_CASE("download() passes on what its source says about an address") {
  Fixture f;
  RemoteFile file;
  file.path = "a";
  file.size_bytes = 10;
  file.locate = []() -> DownloadUrl { throw Error("needs a token"); };
  CHECK_THROWS_WITH(f.fetch(file), Contains("needs a token"));
}

}  // namespace
}  // namespace dsctl::registry
