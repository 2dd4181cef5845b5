#include "engine/cpu/embed.h"

#include "gguf/quants/all.h"

namespace dsctl::engine {

void embed(const MutableRows& x, const MatrixView& table, const int32_t* token_ids, float scale,
           ThreadPool& pool) {
  pool.parallel_for(x.n_rows, 4, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
    for (int64_t t = begin; t < end; ++t) {
      gguf::dequantize_row(table.dtype, table.row(token_ids[t]), x.row(t), x.n_cols);
      if (scale == 1.0f) continue;
      for (int i = 0; i < x.n_cols; ++i)
        x.row(t)[i] *= scale;
    }
  });
}

}  // namespace dsctl::engine
