#include <algorithm>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/model_worker.h"
#include "engine/models/models.h"
#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"

namespace dsctl::engine {
namespace {

using tests::add_tokens;
using tests::Blocks;
using tests::golden_models;
using tests::GoldenModel;

// Neither in order nor adjacent, so that a wrong block is noticed.
const Blocks kBlocks{7, 3, 12, 1, 9};
const Blocks kOtherBlocks{20, 31, 22, 29, 24};

/// The logits of all tokens, computed in chunks of `chunk`.
std::vector<float> run_in_chunks(ModelWorker& worker, const std::vector<int32_t>& tokens,
                                 int chunk) {
  const int n_tokens = static_cast<int>(tokens.size());
  std::vector<float> all;
  for (int begin = 0; begin < n_tokens; begin += chunk) {
    Batch batch;
    add_tokens(batch, tokens, begin, std::min(begin + chunk, n_tokens), kBlocks,
               worker.limits().block_size);
    const auto logits = worker.run_logits(batch);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

std::vector<int32_t> argmax_rows(const std::vector<float>& logits, int vocab_size) {
  std::vector<int32_t> best;
  for (size_t row = 0; row < logits.size(); row += static_cast<size_t>(vocab_size)) {
    const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row);
    best.push_back(static_cast<int32_t>(std::max_element(begin, begin + vocab_size) - begin));
  }
  return best;
}

}  // namespace

TEST_CASE("Models of every architecture compute the logits of transformers") {
  for (const GoldenModel& golden : golden_models()) {
    const auto file = gguf::GgufFile::open(golden.path);
    ModelWorker worker(file, tests::small_options());
    const auto logits = run_in_chunks(worker, golden.tokens, 64);
    INFO(golden.name);
    REQUIRE(logits.size() == golden.logits.size());
    CHECK(tests::max_abs_error(logits, golden.logits) <= 1e-4);
  }
}

TEST_CASE("A prompt in chunks, or token by token, gives the same bits as in one piece") {
  for (const GoldenModel& golden : golden_models()) {
    const auto file = gguf::GgufFile::open(golden.path);
    ModelWorker worker(file, tests::small_options());
    const auto whole = run_in_chunks(worker, golden.tokens, 64);
    INFO(golden.name);
    CHECK(run_in_chunks(worker, golden.tokens, 1) == whole);
    CHECK(run_in_chunks(worker, golden.tokens, 7) == whole);
    CHECK(run_in_chunks(worker, golden.tokens, 32) == whole);
  }
}

TEST_CASE("A sequence has the same bits alone and in a batch with others") {
  for (const GoldenModel& golden : golden_models()) {
    const auto file = gguf::GgufFile::open(golden.path);
    ModelWorker worker(file, tests::small_options());
    const auto alone = run_in_chunks(worker, golden.tokens, 64);
    std::vector<int32_t> others(golden.tokens.rbegin(), golden.tokens.rend());

    Batch batch;
    add_tokens(batch, others, 0, 29, kOtherBlocks, 8);
    add_tokens(batch, golden.tokens, 0, static_cast<int>(golden.tokens.size()), kBlocks, 8);
    add_tokens(batch, others, 0, 3, Blocks{40}, 8);
    const auto together = worker.run_logits(batch);
    const size_t first = size_t{29} * static_cast<size_t>(golden.vocab_size);
    const std::vector<float> own(
        together.begin() + static_cast<std::ptrdiff_t>(first),
        together.begin() + static_cast<std::ptrdiff_t>(first + alone.size()));
    INFO(golden.name);
    CHECK(own == alone);
  }
}

TEST_CASE("Logits are the same whether all rows are wanted or only the last") {
  for (const GoldenModel& golden : golden_models()) {
    const auto file = gguf::GgufFile::open(golden.path);
    ModelWorker worker(file, tests::small_options());
    const auto all = run_in_chunks(worker, golden.tokens, 64);
    Batch batch;
    add_tokens(batch, golden.tokens, 0, static_cast<int>(golden.tokens.size()), kBlocks, 8);
    batch.sample_rows.erase(batch.sample_rows.begin(), batch.sample_rows.end() - 1);
    const auto last = worker.run_logits(batch);
    INFO(golden.name);
    CHECK(last == std::vector<float>(all.end() - golden.vocab_size, all.end()));
  }
}

TEST_CASE("Two ranks compute what one computes", "[tp]") {
  for (const GoldenModel& golden : golden_models()) {
    const auto file = gguf::GgufFile::open(golden.path);
    ModelWorker single(file, tests::small_options());
    auto options = tests::small_options();
    options.tp_size = 2;
    ModelWorker pair(file, options);
    const auto one = run_in_chunks(single, golden.tokens, 64);
    const auto two = run_in_chunks(pair, golden.tokens, 64);
    INFO(golden.name);
    CHECK(tests::nmse(two, one) <= 1e-11);
    CHECK(argmax_rows(two, golden.vocab_size) == argmax_rows(one, golden.vocab_size));
    CHECK(run_in_chunks(pair, golden.tokens, 7) == two);
  }
}

TEST_CASE("An architecture that is not supported is named beside those that are") {
  const auto& supported = architectures();
  REQUIRE(supported.size() >= 4);
  for (const GoldenModel& golden : golden_models()) {
    const auto file = gguf::GgufFile::open(golden.path);
    CHECK(find_architecture(file).name == golden.name.substr(0, golden.name.find('_')));
  }
}

}  // namespace dsctl::engine
