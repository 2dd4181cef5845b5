#include <array>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "engine/comm/communicator.h"
#include "engine/comm/thread_comm.h"
#include "engine/error.h"
#include "tests/support/catch.h"

namespace dsctl::engine {
namespace {

std::vector<float> random_values(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1000.0f, 1000.0f);
  std::vector<float> values(n);
  for (float& value : values)
    value = uniform(random);
  return values;
}

TEST_CASE("A group of one leaves values alone and gathers its own part") {
  SingleRank comm;
  std::vector<float> values{1, 2, 3};
  comm.all_reduce(values);
  CHECK(values == std::vector<float>{1, 2, 3});
  std::vector<float> all(3);
  comm.all_gather(values, all);
  CHECK(all == values);
  std::vector<float> wrong(4);
  CHECK_THROWS_AS(comm.all_gather(values, wrong), Error);
  comm.barrier();
}

TEST_CASE("all_reduce adds in rank order and gives every rank the same bits") {
  for (const int n_ranks : {1, 2, 3, 5}) {
    for (const size_t n : {size_t{0}, size_t{1}, size_t{2}, size_t{7}, size_t{1000}}) {
      std::vector<std::vector<float>> buffers;
      for (int rank = 0; rank < n_ranks; ++rank) {
        buffers.push_back(random_values(n, static_cast<uint32_t>(rank)));
      }
      std::vector<float> expected = buffers[0];
      for (size_t rank = 1; rank < buffers.size(); ++rank) {
        for (size_t i = 0; i < n; ++i)
          expected[i] += buffers[rank][i];
      }
      ThreadGroup group(n_ranks);
      run_ranks(group, [&](Communicator& comm) {
        comm.all_reduce(buffers[static_cast<size_t>(comm.rank())]);
      });
      for (const auto& buffer : buffers) {
        CHECK((n == 0 || std::memcmp(buffer.data(), expected.data(), n * sizeof(float)) == 0));
      }
    }
  }
}

TEST_CASE("all_gather joins parts of different lengths, also in place") {
  const std::vector<size_t> lengths{3, 0, 5};
  const std::vector<float> expected = random_values(8, 1);
  std::vector<std::vector<float>> results(3, std::vector<float>(8));
  ThreadGroup group(3);
  run_ranks(group, [&](Communicator& comm) {
    const auto rank = static_cast<size_t>(comm.rank());
    const size_t begin = std::accumulate(lengths.begin(), lengths.begin() + comm.rank(), size_t{0});
    auto& all = results[rank];
    std::copy_n(expected.begin() + static_cast<ptrdiff_t>(begin), lengths[rank],
                all.begin() + static_cast<ptrdiff_t>(begin));
    comm.all_gather(std::span(all).subspan(begin, lengths[rank]), all);
  });
  for (const auto& result : results)
    CHECK(result == expected);
}

TEST_CASE("broadcast copies the root's bytes to all ranks") {
  for (int root = 0; root < 3; ++root) {
    std::vector<std::array<int, 4>> values(3);
    values[static_cast<size_t>(root)] = {4, 3, 2, 1};
    ThreadGroup group(3);
    run_ranks(group, [&](Communicator& comm) {
      comm.broadcast(std::as_writable_bytes(std::span(values[static_cast<size_t>(comm.rank())])),
                     root);
    });
    for (const auto& value : values)
      CHECK(value == std::array{4, 3, 2, 1});
  }
}

TEST_CASE("Thousands of exchanges in a row stay in step") {
  constexpr int kRounds = 5000;
  ThreadGroup group(3);
  std::vector<int> n_wrong(3);
  run_ranks(group, [&](Communicator& comm) {
    std::array<float, 5> values{};
    for (int round = 0; round < kRounds; ++round) {
      values.fill(static_cast<float>(round + comm.rank()));
      comm.all_reduce(values);
      for (const float value : values) {
        n_wrong[static_cast<size_t>(comm.rank())] += value != static_cast<float>(3 * round + 3);
      }
      if (round % 7 == 0) comm.barrier();
    }
  });
  CHECK(n_wrong == std::vector<int>{0, 0, 0});
}

TEST_CASE("A rank that throws frees the ranks that wait for it, and its own error comes out") {
  for (int round = 0; round < 200; ++round) {
    ThreadGroup group(3);
    std::string message;
    try {
      run_ranks(group, [&](Communicator& comm) {
        std::vector<float> values(16, 1.0f);
        for (int step = 0; step < 5; ++step) {
          if (comm.rank() == round % 3 && step == round % 5) throw Error("rank broke");
          comm.all_reduce(values);
        }
      });
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(message == "rank broke");
    CHECK(group.aborted());
  }
}

TEST_CASE("An aborted group refuses with the first reason and works again after a reset") {
  ThreadGroup group(2);
  group.abort("device lost");
  group.abort("later");
  CHECK_THROWS_WITH(run_ranks(group, [](Communicator& comm) { comm.barrier(); }), "device lost");
  group.reset();
  CHECK_NOTHROW(run_ranks(group, [](Communicator& comm) { comm.barrier(); }));
}

TEST_CASE("Ranks that disagree on a size get an error instead of waiting") {
  ThreadGroup group(2);
  CHECK_THROWS_AS(run_ranks(group,
                            [](Communicator& comm) {
                              std::vector<float> values(comm.rank() == 0 ? 4 : 5);
                              comm.all_reduce(values);
                            }),
                  Error);
  group.reset();
  CHECK_THROWS_AS(run_ranks(group,
                            [](Communicator& comm) {
                              std::vector<float> part(2);
                              std::vector<float> all(comm.rank() == 0 ? 4 : 5);
                              comm.all_gather(part, all);
                            }),
                  Error);
}

}  // namespace
}  // namespace dsctl::engine
