#include "engine/scheduler.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <random>

#include "tests/support/catch.h"
#include "tests/support/engine_fake_worker.h"

namespace dsctl::engine {
namespace {

/// A scheduler with its blocks, a fake worker and the sequences that the engine would own.
class House {
 public:
  House(const SchedulerOptions& options, int n_blocks, int block_size,
        PrefixCaching caching = PrefixCaching::kOn)
      : blocks_(n_blocks, block_size, caching),
        scheduler_(options, &blocks_),
        worker_({.limits = tests::fake_limits(n_blocks, block_size, n_blocks * block_size),
                 .on_step = {},
                 .on_result = {},
                 .is_alive = {}},
                &violations_) {}

  Sequence& add(std::vector<int32_t> prompt, int n_output) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = ++last_id_;
    sequence->tokens = std::move(prompt);
    sequence->n_prompt = sequence->n_tokens();
    sequence->max_len = sequence->n_prompt + n_output;
    sequence->sampling.temperature = 0.0f;
    Sequence& added = *sequence;
    scheduler_.add(&added);
    sequences_.emplace(added.id, std::move(sequence));
    return added;
  }

  void remove(Sequence& sequence) {
    scheduler_.remove(&sequence);
    sequences_.erase(sequence.id);
  }

  /// Runs the step that schedule() laid out; returns the sequences that have all their tokens.
  std::vector<Sequence*> finish_step(const Batch& batch) {
    const auto sampled = worker_.run(batch);
    scheduler_.complete();
    std::vector<Sequence*> finished;
    for (size_t i = 0; i < sampled.size(); ++i) {
      Sequence* sequence = scheduler_.sampled()[i];
      sequence->tokens.push_back(sampled[i].token);
      if (sequence->n_tokens() == sequence->max_len) finished.push_back(sequence);
    }
    return finished;
  }

  std::vector<Sequence*> step() { return finish_step(scheduler_.schedule()); }

  BlockManager blocks_;
  Scheduler scheduler_;
  std::vector<std::string> violations_;
  tests::FakeWorker worker_;
  std::map<RequestId, std::unique_ptr<Sequence>> sequences_;
  RequestId last_id_ = 0;
};

std::vector<int32_t> prompt_of(int n_tokens, int32_t first = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(n_tokens));
  for (int i = 0; i < n_tokens; ++i)
    tokens[static_cast<size_t>(i)] = (first + i) % 50;
  return tokens;
}

int scheduled_of(const Batch& batch, const House& house, const Sequence& sequence) {
  const auto& scheduled = house.scheduler_.scheduled();
  const auto found = std::find(scheduled.begin(), scheduled.end(), &sequence);
  if (found == scheduled.end()) return 0;
  const auto i = static_cast<size_t>(found - scheduled.begin());
  return batch.query_starts[i + 1] - batch.query_starts[i];
}

TEST_CASE("A step is laid out as the block tables say") {
  House house({.max_num_seqs = 4, .max_num_batched_tokens = 16}, 8, 4);
  house.add(prompt_of(6), 3);
  house.add(prompt_of(3, 20), 3);
  const Batch& batch = house.scheduler_.schedule();
  CHECK(batch.token_ids == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 20, 21, 22});
  CHECK(batch.positions == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 0, 1, 2});
  CHECK(batch.query_starts == std::vector<int32_t>{0, 6, 9});
  CHECK(batch.context_lens == std::vector<int32_t>{6, 3});
  CHECK(batch.max_blocks_per_seq == 2);
  CHECK(batch.block_tables == std::vector<int32_t>{0, 1, 2, -1});
  CHECK(batch.slot_mapping == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 8, 9, 10});
  REQUIRE(batch.sample_rows.size() == 2);
  CHECK(batch.sample_rows[0].token_idx == 5);
  CHECK(batch.sample_rows[1].token_idx == 8);
}

TEST_CASE("Sequences in decode come first, prompts share what is left, the oldest gets most") {
  House house({.max_num_seqs = 4, .max_num_batched_tokens = 17}, 64, 4);
  Sequence& decoding = house.add(prompt_of(2), 20);
  house.step();
  Sequence& first = house.add(prompt_of(100, 1), 5);
  Sequence& second = house.add(prompt_of(100, 2), 5);
  Sequence& brief = house.add(prompt_of(2, 3), 5);
  const Batch& batch = house.scheduler_.schedule();
  CHECK(house.scheduler_.scheduled()[0] == &decoding);
  CHECK(batch.n_tokens() == 17);
  CHECK(scheduled_of(batch, house, first) == 10);  // half of 16, and the 2 left over
  CHECK(scheduled_of(batch, house, second) == 4);
  CHECK(scheduled_of(batch, house, brief) == 2);
  CHECK(batch.sample_rows.size() == 2);  // the decoding one and the short prompt
}

TEST_CASE("A short prompt behind a very long one gets its first token in the next step") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64}, 400, 16);
  house.add(prompt_of(5000), 5);
  house.step();
  Sequence& brief = house.add(prompt_of(16, 7), 5);
  house.step();
  CHECK(brief.n_generated() == 1);
}

TEST_CASE("A long prompt is not held up by a stream of short ones") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64}, 400, 16, PrefixCaching::kOff);
  Sequence& large = house.add(prompt_of(3200), 5);
  int n_steps = 0;
  while (large.n_generated() == 0) {
    for (int i = 0; i < 4; ++i)
      house.add(prompt_of(30, n_steps + i), 1);
    for (Sequence* sequence : house.step())
      house.remove(*sequence);
    ++n_steps;
  }
  CHECK(n_steps <= 101);  // at least 32 of 64 tokens of each step
}

TEST_CASE("The youngest is preempted when blocks run out, and continues where it was") {
  House house({.max_num_seqs = 4, .max_num_batched_tokens = 64}, 6, 4);
  Sequence& oldest = house.add(prompt_of(7), 12);
  Sequence& youngest = house.add(prompt_of(7, 20), 12);
  while (house.scheduler_.n_preemptions() == 0)
    house.step();
  CHECK(house.scheduler_.n_running() == 1);
  CHECK(youngest.table.block_ids.empty());
  CHECK(youngest.n_generated() > 0);
  const auto before = youngest.tokens;
  for (bool oldest_done = false; !oldest_done;) {
    for (Sequence* sequence : house.step()) {
      oldest_done = sequence == &oldest;
      REQUIRE(oldest_done);
      house.remove(*sequence);
    }
  }
  std::vector<Sequence*> finished;
  while (finished.empty())
    finished = house.step();
  CHECK(std::equal(before.begin(), before.end(), youngest.tokens.begin()));
  CHECK(house.violations_ == std::vector<std::string>{});
}

TEST_CASE("A repeated prompt is computed from its last whole block on") {
  House house({.max_num_seqs = 4, .max_num_batched_tokens = 64}, 32, 4);
  house.add(prompt_of(18), 1);
  house.step();
  Sequence& again = house.add(prompt_of(18), 1);
  const Batch& batch = house.scheduler_.schedule();
  CHECK(again.n_cached == 16);
  CHECK(scheduled_of(batch, house, again) == 2);
  Sequence& whole_blocks = house.add(prompt_of(16), 1);
  house.finish_step(batch);
  CHECK(scheduled_of(house.scheduler_.schedule(), house, whole_blocks) == 4);
}

TEST_CASE("A failed step leaves nothing behind and can be repeated") {
  House house({.max_num_seqs = 4, .max_num_batched_tokens = 8}, 32, 4);
  Sequence& sequence = house.add(prompt_of(12), 2);
  house.scheduler_.schedule();
  house.scheduler_.abandon();
  CHECK(sequence.n_computed == 0);
  BlockTable probe;
  CHECK(house.blocks_.allocate(prompt_of(12), 0, probe) == 0);
  house.blocks_.release(probe);
  while (house.step().empty()) {
  }
  CHECK(sequence.n_generated() == 2);
  CHECK(house.violations_ == std::vector<std::string>{});
}

/// Tokens that the fake model gives a prompt when it is alone: greedy on fake_logits.
std::vector<int32_t> expected_tokens(std::vector<int32_t> tokens, int max_len) {
  while (static_cast<int>(tokens.size()) < max_len) {
    const auto logits = tests::fake_logits(tokens, 50);
    tokens.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  return tokens;
}

struct Load {
  SchedulerOptions options;
  int n_blocks = 0;
  int block_size = 0;
  PrefixCaching caching = PrefixCaching::kOn;
  int n_operations = 0;
};

/// Random arrivals, cancellations, failed steps; few prompts with common beginnings.
void run_random_load(const Load& load, uint32_t seed) {
  House house(load.options, load.n_blocks, load.block_size, load.caching);
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  const int capacity = load.n_blocks * load.block_size;
  int n_finished = 0;
  const auto check = [&](Sequence& sequence) {
    const std::vector<int32_t> prompt(sequence.tokens.begin(),
                                      sequence.tokens.begin() + sequence.n_prompt);
    REQUIRE(sequence.tokens == expected_tokens(prompt, sequence.max_len));
    ++n_finished;
    house.remove(sequence);
  };
  const auto step = [&] {
    const Batch& batch = house.scheduler_.schedule();
    if (batch.n_tokens() == 0) return;
    REQUIRE(batch.n_tokens() <= load.options.max_num_batched_tokens);
    REQUIRE(house.scheduler_.n_running() <= load.options.max_num_seqs);
    REQUIRE(house.blocks_.n_free() + house.blocks_.n_used() == load.n_blocks);
    // Nobody starves: the oldest of all is in every step.
    const auto& scheduled = house.scheduler_.scheduled();
    REQUIRE(std::find(scheduled.begin(), scheduled.end(), house.sequences_.begin()->second.get()) !=
            scheduled.end());
    if (below(50) == 0) {
      house.scheduler_.abandon();
      return;
    }
    for (Sequence* sequence : house.finish_step(batch))
      check(*sequence);
  };
  for (int operation = 0; operation < load.n_operations; ++operation) {
    const int kind = below(100);
    if (kind < 12 && house.sequences_.size() < 12) {
      const int n_prompt = 1 + below(std::min(capacity - 1, 40));
      const int n_output = 1 + below(std::min(capacity - n_prompt, 25));
      house.add(prompt_of(n_prompt, below(3)), n_output);
    } else if (kind < 14 && !house.sequences_.empty()) {
      auto victim = house.sequences_.begin();
      std::advance(victim, below(static_cast<int>(house.sequences_.size())));
      house.remove(*victim->second);
    } else {
      step();
    }
    if (operation % 256 == 0) REQUIRE(house.blocks_.is_consistent());
  }
  for (int i = 0; !house.sequences_.empty(); ++i) {
    REQUIRE(i < 10000);
    step();
  }
  CHECK(house.violations_ == std::vector<std::string>{});
  CHECK(house.blocks_.n_free() == load.n_blocks);
  CHECK(n_finished > load.n_operations / 100);
  CHECK(house.scheduler_.n_waiting() + house.scheduler_.n_running() == 0);
}

TEST_CASE("Every sequence ends with its own tokens over 300000 random operations") {
  // Roomy, scarce (much preemption), and blocks for little more than one sequence.
  run_random_load({.options = {.max_num_seqs = 8, .max_num_batched_tokens = 32},
                   .n_blocks = 200,
                   .block_size = 4,
                   .caching = PrefixCaching::kOn,
                   .n_operations = 80000},
                  1);
  run_random_load({.options = {.max_num_seqs = 8, .max_num_batched_tokens = 24},
                   .n_blocks = 24,
                   .block_size = 4,
                   .caching = PrefixCaching::kOn,
                   .n_operations = 80000},
                  2);
  run_random_load({.options = {.max_num_seqs = 5, .max_num_batched_tokens = 5},
                   .n_blocks = 17,
                   .block_size = 4,
                   .caching = PrefixCaching::kOn,
                   .n_operations = 60000},
                  3);
  run_random_load({.options = {.max_num_seqs = 8, .max_num_batched_tokens = 64},
                   .n_blocks = 30,
                   .block_size = 3,
                   .caching = PrefixCaching::kOff,
                   .n_operations = 80000},
                  4);
}

}  // namespace
}  // namespace dsctl::engine
