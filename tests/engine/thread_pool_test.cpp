#include "engine/cpu/thread_pool.h"

#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <vector>

#include "tests/support/catch.h"

namespace dsctl::engine {
namespace {

double process_cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

TEST_CASE("ThreadPool visits every index exactly once, whatever the sizes") {
  for (const int n_threads : {1, 2, 3, 7}) {
    ThreadPool pool(n_threads);
    for (const int64_t n : {0, 1, 2, 3, 15, 16, 17, 100, 1001}) {
      for (const int64_t min_piece : {1, 3, 16, 5000}) {
        std::vector<int> visits(static_cast<size_t>(n), 0);
        std::atomic<bool> sane{true};
        pool.parallel_for(n, min_piece, [&](int64_t begin, int64_t end, int thread_idx) {
          // Catch2's macros are not for several threads.
          if (begin >= end || thread_idx < 0 || thread_idx >= n_threads) sane = false;
          for (int64_t i = begin; i < end; ++i)
            ++visits[static_cast<size_t>(i)];
        });
        CHECK(sane);
        CHECK(visits == std::vector<int>(static_cast<size_t>(n), 1));
      }
    }
  }
}

TEST_CASE("ThreadPool's pieces are not smaller than asked") {
  ThreadPool pool(3);
  std::vector<int64_t> sizes(1000, 0);
  pool.parallel_for(1000, 90, [&](int64_t begin, int64_t end, int) {
    sizes[static_cast<size_t>(begin)] = end - begin;
  });
  for (const int64_t size : sizes)
    CHECK((size == 0 || size >= 90));
}

TEST_CASE("ThreadPool makes a loop's writes visible to the next loop and to the caller") {
  ThreadPool pool(3);
  std::vector<int64_t> values(64, 0);
  constexpr int kLoops = 20000;
  for (int loop = 0; loop < kLoops; ++loop) {
    // Neighbours are written by other threads in other loops: a missed join shows as a lost update.
    pool.parallel_for(64, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        values[static_cast<size_t>((i + loop) % 64)] += 1;
    });
  }
  CHECK(values == std::vector<int64_t>(64, kLoops));
}

TEST_CASE("ThreadPools live side by side on several threads") {
  std::vector<int64_t> sums(3, 0);
  std::vector<std::thread> owners;
  for (size_t owner = 0; owner < sums.size(); ++owner) {
    owners.emplace_back([&sums, owner] {
      ThreadPool pool(2);
      std::vector<int64_t> parts(100, 0);
      for (int loop = 0; loop < 500; ++loop) {
        pool.parallel_for(100, 1, [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i)
            parts[static_cast<size_t>(i)] += i;
        });
      }
      for (const int64_t part : parts)
        sums[owner] += part;
    });
  }
  for (std::thread& owner : owners)
    owner.join();
  for (const int64_t sum : sums)
    CHECK(sum == 500 * 4950);
}

TEST_CASE("ThreadPool uses next to no processor time while idle") {
  ThreadPool pool(4);
  pool.parallel_for(100, 1, [](int64_t, int64_t, int) {});
  const double before = process_cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(process_cpu_seconds() - before < 0.05);
}

}  // namespace
}  // namespace dsctl::engine
