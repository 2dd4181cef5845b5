#include "commands/bench_statistics.h"

#include "commands/error.h"
#include "engine/model_shapes.h"
#include "tests/support/catch.h"

namespace dsctl::commands {
namespace {

using Catch::Contains;
using Numbers = std::vector<int>;

TEST_CASE("summarize gives mean, sample deviation and numpy's percentiles") {
  // numpy.percentile([1, 2, 3, 4, 10], [50, 90, 99]) and numpy.std(..., ddof=1)
  const Distribution d = summarize({10, 1, 4, 2, 3});
  CHECK(d.n == 5);
  CHECK(d.mean == Approx(4.0));
  CHECK(d.stddev == Approx(3.5355339059));
  CHECK(d.min == 1.0);
  CHECK(d.p50 == Approx(3.0));
  CHECK(d.p90 == Approx(7.6));
  CHECK(d.p99 == Approx(9.76));
  CHECK(d.max == 10.0);
}

TEST_CASE("summarize of one sample and of none") {
  const Distribution one = summarize({7.5});
  CHECK(one.mean == 7.5);
  CHECK(one.stddev == 0.0);
  CHECK(one.p99 == 7.5);
  CHECK(summarize({}).n == 0);
  CHECK(summarize({}).mean == 0.0);
}

TEST_CASE("a dense step reads all weights once, whatever its sequences") {
  const auto model = engine::measure_model(engine::open_model_shape("llama3-8b"));
  const auto all = static_cast<double>(model.total.size_bytes);
  const auto table = static_cast<double>(model.of(engine::WeightKind::kEmbedding).size_bytes);
  // All but the embedding table, of which a token reads one row.
  CHECK(step_weight_bytes(model, 1) == Approx(all - table).epsilon(1e-5));
  CHECK(step_weight_bytes(model, 32) == step_weight_bytes(model, 1));
}

TEST_CASE("more sequences choose more experts, at last all of them") {
  const auto model = engine::measure_model(engine::open_model_shape("deepseek-r1"));
  const auto& routed = model.of(engine::WeightKind::kRoutedExperts);
  const double others = step_weight_bytes(model, 1) - routed.size_bytes * 8.0 / 256;
  CHECK(step_weight_bytes(model, 1) == Approx(static_cast<double>(model.total.read_bytes)));
  // 1 - (1 - 8/256)^4
  CHECK(step_weight_bytes(model, 4) - others ==
        Approx(static_cast<double>(routed.size_bytes) * 0.1192627));
  CHECK(step_weight_bytes(model, 10000) - others == Approx(static_cast<double>(routed.size_bytes)));
}

TEST_CASE("a step reads the cache of every sequence, of windows what they show") {
  const auto dense = engine::measure_model(engine::open_model_shape("llama3-8b"));
  // 32 layers of 8 heads of 128 keys and values, two bytes each: 131072 bytes a token.
  CHECK(step_kv_bytes(dense, 131072, 1, 1000, 1) == Approx(1001.0 * 131072));
  // Of 3 tokens after 10 the contexts are 11, 12 and 13.
  CHECK(step_kv_bytes(dense, 131072, 4, 10, 3) == Approx(4 * 12.0 * 131072));
  CHECK(step_kv_bytes(dense, 131072, 1, 10, 0) == 0.0);
  const auto windowed = engine::measure_model(engine::open_model_shape("gemma3-1b"));
  const int64_t per_token = windowed.kv.values(1) * 4;
  CHECK(step_kv_bytes(windowed, per_token, 1, 100, 1) == Approx(101.0 * per_token));
  CHECK(step_kv_bytes(windowed, per_token, 1, 4999, 1) ==
        Approx(4.0 * (5000.0 * windowed.kv.full_values + 512.0 * windowed.kv.window_values)));
}

TEST_CASE("lists of numbers and ranges are llama-bench's") {
  CHECK(parse_number_list("512", "-p", 0, 1000) == Numbers{512});
  CHECK(parse_number_list("1,2,8", "-b", 1, 8) == Numbers{1, 2, 8});
  CHECK(parse_number_list("128-512+128", "-p", 0, 1000) == Numbers{128, 256, 384, 512});
  CHECK(parse_number_list("1-9*2,0", "-b", 0, 16) == Numbers{1, 2, 4, 8, 0});
  CHECK(parse_number_list("3-5", "-b", 1, 16) == Numbers{3, 4, 5});
}

TEST_CASE("a list that can't be is refused and named") {
  for (const char* text : {"", "x", "1,", ",1", "1,,2", "5-1", "1-9*1", "0-9*2", "1-9+0", "1-9/2",
                           "17", "-1", "1 2", "99999999999", "1-9+", "1-99"}) {
    CHECK_THROWS_WITH(parse_number_list(text, "--batch", 0, 16), Contains("--batch: \""));
  }
  CHECK_THROWS_WITH(parse_number_list("0-100000", "--depth", 0, 1 << 20),
                    Contains("more than 1000"));
}

TEST_CASE("the most memory is known and can be counted anew") {
  const int64_t before = peak_memory_bytes();
  CHECK(before > 1 << 20);
  reset_peak_memory();
  CHECK(peak_memory_bytes() <= before);
}

}  // namespace
}  // namespace dsctl::commands
