#include "engine/cpu/fast/fast_linear.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <thread>
#include <vector>

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/fast/pack.h"
#include "engine/cpu/fast/panel.h"

namespace dsctl::engine::fast {
namespace {

/// Bytes of input that a pass over the panels works on: they stay in the second-level cache while
/// the panels go by.
constexpr int64_t kPassBytes = 384 << 10;

/// What is worth a thread of its own when weights are repacked, and a system call to give back.
constexpr int64_t kPackPieceBytes = 4 << 20;
constexpr int64_t kReleaseBytes = 2 << 20;

/// The form of input that a weight's kernel reads.
enum class InputForm { kQuantised, kPlain };

class FastWeight final : public LinearWeight {
 public:
  FastWeight(const LinearIsa& isa, const MatrixView& view, WeightArena& arena)
      : matrix(view),
        n_panels((view.n_rows + kPanelRows - 1) / kPanelRows),
        function(isa.panel_function(view.dtype)),
        form(panel_format(view.dtype).bits != 0 ? InputForm::kQuantised : InputForm::kPlain) {
    if (function == nullptr) return;
    panel_size = panel_bytes(view.dtype, view.n_cols);
    panels = arena.allocate(owned_bytes());
    // A thread for each piece, so that a large head does not hold up loading.
    const int64_t n_threads = std::clamp<int64_t>(n_panels * panel_size / kPackPieceBytes, 1,
                                                  cpu_features().n_physical_cores);
    std::vector<std::jthread> threads;
    for (int64_t i = 1; i < n_threads; ++i) {
      threads.emplace_back(
          [this, i, n_threads] { pack(n_panels * i / n_threads, n_panels * (i + 1) / n_threads); });
    }
    pack(0, n_panels / n_threads);
  }

  int64_t n_rows() const override { return matrix.n_rows; }
  int64_t n_cols() const override { return matrix.n_cols; }
  size_t owned_bytes() const override { return static_cast<size_t>(n_panels * panel_size); }

  int rows_of_panel(int64_t panel) const {
    return static_cast<int>(std::min<int64_t>(kPanelRows, matrix.n_rows - panel * kPanelRows));
  }

  const MatrixView matrix;  // its data is read again only when function is null
  const int64_t n_panels;
  const PanelFunction function;  // null: no panel form, dequantise in every call
  const InputForm form;
  int64_t panel_size = 0;
  WeightArena::Memory panels;

 private:
  /// Repacks [begin, end) of the panels, and gives back the mapped pages as it goes: the peak of
  /// memory is the weight's size and not twice that.
  void pack(int64_t begin, int64_t end) {
    const std::byte* done = matrix.row(begin * kPanelRows);
    for (int64_t panel = begin; panel < end; ++panel) {
      const int n = rows_of_panel(panel);
      const std::byte* rows = matrix.row(panel * kPanelRows);
      pack_panel(matrix.dtype, rows, matrix.row_stride_bytes, n, matrix.n_cols,
                 panels.get() + panel * panel_size);
      const std::byte* last_row = rows + (n - 1) * matrix.row_stride_bytes;
      const std::byte* read = last_row + gguf::row_size_bytes(matrix.dtype, matrix.n_cols);
      if (!matrix.is_mapped || (read - done < kReleaseBytes && panel + 1 < end)) continue;
      release_mapped_pages(done, read);
      // The page that holds the boundary is given back with the next piece.
      done = last_row;
    }
  }
};

class FastInput final : public LinearInput {
 public:
  FastInput(const LinearIsa& isa, const VectorIsa& vector_isa, int max_tokens, int64_t max_cols,
            int n_threads)
      : isa_(isa),
        vector_(vector_isa),
        values_(static_cast<size_t>(max_tokens * max_cols)),
        max_cols_(max_cols),
        n_threads_(n_threads) {}

  void assign(const Rows& x, ThreadPool& pool) override {
    resize(x);
    pool.parallel_for(x.n_rows, 8, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t)
        std::copy_n(x.row(t), x.n_cols, row(t));
    });
  }

  void assign_rmsnorm(const Rows& x, const float* weight, float eps, ThreadPool& pool) override {
    resize(x);
    pool.parallel_for(x.n_rows, 8, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t) {
        vector_.rmsnorm(row(t), x.row(t), weight, x.n_cols, eps);
      }
    });
  }

  void assign_gated(const Rows& gate, const Rows& up, Activation activation,
                    ThreadPool& pool) override {
    resize(gate);
    const auto gated = activation == Activation::kSilu ? vector_.gated_silu : vector_.gated_gelu;
    pool.parallel_for(gate.n_rows, 2, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t)
        gated(row(t), gate.row(t), up.row(t), gate.n_cols);
    });
  }

  void assign_rows(const LinearInput& from, std::span<const int32_t> row_idx,
                   ThreadPool& pool) override {
    const auto& source = static_cast<const FastInput&>(from);
    resize(
        {.n_rows = static_cast<int>(row_idx.size()), .n_cols = static_cast<int>(source.n_cols_)});
    pool.parallel_for(n_tokens_, 8, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t other = row_idx[static_cast<size_t>(t)];
        std::copy_n(source.values_.data() + other * n_cols_, n_cols_, row(t));
      }
    });
  }

  /// Tiles never span groups, so a group begins with a tile of its own.
  void group(std::span<const int32_t> starts) override {
    groups_.clear();
    tiles_.clear();
    for (size_t i = 0; i + 1 < starts.size(); ++i) {
      groups_.push_back({starts[i], starts[i + 1] - starts[i], static_cast<int>(tiles_.size())});
      for (int32_t first = starts[i]; first < starts[i + 1]; first += isa_.tile_tokens)
        tiles_.push_back({first, std::min(isa_.tile_tokens, starts[i + 1] - first)});
    }
    quantised_.valid = false;
    plain_.valid = false;
  }

  /// Rows [first_row, first_row + n_tokens), in the tiles from first_tile on.
  struct Group {
    int first_row = 0;
    int n_tokens = 0;
    int first_tile = 0;
  };
  const Group& group_at(int group) const { return groups_[static_cast<size_t>(group)]; }
  int64_t tiles_of(const Group& group) const {
    return (group.n_tokens + isa_.tile_tokens - 1) / isa_.tile_tokens;
  }

  int64_t n_cols() const { return n_cols_; }
  int64_t n_tiles() const { return static_cast<int64_t>(tiles_.size()); }

  int64_t tile_bytes(InputForm form) const {
    return form == InputForm::kQuantised ? record_bytes(isa_.tile_tokens) * padded_blocks(n_cols_)
                                         : int64_t{4} * isa_.tile_tokens * n_cols_;
  }

  /// Makes `form` of the assigned rows unless it is there.
  void prepare(InputForm form, ThreadPool& pool) {
    Tiles& tiles = form == InputForm::kQuantised ? quantised_ : plain_;
    if (tiles.valid) return;
    const int64_t size = tile_bytes(form);
    const size_t needed = static_cast<size_t>(size * n_tiles());
    if (tiles.bytes.size() < needed) tiles.bytes.resize(needed);
    pool.parallel_for(n_tiles(), 1, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t i = begin; i < end; ++i)
        fill_tile(form, i, tiles.bytes.data() + i * size);
    });
    tiles.valid = true;
  }

  const std::byte* tiles(InputForm form) const {
    return form == InputForm::kQuantised ? quantised_.bytes.data() : plain_.bytes.data();
  }

  /// Where a thread dequantises a panel: n_cols x 16 and one row of n_cols more.
  float* panel_scratch(int thread_idx) {
    return scratch_.data() + static_cast<int64_t>(thread_idx) * (kPanelRows + 1) * max_cols_;
  }
  void allocate_scratch() {
    scratch_.resize(static_cast<size_t>(n_threads_ * (kPanelRows + 1) * max_cols_));
  }

 private:
  struct TileRows {
    int first_row = 0;
    int n_tokens = 0;
  };
  struct Tiles {
    std::vector<std::byte> bytes;
    bool valid = false;
  };

  void resize(const Rows& x) {
    n_tokens_ = x.n_rows;
    n_cols_ = x.n_cols;
    const int32_t whole[] = {0, n_tokens_};
    group(whole);
    assert(static_cast<size_t>(n_tokens_ * n_cols_) <= values_.size());
    assert(n_cols_ <= max_cols_);
  }

  float* row(int64_t token) { return values_.data() + token * n_cols_; }

  void fill_tile(InputForm form, int64_t tile_idx, std::byte* tile) {
    const auto [token, n] = tiles_[static_cast<size_t>(tile_idx)];
    if (form == InputForm::kQuantised) {
      isa_.quantize_tile(row(token), n_cols_, n, n_cols_, tile);
      return;
    }
    auto* out = reinterpret_cast<float*>(tile);
    for (int t = 0; t < n; ++t) {
      const float* x = row(int64_t{token} + t);
      for (int64_t k = 0; k < n_cols_; ++k)
        out[k * n + t] = x[k];
    }
  }

  const LinearIsa& isa_;
  const VectorIsa& vector_;
  std::vector<float> values_;  // (n_tokens, n_cols)
  std::vector<Group> groups_;
  std::vector<TileRows> tiles_;
  Tiles quantised_;
  Tiles plain_;
  std::vector<float> scratch_;
  int64_t max_cols_;
  int n_threads_;
  int n_tokens_ = 0;
  int64_t n_cols_ = 0;
};

PanelProduct product_of(const LinearOutput& output, const FastWeight& weight,
                        const FastInput& input) {
  const FastInput::Group& group = input.group_at(output.group);
  const int64_t tile_bytes = input.tile_bytes(weight.form);
  return {.panels = weight.panels.get(),
          .panel_bytes = weight.panel_size,
          .n_cols = weight.matrix.n_cols,
          .n_rows = weight.matrix.n_rows,
          .tiles = input.tiles(weight.form) + group.first_tile * tile_bytes,
          .tile_bytes = tile_bytes,
          .n_tokens = group.n_tokens,
          .bias = output.bias,
          .y = output.y + group.first_row * output.y_stride,
          .y_stride = output.y_stride};
}

/// A weight without a panel form: each panel becomes f32 once and serves all tokens.
void multiply_dequantised(const LinearIsa& isa, const PanelProduct& product,
                          const FastWeight& weight, int64_t panel_begin, int64_t panel_end,
                          int64_t n_tiles, float* scratch) {
  const MatrixView& matrix = weight.matrix;
  const PanelFunction multiply = isa.panel_function(gguf::DType::F32);
  float* row = scratch + kPanelRows * matrix.n_cols;
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const int64_t first = panel * kPanelRows;
    dequantize_panel(matrix.dtype, matrix.row(first), matrix.row_stride_bytes,
                     weight.rows_of_panel(panel), matrix.n_cols, row, scratch);
    PanelProduct one = product;
    one.panels = reinterpret_cast<const std::byte*>(scratch);
    one.n_rows = weight.rows_of_panel(panel);
    if (one.bias != nullptr) one.bias += first;
    one.y += first;
    multiply(one, 0, 1, 0, n_tiles);
  }
}

void multiply_range(const LinearIsa& isa, FastInput& input, const LinearOutput& output,
                    int64_t panel_begin, int64_t panel_end, int thread_idx) {
  const auto& weight = static_cast<const FastWeight&>(*output.weight);
  const PanelProduct product = product_of(output, weight, input);
  const int64_t n_tiles = input.tiles_of(input.group_at(output.group));
  if (weight.function == nullptr) {
    multiply_dequantised(isa, product, weight, panel_begin, panel_end, n_tiles,
                         input.panel_scratch(thread_idx));
    return;
  }
  const int64_t pass_tiles = std::max<int64_t>(2, kPassBytes / product.tile_bytes);
  for (int64_t tile = 0; tile < n_tiles; tile += pass_tiles) {
    weight.function(product, panel_begin, panel_end, tile, std::min(n_tiles, tile + pass_tiles));
  }
}

}  // namespace

std::unique_ptr<LinearWeight> make_weight(const LinearIsa& isa, const MatrixView& matrix,
                                          WeightArena& arena) {
  return std::make_unique<FastWeight>(isa, matrix, arena);
}

std::unique_ptr<LinearInput> make_input(const LinearIsa& isa, const VectorIsa& vector_isa,
                                        int max_tokens, int64_t max_cols, int n_threads) {
  return std::make_unique<FastInput>(isa, vector_isa, max_tokens, max_cols, n_threads);
}

void linear(const LinearIsa& isa, LinearInput& input, std::span<const LinearOutput> outputs,
            ThreadPool& pool) {
  auto& x = static_cast<FastInput&>(input);
  int64_t n_panels = 0;
  for (const LinearOutput& output : outputs) {
    const auto& weight = static_cast<const FastWeight&>(*output.weight);
    assert(weight.n_cols() == x.n_cols());
    x.prepare(weight.form, pool);
    if (weight.function == nullptr) x.allocate_scratch();
    n_panels += weight.n_panels;
  }
  // The panels of all weights in one loop: one fork and join, and small weights fill the threads.
  pool.parallel_for(n_panels, 1, [&](int64_t begin, int64_t end, int thread_idx) {
    int64_t first = 0;
    for (const LinearOutput& output : outputs) {
      const int64_t n = static_cast<const FastWeight&>(*output.weight).n_panels;
      const int64_t from = std::max(begin, first) - first;
      const int64_t to = std::min(end, first + n) - first;
      if (from < to) multiply_range(isa, x, output, from, to, thread_idx);
      first += n;
    }
  });
}

}  // namespace dsctl::engine::fast
