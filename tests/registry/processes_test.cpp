// What several processes, and processes that die, do to one store.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "registry/error.h"
#include "registry/registry.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/registry_store.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using tests::spec_of;
using tests::write_file;

/// Runs `body` in a child that ends without running this process's exit handlers: 0, or 1 when it
/// throws.
pid_t in_child(const std::function<void()>& body) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  int code = 0;
  try {
    body();
  } catch (...) {
    code = 1;
  }
  ::_exit(code);
}

int exit_code_of(pid_t pid) {
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::vector<fs::path> write_shards(const fs::path& dir, char fill) {
  std::vector<fs::path> files;
  for (int i = 0; i < 3; ++i) {
    files.push_back(dir / (std::string(1, fill) + std::to_string(i) + ".gguf"));
    write_file(files.back(), std::string(200'000, static_cast<char>(fill + i)));
  }
  return files;
}

TEST_CASE("A store survives kill -9 of create at any moment") {
  const tests::TempDir dir;
  const fs::path root = dir.path() / "models";
  std::mt19937 random(11);
  const auto first = write_shards(dir.path(), 'a');
  const auto second = write_shards(dir.path(), 'k');
  for (int round = 0; round < 150; ++round) {
    const pid_t child = in_child([&] {
      Registry registry(root);
      for (int i = 0; true; ++i) {
        CreateSpec spec = spec_of(i % 2 == 0 ? first : second);
        spec.import_mode = i % 3 == 0 ? ImportMode::kCopy : ImportMode::kLink;
        spec.system = std::to_string(i % 5);
        registry.create(ModelName::parse(i % 4 < 2 ? "model" : "other"), spec, {});
        if (i % 7 == 6) registry.remove(ModelName::parse("other"));
      }
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
    ::kill(child, SIGKILL);
    exit_code_of(child);
    REQUIRE_NOTHROW(tests::check_store(root));
  }
  // The next create clears what the dead left.
  Registry registry(root);
  registry.create(ModelName::parse("model"), spec_of(first), {});
  CHECK(tests::leftovers(root).empty());
  CHECK_NOTHROW(tests::check_store(root));
}

TEST_CASE("Many processes create, copy and remove at once") {
  const tests::TempDir dir;
  const fs::path root = dir.path() / "models";
  const auto first = write_shards(dir.path(), 'a');
  const auto second = write_shards(dir.path(), 'k');
  std::vector<pid_t> children;
  for (int worker = 0; worker < 6; ++worker) {
    children.push_back(in_child([&, worker] {
      Registry registry(root);
      for (int i = 0; i < 12; ++i) {
        CreateSpec spec = spec_of((worker + i) % 2 == 0 ? first : second);
        spec.system = std::to_string(worker * 100 + i);
        // All replace one model; each also has one of its own that comes and goes.
        registry.create(ModelName::parse("shared"), spec, {});
        const ModelName own = ModelName::parse("own" + std::to_string(worker));
        registry.create(own, spec, {});
        if (!registry.find(own)) throw Error("lost");
        if (!registry.find(ModelName::parse("shared"))) throw Error("lost");
        registry.remove(own);
      }
    }));
  }
  for (const pid_t child : children)
    CHECK(exit_code_of(child) == 0);
  CHECK_NOTHROW(tests::check_store(root));
  const Registry registry(root);
  CHECK(registry.list().models.size() == 1);
  CHECK(tests::leftovers(root).empty());
  CHECK(tests::n_blobs(root) == 5);  // three shards, one system text, one config: no garbage
}

TEST_CASE("Threads of one process share a store") {
  const tests::TempDir dir;
  Registry registry(dir.path() / "models");
  const auto files = write_shards(dir.path(), 'a');
  std::vector<std::jthread> threads;
  std::atomic<int> n_failed{0};
  for (int worker = 0; worker < 4; ++worker) {
    threads.emplace_back([&, worker] {
      try {
        for (int i = 0; i < 5; ++i) {
          const ModelName name = ModelName::parse("m" + std::to_string(worker % 2));
          registry.create(name, spec_of(files), {});
          registry.list();
          if (!registry.find(name)) ++n_failed;
        }
      } catch (const Error&) {
        ++n_failed;
      }
    });
  }
  threads.clear();
  CHECK(n_failed == 0);
  CHECK(registry.list().models.size() == 2);
}

TEST_CASE("A create that can't have the lock says who holds it") {
  const tests::TempDir dir;
  const fs::path root = dir.path() / "models";
  const auto files = write_shards(dir.path(), 'a');
  Registry registry(root);
  registry.create(ModelName::parse("x"), spec_of(files), {});
  registry.set_lock_timeout_ms(1200);
  std::string waited_for;
  Observer observer;
  observer.status = [&waited_for](std::string_view line) { waited_for = line; };
  {
    const StoreLock lock(root, "test holds it", 1000, nullptr);
    CHECK_THROWS_WITH(
        registry.remove(ModelName::parse("x"), observer),
        Contains("is locked by process " + std::to_string(::getpid()) + " (test holds it)"));
  }
  CHECK_THAT(waited_for, Contains("waiting for process") && Contains("(test holds it)"));
  CHECK(registry.remove(ModelName::parse("x")).has_value());
}

TEST_CASE("A create leaves another's unfinished work alone") {
  const tests::TempDir dir;
  Registry registry(dir.path() / "models");
  Staging other(registry.blobs(), nullptr);
  const StagedBlob blob = other.stage_bytes("in progress");
  registry.create(ModelName::parse("x"), spec_of(write_shards(dir.path(), 'a')), {});
  CHECK(fs::exists(blob.path));
}

}  // namespace
}  // namespace dsctl::registry
