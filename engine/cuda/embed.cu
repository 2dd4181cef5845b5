// Embedding: rows of the table, dequantised. CPU twin: engine/cpu/embed.cpp.
#include "engine/cuda/formats.cuh"
#include "engine/cuda/kernels.h"

namespace dsctl::engine::cuda {
namespace {

constexpr int kThreads = 128;

/// A block is a token, a thread a block of the format at a time.
template <typename Format>
__global__ void embed_kernel(EmbedArgs args) {
  allow_next_kernel();
  wait_for_previous_kernel();
  using Block = typename Format::Block;
  const int token = static_cast<int>(blockIdx.x);
  const auto* row =
      reinterpret_cast<const Block*>(args.table + args.token_ids[token] * args.row_bytes);
  float* out = args.x + static_cast<int64_t>(token) * args.n_cols;
  const int n_blocks = args.n_cols / Format::kBlockElems;
  for (int b = static_cast<int>(threadIdx.x); b < n_blocks; b += kThreads) {
    float values[Format::kBlockElems];
    dequantize_block<Format>(row[b], *args.grids, values);
    for (int i = 0; i < Format::kBlockElems; ++i)
      out[b * Format::kBlockElems + i] = values[i] * args.scale;
  }
}

}  // namespace

void embed(Stream& stream, const EmbedArgs& args) {
  const dim3 grid(static_cast<unsigned>(args.n_tokens));
  switch (args.dtype) {
#define DSCTL_EMBED(Format)                                                      \
  case gguf::DType::Format:                                                      \
    stream.launch("embed", embed_kernel<gguf::Format>, grid, kThreads, 0, args); \
    return;
    DSCTL_PLAIN_FORMATS(DSCTL_EMBED)
    DSCTL_BLOCK_FORMATS(DSCTL_EMBED)
#undef DSCTL_EMBED
  }
}

}  // namespace dsctl::engine::cuda
