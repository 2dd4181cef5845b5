#include "commands/imatrix.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <vector>

#include "commands/error.h"
#include "commands/model_file.h"
#include "commands/text_chunks.h"
#include "engine/text_pass.h"
#include "gguf/imatrix.h"
#include "gguf/new_file.h"

namespace dsctl::commands {
namespace {

/// Adds up the squared inputs of each weight.
class Collector final : public engine::MatmulObserver {
 public:
  Collector(const gguf::GgufFile& file, bool process_output) {
    for (const gguf::TensorInfo& tensor : file.tensors()) {
      const bool is_wanted =
          tensor.name.starts_with("blk.") || (process_output && tensor.name == "output.weight");
      if (is_wanted && tensor.n_rows() > 1) tensors_[tensor.data] = &tensor;
    }
  }

  void see(const std::byte* weight, const engine::Rows& inputs) override {
    const gguf::TensorInfo* tensor = tensor_at(weight);
    if (tensor == nullptr) return;
    Sums& sums = sums_[tensor];
    const int64_t n_cols = tensor->dims[0];
    const int64_t n_matrices = tensor->dims[2] * tensor->dims[3];
    const int64_t matrix_bytes = tensor->size_bytes / n_matrices;
    // Of a weight whose parts are used one by one (q, k and v in one) the first part counts.
    if ((weight - tensor->data) % matrix_bytes != 0) return;
    if (sums.counts.empty()) {
      sums.squares.resize(static_cast<size_t>(n_cols * n_matrices));
      sums.counts.resize(static_cast<size_t>(n_matrices));
    }
    const int64_t matrix = (weight - tensor->data) / matrix_bytes;
    double* squares = sums.squares.data() + matrix * n_cols;
    for (int row = 0; row < inputs.n_rows; ++row) {
      const float* x = inputs.row(row);
      for (int64_t i = 0; i < n_cols; ++i)
        squares[i] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    sums.counts[static_cast<size_t>(matrix)] += inputs.n_rows;
  }

  std::vector<gguf::ImportanceEntry> entries() const {
    std::vector<gguf::ImportanceEntry> entries;
    for (const auto& [tensor, sums] : sums_) {
      gguf::ImportanceEntry entry;
      entry.name = tensor->name;
      entry.n_cols = tensor->dims[0];
      entry.sums.assign(sums.squares.begin(), sums.squares.end());
      entry.counts.assign(sums.counts.begin(), sums.counts.end());
      const bool is_finite = std::all_of(entry.sums.begin(), entry.sums.end(),
                                         [](float sum) { return std::isfinite(sum); });
      if (!is_finite) {
        throw Error(entry.name + ": its inputs are not finite: the model is damaged");
      }
      entries.push_back(std::move(entry));
    }
    std::sort(entries.begin(), entries.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return entries;
  }

 private:
  struct Sums {
    std::vector<double> squares;  // (n_matrices, n_cols)
    std::vector<int64_t> counts;  // (n_matrices) tokens
  };

  const gguf::TensorInfo* tensor_at(const std::byte* weight) const {
    auto after = tensors_.upper_bound(weight);
    if (after == tensors_.begin()) return nullptr;
    const gguf::TensorInfo* tensor = std::prev(after)->second;
    return weight < tensor->data + tensor->size_bytes ? tensor : nullptr;
  }

  std::map<const std::byte*, const gguf::TensorInfo*, std::less<>> tensors_;  // by their data
  std::map<const gguf::TensorInfo*, Sums> sums_;
};

}  // namespace

int imatrix(const Settings& settings, const ImatrixOptions& options, Console& console) {
  const gguf::GgufFile file = open_model_file(settings, options.model);
  gguf::check_out(options.out, {options.text},
                  options.force ? gguf::IfExists::kReplace : gguf::IfExists::kFail);
  const auto tokenizer = engine::Tokenizer::from_gguf(file);
  const TextChunks chunks =
      read_chunks(options.text, *tokenizer, options.n_ctx, options.max_chunks);
  Collector collector(file, options.process_output);
  engine::TextPassOptions pass_options;
  pass_options.n_ctx = options.n_ctx;
  pass_options.n_threads = options.n_threads > 0 ? options.n_threads : settings.n_threads;
  pass_options.observer = &collector;
  engine::TextPass pass(file, pass_options);

  console.clear_interrupt();
  for (int chunk = 0; chunk < chunks.n_chunks(); ++chunk) {
    if (console.interrupted()) throw Error("interrupted: nothing was written");
    // All tokens are wanted: the last layer counts as much as the others.
    pass.run(chunks.input(chunk), 0, [](const engine::TextPass::Logits&) {});
    const std::string line =
        "chunk " + std::to_string(chunk + 1) + " of " + std::to_string(chunks.n_chunks());
    console.progress_lines({line}, line);
  }
  console.finish_progress();

  gguf::ImportanceMatrix matrix;
  matrix.datasets = {options.text.string()};
  matrix.n_chunks = static_cast<uint32_t>(chunks.n_chunks());
  matrix.chunk_tokens = static_cast<uint32_t>(options.n_ctx);
  matrix.entries = collector.entries();
  matrix.write(options.out);
  console.note(std::to_string(matrix.entries.size()) + " weights, " +
               std::to_string(chunks.n_chunks()) + " chunks of " + std::to_string(options.n_ctx) +
               " tokens");
  console.print(options.out.string() + "\n");
  return 0;
}

}  // namespace dsctl::commands
