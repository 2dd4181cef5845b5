#include "engine/cpu/fast/fast_mla.h"

#include <algorithm>
#include <cassert>

namespace dsctl::engine::fast {
namespace {

/// States of chunks that wait to be merged, for each thread.
constexpr int kSlots = 2;

/// A thread's scratch memory.
struct Scratch {
  Scratch(float* memory, const MlaTile& tile)
      : q(memory),
        scores(q + int64_t{kMlaHeads} * tile.n_cols),
        state(scores + int64_t{kMlaHeads} * kMlaChunkKeys),
        slots(state + mla_state_size(tile.latent_dim)) {}

  float* q;       // (n_cols, 16)
  float* scores;  // (kMlaChunkKeys, 16)
  float* state;
  float* slots;  // (kSlots) states
};

/// One tile: some heads of one token.
struct Item {
  int64_t token = 0;
  int first_head = 0;
  int n_heads = 0;
};

Item item_at(const MlaAttentionArgs& args, int64_t idx) {
  const int n_tiles = (args.shape.n_heads + kMlaHeads - 1) / kMlaHeads;
  const int first = static_cast<int>(idx % n_tiles) * kMlaHeads;
  return {idx / n_tiles, first, std::min(kMlaHeads, args.shape.n_heads - first)};
}

MlaTile tile_of(const MlaAttentionArgs& args, const Item& item) {
  return {.latent_dim = args.shape.latent_dim,
          .n_cols = args.pages.n_cols,
          .last_key = args.positions[item.token],
          .scale = args.scale,
          .rows = reinterpret_cast<const float*>(args.pages.rows),
          .block_table = args.block_table,
          .block_size = args.pages.block_size};
}

int n_chunks(const MlaTile& tile) {
  return tile.last_key / kMlaChunkKeys + 1;
}

/// The heads' queries turned over, a lane for each; lanes without a head are zero.
void turn_queries(const MlaAttentionArgs& args, const Item& item, float* q) {
  const int latent_dim = args.shape.latent_dim;
  std::fill_n(q, int64_t{kMlaHeads} * args.pages.n_cols, 0.0f);
  for (int h = 0; h < item.n_heads; ++h) {
    const float* latent = args.z_row(item.token, item.first_head + h);
    const float* rope = args.q_rope(item.token, item.first_head + h);
    for (int i = 0; i < latent_dim; ++i)
      q[int64_t{i} * kMlaHeads + h] = latent[i];
    for (int i = 0; i < args.shape.rope_dim; ++i)
      q[int64_t{latent_dim + i} * kMlaHeads + h] = rope[i];
  }
}

void write_result(const MlaAttentionArgs& args, const Item& item, const float* state) {
  const int latent_dim = args.shape.latent_dim;
  const float* sums = state + kMlaHeads;
  const float* values = sums + kMlaHeads;
  for (int h = 0; h < item.n_heads; ++h) {
    float* z = args.z_row(item.token, item.first_head + h);
    for (int i = 0; i < latent_dim; ++i)
      z[i] = values[int64_t{h} * latent_dim + i] / sums[h];
  }
}

/// One thread takes all chunks of a tile.
void attend_alone(const MlaIsa& isa, const MlaAttentionArgs& args, const Item& item,
                  float* memory) {
  MlaTile tile = tile_of(args, item);
  const Scratch scratch(memory, tile);
  turn_queries(args, item, scratch.q);
  tile.q = scratch.q;
  isa.attend(tile, 0, scratch.state, scratch.scores);
  for (int chunk = 1; chunk < n_chunks(tile); ++chunk) {
    isa.attend(tile, chunk, scratch.slots, scratch.scores);
    isa.merge(scratch.state, scratch.slots, tile.latent_dim);
  }
  write_result(args, item, scratch.state);
}

/// The threads share the chunks of a tile, some at a time; they are merged in the same order.
void attend_together(const MlaIsa& isa, const MlaAttentionArgs& args, const Item& item,
                     ThreadPool& pool) {
  MlaTile tile = tile_of(args, item);
  const auto scratch_of = [&](int thread_idx) {
    return Scratch(args.scratch + thread_idx * args.scratch_stride, tile);
  };
  const Scratch own = scratch_of(0);
  turn_queries(args, item, own.q);
  tile.q = own.q;
  const auto slot_at = [&](int slot) {
    return scratch_of(slot / kSlots).slots + slot % kSlots * mla_state_size(tile.latent_dim);
  };
  const int n_slots = pool.n_threads() * kSlots;
  for (int first = 0; first < n_chunks(tile); first += n_slots) {
    const int n = std::min(n_slots, n_chunks(tile) - first);
    pool.parallel_for(n, 1, [&](int64_t begin, int64_t end, int thread_idx) {
      for (int slot = static_cast<int>(begin); slot < end; ++slot)
        isa.attend(tile, first + slot, slot_at(slot), scratch_of(thread_idx).scores);
    });
    for (int slot = 0; slot < n; ++slot) {
      if (first + slot == 0) {
        std::copy_n(slot_at(slot), mla_state_size(tile.latent_dim), own.state);
      } else {
        isa.merge(own.state, slot_at(slot), tile.latent_dim);
      }
    }
  }
  write_result(args, item, own.state);
}

}  // namespace

bool takes_latent_pages(const MlaAttentionArgs& args) {
  return args.pages.dtype == gguf::DType::F32 && args.shape.latent_dim % 16 == 0;
}

void mla_attention(const MlaIsa& isa, const MlaAttentionArgs& args, ThreadPool& pool) {
  assert(args.scratch_stride >= kMlaHeads * (args.pages.n_cols + kMlaChunkKeys) +
                                    (1 + kSlots) * mla_state_size(args.shape.latent_dim));
  const int n_tiles = (args.shape.n_heads + kMlaHeads - 1) / kMlaHeads;
  const int64_t n_items = int64_t{args.q.n_rows} * n_tiles;
  if (n_items < 2 * pool.n_threads() && pool.n_threads() > 1) {
    for (int64_t i = 0; i < n_items; ++i)
      attend_together(isa, args, item_at(args, i), pool);
    return;
  }
  pool.parallel_for(n_items, 1, [&](int64_t begin, int64_t end, int thread_idx) {
    for (int64_t i = begin; i < end; ++i)
      attend_alone(isa, args, item_at(args, i), args.scratch + thread_idx * args.scratch_stride);
  });
}

}  // namespace dsctl::engine::fast
