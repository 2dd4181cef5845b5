#include "commands/serve/model_host.h"

#include <spdlog/spdlog.h>

#include "commands/serve/api_error.h"
#include "tests/support/catch.h"
#include "tests/support/commands_fakes.h"

namespace dsctl {
namespace {

using namespace std::chrono_literals;
using commands::KeepAlive;
using commands::LoadOptions;
using commands::serve::ApiError;
using commands::serve::HostOptions;
using commands::serve::ModelHost;
using commands::serve::ModelId;
using tests::EngineScript;
using tests::eventually;

const ModelId kBytes{.name = "bytes:latest", .digest = "d1"};
const ModelId kOther{.name = "other:latest", .digest = "d3"};

struct Hosting {
  explicit Hosting(HostOptions options = {}) : host(source, options) {
    spdlog::set_level(spdlog::level::off);
  }

  // Asks without waiting; the answer lands in the returned slot.
  struct Slot {
    std::mutex mutex;
    bool done = false;
    std::shared_ptr<ModelHost::Lease> lease;
    std::exception_ptr failure;
    bool is_done() {
      const std::lock_guard lock(mutex);
      return done;
    }
    void drop() {
      const std::lock_guard lock(mutex);
      lease.reset();
    }
  };
  std::shared_ptr<Slot> ask(const ModelId& id, const LoadOptions& options = {},
                            std::optional<KeepAlive> keep_alive = std::nullopt) {
    auto slot = std::make_shared<Slot>();
    host.acquire(id, options, keep_alive,
                 [slot](std::shared_ptr<ModelHost::Lease> lease, std::exception_ptr failure) {
                   const std::lock_guard lock(slot->mutex);
                   slot->lease = std::move(lease);
                   slot->failure = failure;
                   slot->done = true;
                 });
    return slot;
  }
  std::shared_ptr<Slot> get(const ModelId& id, const LoadOptions& options = {},
                            std::optional<KeepAlive> keep_alive = std::nullopt) {
    auto slot = ask(id, options, keep_alive);
    REQUIRE(eventually([&] { return slot->is_done(); }));
    return slot;
  }
  int n_engines() {
    return script->get([](EngineScript& s) { return s.n_engines; });
  }
  size_t n_loads() {
    return script->get([](EngineScript& s) { return s.loads.size(); });
  }

  std::shared_ptr<EngineScript> script = std::make_shared<EngineScript>();
  tests::FakeSource source{script};
  ModelHost host;
};

TEST_CASE("ModelHost loads a model once for all who ask") {
  Hosting hosting;
  std::vector<std::shared_ptr<Hosting::Slot>> slots;
  for (int i = 0; i < 8; ++i)
    slots.push_back(hosting.ask(kBytes));
  for (const auto& slot : slots)
    REQUIRE(eventually([&] { return slot->is_done(); }));
  CHECK(hosting.n_loads() == 1);
  CHECK(hosting.host.list().at(0).n_leases == 8);
}

TEST_CASE("ModelHost unloads an idle model when its keep-alive is over") {
  Hosting hosting;
  auto slot = hosting.get(kBytes, {}, KeepAlive(1ms));
  CHECK(hosting.n_engines() == 1);
  slot->drop();
  CHECK(eventually([&] { return hosting.n_engines() == 0; }));
  CHECK(hosting.host.list().empty());
}

TEST_CASE("ModelHost keeps a model that was asked to stay forever") {
  HostOptions options;
  options.keep_alive = KeepAlive(0);
  Hosting hosting(options);
  hosting.get(kBytes, {}, commands::kForever)->drop();
  CHECK(hosting.host.list().at(0).forever);
  hosting.get(kBytes)->drop();
  CHECK(hosting.n_loads() == 1);
}

TEST_CASE("ModelHost makes room by unloading the idle model") {
  Hosting hosting;
  hosting.get(kBytes)->drop();
  auto other = hosting.get(kOther);
  CHECK(hosting.n_engines() == 1);
  CHECK(hosting.host.list().at(0).id == kOther);
}

TEST_CASE("ModelHost waits for a busy model and serves in order") {
  Hosting hosting;
  auto busy = hosting.get(kBytes);
  auto other = hosting.ask(kOther);
  auto late = hosting.ask(kBytes);  // came after: must not starve the one before
  CHECK(!other->is_done());
  busy->drop();
  REQUIRE(eventually([&] { return other->is_done(); }));
  CHECK(!late->is_done());
  other->drop();
  REQUIRE(eventually([&] { return late->is_done(); }));
  CHECK(hosting.n_loads() == 3);
}

TEST_CASE("ModelHost holds as many models as it may") {
  HostOptions options;
  options.max_loaded_models = 2;
  Hosting hosting(options);
  auto bytes = hosting.get(kBytes);
  auto other = hosting.get(kOther);
  CHECK(hosting.n_engines() == 2);
}

TEST_CASE("ModelHost loads anew for a larger context, not for a smaller one") {
  Hosting hosting;
  hosting.get(kBytes)->drop();
  hosting.get(kBytes, {.num_ctx = 1024})->drop();
  CHECK(hosting.n_loads() == 1);
  auto large = hosting.get(kBytes, {.num_ctx = 6000});
  CHECK(hosting.n_loads() == 2);
  CHECK(large->lease->max_model_len() == 6000);
  large->drop();
  hosting.get(kBytes)->drop();
  CHECK(hosting.n_loads() == 2);
}

TEST_CASE("ModelHost loads a model that was made anew under its name") {
  Hosting hosting;
  hosting.get(kBytes)->drop();
  const ModelId remade{.name = "bytes:latest", .digest = "d9"};
  hosting.get(remade)->drop();
  CHECK(hosting.n_loads() == 2);
  CHECK(hosting.host.list().size() == 1);
}

TEST_CASE("ModelHost tells all who wait why a model does not load") {
  Hosting hosting;
  hosting.source.load_error = "the file is damaged";
  auto first = hosting.get(kBytes);
  CHECK(first->lease == nullptr);
  CHECK_THROWS_WITH(std::rethrow_exception(first->failure), "the file is damaged");
  hosting.source.load_error.clear();
  CHECK(hosting.get(kBytes)->lease != nullptr);
}

TEST_CASE("ModelHost refuses more waiting requests than it may hold") {
  HostOptions options;
  options.max_waiting = 2;
  Hosting hosting(options);
  auto busy = hosting.get(kBytes);
  auto a = hosting.ask(kOther);
  auto b = hosting.ask(kOther);
  CHECK_THROWS_AS(hosting.ask(kOther), ApiError);
  busy->drop();
  REQUIRE(eventually([&] { return b->is_done(); }));
}

TEST_CASE("ModelHost unloads on request once the last lease is gone") {
  Hosting hosting;
  CHECK(!hosting.host.unload("bytes:latest"));
  auto slot = hosting.get(kBytes);
  CHECK(hosting.host.unload("bytes:latest"));
  CHECK(hosting.host.list().at(0).stopping);
  CHECK(hosting.n_engines() == 1);
  slot->drop();
  CHECK(eventually([&] { return hosting.n_engines() == 0; }));
}

TEST_CASE("ModelHost replaces an engine that was reported broken") {
  Hosting hosting;
  auto slot = hosting.get(kBytes);
  slot->lease->report_broken();
  slot->drop();
  hosting.get(kBytes)->drop();
  CHECK(hosting.n_loads() == 2);
}

TEST_CASE("ModelHost that stops tells who waits and takes nobody else") {
  Hosting hosting;
  auto busy = hosting.get(kBytes);
  auto waiting = hosting.ask(kOther);
  hosting.host.stop();
  REQUIRE(waiting->is_done());
  CHECK_THROWS_AS(std::rethrow_exception(waiting->failure), ApiError);
  CHECK_THROWS_AS(hosting.ask(kBytes), ApiError);
}

}  // namespace
}  // namespace dsctl
