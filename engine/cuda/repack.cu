// Repacking at load: blocks of the file become tiles.
#include "engine/cuda/kernels.h"
#include "engine/cuda/ptx.cuh"

namespace dsctl::engine::cuda {
namespace {

constexpr int kThreads = 256;

/// One block a tile; a thread makes every 256th word of it. Reads each byte of the file's blocks
/// several times, from L1.
template <typename Tile>
__global__ void pack_kernel(const uint8_t* raw, int64_t row_bytes, int n_rows, PanelShape shape,
                            uint32_t* tiles) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int tile_idx = static_cast<int>(blockIdx.x);
  const int first_row = static_cast<int>(blockIdx.y) * kPanelRows;
  const int n_tile_steps = shape.tile_steps(tile_idx);
  TilePacker<Tile> packer;
  packer.rows = {raw + first_row * row_bytes, row_bytes, n_rows - first_row};
  packer.first_step = tile_idx * kTileSteps;
  packer.n_tile_steps = n_tile_steps;
  uint32_t* out = tiles + (blockIdx.y * shape.panel_bytes<Tile>() +
                           static_cast<int64_t>(tile_idx) * Tile::tile_bytes(kTileSteps)) /
                              4;
  const int n_words = Tile::tile_bytes(n_tile_steps) / 4;
  for (int word = static_cast<int>(threadIdx.x); word < n_words; word += kThreads)
    out[word] = packer.word(word);
}

}  // namespace

void pack_tiles(Stream& stream, gguf::DType dtype, const std::byte* raw, int64_t row_bytes,
                int n_rows, int n_cols, std::byte* tiles) {
  const PanelShape shape{n_cols / kStepCols};
  const dim3 grid(static_cast<unsigned>(shape.n_tiles()),
                  static_cast<unsigned>((n_rows + kPanelRows - 1) / kPanelRows));
  with_tile_format(dtype, [&](auto tile) {
    stream.launch("pack_tiles", pack_kernel<decltype(tile)>, grid, kThreads, 0,
                  reinterpret_cast<const uint8_t*>(raw), row_bytes, n_rows, shape,
                  reinterpret_cast<uint32_t*>(tiles));
  });
}

}  // namespace dsctl::engine::cuda
