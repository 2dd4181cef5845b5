#include "engine/cpu/fast/fast_attention.h"

#include <algorithm>
#include <cassert>
#include <climits>
#include <cstring>

namespace dsctl::engine::fast {
namespace {

static_assert(attention_state_size(kMaxAttentionRows, kMaxFastHeadDim) +
                  attention_scratch_size(kMaxAttentionRows, kMaxFastHeadDim) <=
              kAttentionScratch);

constexpr int kMaxTilesAtOnce = 8;

/// First element of the 16-position group of `slot` and KV head.
int64_t group_element(const KvPages& kv, int64_t slot, int kv_head) {
  return kv.element(slot / kKeyLanes * kKeyLanes, kv_head);
}

template <typename Value>
void store_key(std::byte* pages, int64_t group, int64_t lane, const Value* key, int head_dim) {
  Value* to = reinterpret_cast<Value*>(pages) + group + lane;
  for (int d = 0; d < head_dim; ++d)
    to[d * kKeyLanes] = key[d];
}

/// Writes one token's keys and values, heads side by side, into its slot.
void store_token(const VectorIsa& isa, const KvPages& kv, int64_t slot, const float* k,
                 const float* v) {
  const int head_dim = kv.head_dim;
  for (int h = 0; h < kv.n_kv_heads; ++h, k += head_dim, v += head_dim) {
    const int64_t group = group_element(kv, slot, h);
    const int64_t lane = slot % kKeyLanes;
    const int64_t value = kv.element(slot, h);
    if (kv.dtype == gguf::DType::F32) {
      store_key(kv.k, group, lane, k, head_dim);
      std::memcpy(kv.v + value * 4, v, static_cast<size_t>(head_dim) * 4);
      continue;
    }
    uint16_t halves[kMaxFastHeadDim];
    isa.to_half(halves, k, head_dim);
    store_key(kv.k, group, lane, halves, head_dim);
    isa.to_half(halves, v, head_dim);
    std::memcpy(kv.v + value * 2, halves, static_cast<size_t>(head_dim) * 2);
  }
}

/// How the query rows of a batch are cut into tiles: rows of a sequence and KV head are (token,
/// head of the group), heads fastest.
class Tiling {
 public:
  explicit Tiling(const AttentionArgs& args)
      : args_(args), group_(args.n_heads / args.kv.n_kv_heads) {
    for (int seq = 0; seq < args.n_seqs; ++seq) {
      n_tiles_ += args.kv.n_kv_heads * tiles_of_head(seq);
    }
  }

  int64_t n_tiles() const { return n_tiles_; }

  /// A tile with its output rows.
  struct Item {
    AttentionTile tile;
    float* out[kMaxAttentionRows];
    int n_chunks;  // of its last key
    int first_chunk;
  };
  Item item(int64_t tile_idx) const {
    int seq = 0;
    for (; tile_idx >= args_.kv.n_kv_heads * tiles_of_head(seq); ++seq) {
      tile_idx -= args_.kv.n_kv_heads * tiles_of_head(seq);
    }
    const auto kv_head = static_cast<int>(tile_idx / tiles_of_head(seq));
    return make_item(seq, kv_head, tile_idx % tiles_of_head(seq) * kMaxAttentionRows);
  }

 private:
  int64_t rows_of_head(int seq) const {
    return static_cast<int64_t>(args_.query_starts[seq + 1] - args_.query_starts[seq]) * group_;
  }
  int64_t tiles_of_head(int seq) const {
    return (rows_of_head(seq) + kMaxAttentionRows - 1) / kMaxAttentionRows;
  }

  Item make_item(int seq, int kv_head, int64_t first_row) const {
    const KvPages& kv = args_.kv;
    Item item;
    AttentionTile& tile = item.tile;
    tile.n_rows =
        static_cast<int>(std::min<int64_t>(kMaxAttentionRows, rows_of_head(seq) - first_row));
    int first_key = args_.positions[args_.query_starts[seq] + first_row / group_];
    int last_key = 0;
    for (int r = 0; r < tile.n_rows; ++r) {
      const int64_t token = args_.query_starts[seq] + (first_row + r) / group_;
      const int64_t head = kv_head * group_ + (first_row + r) % group_;
      const int position = args_.positions[token];
      tile.q[r] = args_.q.row(token) + head * kv.head_dim;
      item.out[r] = args_.out.row(token) + head * kv.head_dim;
      tile.last_key[r] = position;
      tile.first_key[r] = args_.window > 0 ? std::max(0, position - args_.window + 1) : 0;
      first_key = std::min(first_key, tile.first_key[r]);
      last_key = std::max(last_key, position);
    }
    item.first_chunk = first_key / kChunkKeys;
    item.n_chunks = last_key / kChunkKeys + 1;
    tile.head_dim = kv.head_dim;
    tile.scale = args_.scale;
    tile.softcap = args_.softcap;
    tile.k = kv.k;
    tile.v = kv.v;
    tile.block_table = args_.block_tables + static_cast<int64_t>(seq) * args_.max_blocks_per_seq;
    tile.block_size = kv.block_size;
    tile.block_stride = int64_t{kv.n_kv_heads} * kv.block_size * kv.head_dim;
    tile.head_offset = int64_t{kv_head} * kv.block_size * kv.head_dim;
    return item;
  }

  const AttentionArgs& args_;
  const int group_;
  int64_t n_tiles_ = 0;
};

/// Attention with its functions and memory at hand.
class Run {
 public:
  Run(const AttentionIsa& isa, const AttentionArgs& args, ThreadPool& pool)
      : isa_(isa),
        args_(args),
        pool_(pool),
        tiling_(args),
        attend_(args.kv.dtype == gguf::DType::F32 ? isa.attend_f32 : isa.attend_f16) {}

  void run() {
    // With few tiles (decode of one sequence) threads share the keys, else the tiles.
    if (tiling_.n_tiles() >= 2 * pool_.n_threads() || pool_.n_threads() == 1) {
      pool_.parallel_for(tiling_.n_tiles(), 1, [&](int64_t begin, int64_t end, int thread_idx) {
        run_tiles(begin, end, thread_idx);
      });
      return;
    }
    run_by_chunks();
  }

 private:
  float* scratch(int thread_idx) const { return args_.scratch + thread_idx * args_.scratch_stride; }

  void finish(const Tiling::Item& item, const float* state) const {
    for (int r = 0; r < item.tile.n_rows; ++r) {
      isa_.finish(item.out[r], state, r, item.tile.n_rows, item.tile.head_dim);
    }
  }

  /// Tiles [begin, end), some at a time: a chunk of keys and values serves all of those from the
  /// second-level cache. Which tiles go together does not matter to their results.
  void run_tiles(int64_t begin, int64_t end, int thread_idx) const {
    const int head_dim = args_.kv.head_dim;
    const int64_t state_size = attention_state_size(kMaxAttentionRows, head_dim);
    const int64_t work_size = attention_scratch_size(kMaxAttentionRows, head_dim);
    const auto n_fitting = static_cast<int>(
        std::min<int64_t>(kMaxTilesAtOnce, (args_.scratch_stride - work_size) / state_size));
    float* work = scratch(thread_idx);
    const auto state = [&](int i) { return work + work_size + i * state_size; };
    Tiling::Item items[kMaxTilesAtOnce];
    for (int64_t first = begin; first < end; first += n_fitting) {
      const auto n = static_cast<int>(std::min<int64_t>(n_fitting, end - first));
      int chunk_begin = INT_MAX;
      int chunk_end = 0;
      for (int i = 0; i < n; ++i) {
        items[i] = tiling_.item(first + i);
        isa_.start(state(i), items[i].tile.n_rows, head_dim);
        chunk_begin = std::min(chunk_begin, items[i].first_chunk);
        chunk_end = std::max(chunk_end, items[i].n_chunks);
      }
      for (int chunk = chunk_begin; chunk < chunk_end; ++chunk) {
        for (int i = 0; i < n; ++i) {
          if (chunk < items[i].first_chunk || chunk >= items[i].n_chunks) continue;
          attend_(items[i].tile, chunk, chunk + 1, state(i), work);
        }
      }
      for (int i = 0; i < n; ++i)
        finish(items[i], state(i));
    }
  }

  /// One tile after the other: its chunks by all threads, each into a state of its own, merged in
  /// order by the caller. States that do not fit in the scratch memory wait for the next round.
  void run_by_chunks() {
    for (int64_t i = 0; i < tiling_.n_tiles(); ++i) {
      const Tiling::Item item = tiling_.item(i);
      if (item.n_chunks - item.first_chunk < 2) {
        run_tiles(i, i + 1, 0);
      } else {
        run_chunks(item);
      }
    }
  }

  void run_chunks(const Tiling::Item& item) {
    const AttentionTile& tile = item.tile;
    const int64_t state_size = attention_state_size(tile.n_rows, tile.head_dim);
    const int64_t slots_per_thread =
        (args_.scratch_stride - attention_scratch_size(tile.n_rows, tile.head_dim)) / state_size;
    // Slot 0 is the running state.
    const auto slot = [&](int64_t idx) {
      return scratch(static_cast<int>(idx / slots_per_thread)) +
             idx % slots_per_thread * state_size;
    };
    const int per_round = static_cast<int>(slots_per_thread * pool_.n_threads() - 1);
    isa_.start(slot(0), tile.n_rows, tile.head_dim);
    for (int first = item.first_chunk; first < item.n_chunks; first += per_round) {
      const int n = std::min(per_round, item.n_chunks - first);
      pool_.parallel_for(n, 1, [&](int64_t begin, int64_t end, int thread_idx) {
        float* work = scratch(thread_idx) + slots_per_thread * state_size;
        for (int64_t c = begin; c < end; ++c) {
          const int chunk = first + static_cast<int>(c);
          isa_.start(slot(c + 1), tile.n_rows, tile.head_dim);
          attend_(tile, chunk, chunk + 1, slot(c + 1), work);
        }
      });
      for (int c = 0; c < n; ++c)
        isa_.merge(slot(0), slot(c + 1), tile.n_rows, tile.head_dim);
    }
    finish(item, slot(0));
  }

  const AttentionIsa& isa_;
  const AttentionArgs& args_;
  ThreadPool& pool_;
  const Tiling tiling_;
  void (*const attend_)(const AttentionTile&, int, int, float*, float*);
};

}  // namespace

bool takes_pages(const KvPages& kv) {
  return kv.block_size % kKeyLanes == 0 && kv.head_dim % kKeyLanes == 0 &&
         kv.head_dim <= kMaxFastHeadDim &&
         (kv.dtype == gguf::DType::F32 || kv.dtype == gguf::DType::F16);
}

void rope_store(const VectorIsa& isa, const RopeStoreArgs& args, ThreadPool& pool) {
  assert(takes_pages(args.kv));
  const int head_dim = args.kv.head_dim;
  const auto rotate = args.style == RopeStyle::kNorm ? isa.rotate_norm : isa.rotate_neox;
  const auto prepare = [&](float* heads, int n_heads, const float* norm, const float* cos_sin) {
    for (int h = 0; h < n_heads; ++h, heads += head_dim) {
      if (norm != nullptr) isa.rmsnorm(heads, heads, norm, head_dim, args.norm_eps);
      rotate(heads, cos_sin, args.n_dims / 2);
    }
  };
  pool.parallel_for(args.q.n_rows, 4, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
    for (int64_t t = begin; t < end; ++t) {
      const float* cos_sin = args.cos_sin + t * args.n_dims;
      prepare(args.q.row(t), args.n_heads, args.q_norm, cos_sin);
      prepare(args.k.row(t), args.kv.n_kv_heads, args.k_norm, cos_sin);
      store_token(isa, args.kv, args.slot_mapping[t], args.k.row(t), args.v.row(t));
    }
  });
}

void attention(const AttentionIsa& isa, const AttentionArgs& args, ThreadPool& pool) {
  assert(takes_pages(args.kv));
  Run(isa, args, pool).run();
}

}  // namespace dsctl::engine::fast
