#include "engine/cpu/embed.h"

#include "engine/cpu/weight_arena.h"
#include "gguf/quants/all.h"

namespace dsctl::engine {
namespace {

/// A row that is read maps the 64 KiB around it; the table is given back after so many rows on
/// average (by the token's number: no state), or a prompt would hold all of a table of which the
/// head has its own copy.
constexpr int64_t kRowsBeforeRelease = 64;

}  // namespace

void embed(const MutableRows& x, const MatrixView& table, const int32_t* token_ids, float scale,
           ThreadPool& pool) {
  pool.parallel_for(x.n_rows, 4, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
    for (int64_t t = begin; t < end; ++t) {
      if (table.is_mapped && token_ids[t] % kRowsBeforeRelease == 0) {
        release_mapped_pages(table.row(0), table.row(table.n_rows));
      }
      gguf::dequantize_row(table.dtype, table.row(token_ids[t]), x.row(t), x.n_cols);
      if (scale == 1.0f) continue;
      for (int i = 0; i < x.n_cols; ++i)
        x.row(t)[i] *= scale;
    }
  });
}

}  // namespace dsctl::engine
