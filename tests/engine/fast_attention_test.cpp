#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/fast/fast_attention.h"
#include "engine/cpu/kernels.h"
#include "tests/support/catch.h"

namespace dsctl::engine::fast {
namespace {

struct Isa {
  std::string name;
  const VectorIsa* vector;
  const AttentionIsa* attention;
};

std::vector<Isa> isas() {
  std::vector<Isa> result;
  if (cpu_features().avx2) result.push_back({"AVX2", &vector_avx2(), &attention_avx2()});
  if (cpu_features().avx512_vnni) {
    result.push_back({"AVX-512", &vector_avx512(), &attention_avx512()});
  }
  return result;
}

struct Shape {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int block_size = 16;
  gguf::DType dtype = gguf::DType::F32;
  float softcap = 0.0f;
  int window = 0;
  RopeStyle style = RopeStyle::kNeox;
  bool norms = false;
};

/// Sequences with random projections and their cache, run a few tokens at a time.
class Model {
 public:
  Model(const Shape& shape, const std::vector<int>& lengths, int n_threads)
      : shape_(shape), pool_(n_threads), random_(7) {
    for (const int length : lengths) {
      max_blocks_ = std::max(max_blocks_, (length + shape.block_size - 1) / shape.block_size);
      qkv_.push_back(normal(static_cast<size_t>(length) * static_cast<size_t>(qkv_cols())));
      out_.emplace_back(static_cast<size_t>(length) * static_cast<size_t>(q_cols()), NAN);
      done_.push_back(0);
    }
    const int n_blocks = max_blocks_ * static_cast<int>(lengths.size());
    std::vector<int32_t> blocks(static_cast<size_t>(n_blocks));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random_);
    tables_ = blocks;
    // What nobody has written must not matter: NaN everywhere.
    const size_t values = static_cast<size_t>(n_blocks) * static_cast<size_t>(shape.n_kv_heads) *
                          static_cast<size_t>(shape.block_size * shape.head_dim);
    k_.assign(values * 4, std::byte{0xff});
    v_.assign(values * 4, std::byte{0xff});
    q_norm_ = normal(static_cast<size_t>(shape.head_dim));
    k_norm_ = normal(static_cast<size_t>(shape.head_dim));
  }

  enum class Attend { kYes, kNo };

  /// Runs the next `counts[s]` tokens of each sequence in one step; null: the reference. kNo only
  /// fills the cache.
  void step(const std::vector<int>& counts, const Isa* isa, Attend attend = Attend::kYes) {
    std::vector<int32_t> positions;
    std::vector<int32_t> starts = {0};
    std::vector<int32_t> slots;
    std::vector<int32_t> tables;
    std::vector<float> qkv;
    for (size_t s = 0; s < counts.size(); ++s) {
      if (counts[s] == 0) continue;
      const int32_t* table = tables_.data() + s * static_cast<size_t>(max_blocks_);
      tables.insert(tables.end(), table, table + max_blocks_);
      for (int i = 0; i < counts[s]; ++i) {
        const int p = done_[s] + i;
        positions.push_back(p);
        slots.push_back(table[p / shape_.block_size] * shape_.block_size + p % shape_.block_size);
        const float* row = qkv_[s].data() + static_cast<int64_t>(p) * qkv_cols();
        qkv.insert(qkv.end(), row, row + qkv_cols());
      }
      starts.push_back(static_cast<int32_t>(positions.size()));
    }
    const auto n_tokens = static_cast<int>(positions.size());
    std::vector<float> out(static_cast<size_t>(n_tokens * q_cols()), NAN);
    run(isa, attend, n_tokens, qkv, out, positions, starts, slots, tables);
    const float* row = out.data();
    for (size_t s = 0; s < counts.size(); ++s) {
      const int64_t n = static_cast<int64_t>(counts[s]) * q_cols();
      std::copy_n(row, n, out_[s].data() + static_cast<int64_t>(done_[s]) * q_cols());
      row += n;
      done_[s] += counts[s];
    }
  }

  const std::vector<std::vector<float>>& out() const { return out_; }

 private:
  int q_cols() const { return shape_.n_heads * shape_.head_dim; }
  int kv_cols() const { return shape_.n_kv_heads * shape_.head_dim; }
  int qkv_cols() const { return q_cols() + 2 * kv_cols(); }

  std::vector<float> normal(size_t n) {
    std::normal_distribution<float> distribution;
    std::vector<float> values(n);
    for (float& value : values)
      value = distribution(random_);
    return values;
  }

  void run(const Isa* isa, Attend attend, int n_tokens, std::vector<float>& qkv,
           std::vector<float>& out, const std::vector<int32_t>& positions,
           const std::vector<int32_t>& starts, const std::vector<int32_t>& slots,
           const std::vector<int32_t>& tables) {
    const int n_dims = shape_.head_dim / 2 / 2 * 2;  // half of the head turns
    std::vector<float> cos_sin;
    for (const int32_t p : positions) {
      for (int i = 0; i < n_dims / 2; ++i) {
        const double angle = p * std::pow(10000.0, -2.0 * i / n_dims);
        cos_sin.push_back(static_cast<float>(std::cos(angle)));
        cos_sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    const KvPages kv{.dtype = shape_.dtype,
                     .k = k_.data(),
                     .v = v_.data(),
                     .block_size = shape_.block_size,
                     .n_kv_heads = shape_.n_kv_heads,
                     .head_dim = shape_.head_dim};
    const auto part = [&](int first, int n) {
      return MutableRows{qkv.data() + first, qkv_cols(), n_tokens, n};
    };
    const RopeStoreArgs store{.q = part(0, q_cols()),
                              .k = part(q_cols(), kv_cols()),
                              .v = part(q_cols() + kv_cols(), kv_cols()),
                              .q_norm = shape_.norms ? q_norm_.data() : nullptr,
                              .k_norm = shape_.norms ? k_norm_.data() : nullptr,
                              .norm_eps = 1e-6f,
                              .style = shape_.style,
                              .n_dims = n_dims,
                              .cos_sin = cos_sin.data(),
                              .kv = kv,
                              .n_heads = shape_.n_heads,
                              .slot_mapping = slots.data()};
    const int64_t stride = max_blocks_ * shape_.block_size + kAttentionScratch;
    std::vector<float> scratch(static_cast<size_t>(pool_.n_threads() * stride));
    const AttentionArgs args{.out = {out.data(), q_cols(), n_tokens, q_cols()},
                             .q = part(0, q_cols()),
                             .kv = kv,
                             .n_heads = shape_.n_heads,
                             .scale = 0.3f,
                             .softcap = shape_.softcap,
                             .window = shape_.window,
                             .positions = positions.data(),
                             .query_starts = starts.data(),
                             .block_tables = tables.data(),
                             .n_seqs = static_cast<int>(starts.size()) - 1,
                             .max_blocks_per_seq = max_blocks_,
                             .scratch = scratch.data(),
                             .scratch_stride = stride};
    if (isa == nullptr) {
      rope_store_reference(store, pool_);
      attention_reference(args, pool_);
    } else {
      REQUIRE(takes_pages(kv));
      rope_store(*isa->vector, store, pool_);
      if (attend == Attend::kYes) attention(*isa->attention, args, pool_);
    }
  }

  const Shape shape_;
  ThreadPool pool_;
  std::mt19937 random_;
  int max_blocks_ = 0;
  std::vector<int32_t> tables_;  // (n_seqs, max_blocks)
  std::vector<std::vector<float>> qkv_;
  std::vector<std::vector<float>> out_;
  std::vector<int> done_;
  std::vector<std::byte> k_;
  std::vector<std::byte> v_;
  std::vector<float> q_norm_;
  std::vector<float> k_norm_;
};

double nmse(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0;
  double power = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    power += std::pow(static_cast<double>(want[i]), 2);
  }
  return error / power;
}

std::vector<Shape> shapes() {
  return {
      {.n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .style = RopeStyle::kNorm},
      {.n_heads = 4, .n_kv_heads = 1, .head_dim = 256, .window = 100, .norms = true},
      {.n_heads = 2, .n_kv_heads = 2, .head_dim = 80, .block_size = 32, .softcap = 5.0f},
      {.n_heads = 10, .n_kv_heads = 1, .head_dim = 16, .block_size = 48, .norms = true},
      {.n_heads = 8, .n_kv_heads = 2, .head_dim = 128, .dtype = gguf::DType::F16},
  };
}

TEST_CASE("fast attention agrees with the reference on ragged batches") {
  for (const Isa& isa : isas()) {
    for (const Shape& shape : shapes()) {
      const std::vector<int> lengths = {1, 300, 17, 270};
      Model fast(shape, lengths, 2);
      Model reference(shape, lengths, 2);
      for (const auto& counts : {std::vector<int>{1, 299, 16, 5}, std::vector<int>{0, 1, 1, 265}}) {
        fast.step(counts, &isa);
        reference.step(counts, nullptr);
      }
      for (size_t s = 0; s < lengths.size(); ++s) {
        INFO(isa.name << ", head_dim " << shape.head_dim << ", sequence " << s);
        // In f16 a rope that differs in the last bit can round a key to its neighbour.
        CHECK(nmse(fast.out()[s], reference.out()[s]) <
              (shape.dtype == gguf::DType::F16 ? 1e-7 : 1e-10));
      }
    }
  }
}

TEST_CASE("fast attention gives a token the same bits in any batch, chunking and thread count") {
  for (const Isa& isa : isas()) {
    for (const Shape& shape : shapes()) {
      // Two chunks of keys, the second begun.
      Model whole(shape, {290, 40}, 1);
      whole.step({290, 40}, &isa);
      for (const int n_threads : {1, 3}) {
        Model single(shape, {290, 40}, n_threads);
        for (int i = 0; i < 290; ++i)
          single.step({1, i < 40 ? 1 : 0}, &isa);
        Model chunks(shape, {290, 40}, n_threads);
        chunks.step({255, 0}, &isa);
        chunks.step({3, 13}, &isa);
        chunks.step({31, 1}, &isa);
        chunks.step({1, 26}, &isa);
        INFO(isa.name << ", head_dim " << shape.head_dim << ", " << n_threads << " threads");
        CHECK(single.out() == whole.out());
        CHECK(chunks.out() == whole.out());
      }
    }
  }
}

TEST_CASE("fast attention merges more chunks than fit in its scratch memory, to the same bits") {
  const Shape shape{.n_heads = 8, .n_kv_heads = 1, .head_dim = 256};
  for (const Isa& isa : isas()) {
    std::vector<std::vector<float>> results;
    for (const int n_threads : {1, 2}) {
      Model model(shape, {1401}, n_threads);
      model.step({1400}, &isa, Model::Attend::kNo);
      model.step({1}, &isa);
      results.emplace_back(model.out()[0].end() - 8 * 256, model.out()[0].end());
    }
    CHECK(results[0] == results[1]);
  }
}

TEST_CASE("fast vector functions keep their bounds") {
  std::vector<float> x;
  for (float value = -30.0f; value < 30.0f; value += 0.37f)
    x.push_back(value);
  x.insert(x.end(), {0.0f, -0.0f, 1e-20f, -1000.0f, 1000.0f});
  const std::vector<float> up(x.size(), 1.0f);
  std::vector<float> y(x.size());
  for (const Isa& isa : isas()) {
    isa.vector->gated_silu(y.data(), x.data(), up.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const double v = static_cast<double>(x[i]);
      const double want = v / (1.0 + std::exp(-v));
      INFO(isa.name << " silu " << v);
      CHECK(std::abs(static_cast<double>(y[i]) - want) <= 4e-7 * std::abs(want) + 1e-30);
    }
    isa.vector->gated_gelu(y.data(), x.data(), up.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const double v = static_cast<double>(x[i]);
      const double u = std::sqrt(2.0 / M_PI) * (v + 0.044715 * v * v * v);
      const double want = v / (1.0 + std::exp(-2.0 * u));
      INFO(isa.name << " gelu " << v);
      // The exponent's rounding error grows with it: relative 1e-5 only where the value is tiny.
      CHECK(std::abs(static_cast<double>(y[i]) - want) <= 1e-6 * std::abs(want) + 1e-7);
    }
  }
}

TEST_CASE("fast rmsnorm and add take any length") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const Isa& isa : isas()) {
    for (const int n : {1, 7, 16, 33, 576, 640}) {
      std::vector<float> x(static_cast<size_t>(n));
      std::vector<float> weight(x.size());
      for (float& value : x)
        value = normal(random);
      for (float& value : weight)
        value = normal(random);
      std::vector<float> want(x.size());
      std::vector<float> got(x.size());
      rmsnorm(want.data(), x.data(), weight.data(), n, 1e-5f);
      isa.vector->rmsnorm(got.data(), x.data(), weight.data(), n, 1e-5f);
      INFO(isa.name << ", " << n << " values");
      CHECK(nmse(got, want) < 1e-12);
      isa.vector->add(got.data(), x.data(), n);
      for (size_t i = 0; i < want.size(); ++i)
        want[i] += x[i];
      CHECK(nmse(got, want) < 1e-12);
    }
  }
}

}  // namespace
}  // namespace dsctl::engine::fast
