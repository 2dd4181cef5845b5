#include "engine/pooling.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <string>

#include "engine/error.h"
#include "gguf/quants/all.h"

namespace dsctl::engine {
namespace {

constexpr int64_t kMaxOutputs = 1 << 16;

/// All values of a matrix (n_rows, n_cols), or a vector where n_rows is 1, in f32.
std::vector<float> read_values(const gguf::TensorInfo& tensor, int64_t n_rows, int64_t n_cols) {
  const auto& dims = tensor.dims;
  if (dims[0] != n_cols || dims[1] != n_rows || dims[2] != 1 || dims[3] != 1) {
    throw Error(std::string(tensor.name) + ": shape [" + std::to_string(dims[0]) + ", " +
                std::to_string(dims[1]) + "], expected [" + std::to_string(n_cols) + ", " +
                std::to_string(n_rows) + "]");
  }
  const int64_t row_bytes = gguf::row_size_bytes(tensor.dtype, n_cols);
  std::vector<float> values(static_cast<size_t>(n_rows * n_cols));
  for (int64_t r = 0; r < n_rows; ++r) {
    gguf::dequantize_row(tensor.dtype, tensor.data + r * row_bytes, values.data() + r * n_cols,
                         n_cols);
  }
  return values;
}

}  // namespace

Pooling model_pooling(const gguf::GgufFile& file) {
  const std::string key = std::string(file.architecture()) + ".pooling_type";
  const auto type = file.find_int(key);
  if (!type) return Pooling::kLast;
  switch (*type) {
    case 0:  // none: it says how states are, not how to make one of them
      return Pooling::kLast;
    case 1:
      return Pooling::kMean;
    case 2:
      return Pooling::kFirst;
    case 3:
      return Pooling::kLast;
    case 4:
      return Pooling::kRank;
    default:
      throw Error(key + ": " + std::to_string(*type) + ", expected 0 to 4");
  }
}

bool pooling_reads(Pooling pooling, int position, int n_prompt) {
  switch (pooling) {
    case Pooling::kTokens:
    case Pooling::kMean:
      return true;
    case Pooling::kFirst:
      return position == 0;
    case Pooling::kLast:
    case Pooling::kRank:
      return position == n_prompt - 1;
  }
  return false;
}

bool pooling_needs_prefix(Pooling pooling) {
  return pooling != Pooling::kLast && pooling != Pooling::kRank;
}

std::optional<RankHead::Layer> RankHead::Layer::read(const gguf::GgufFile& file,
                                                     const std::string& name, int64_t n_inputs) {
  const gguf::TensorInfo* weight = file.find_tensor(name + ".weight");
  if (weight == nullptr) return std::nullopt;
  const int64_t n_outputs = weight->dims[1];
  if (n_outputs > kMaxOutputs) {
    throw Error(std::string(weight->name) + ": " + std::to_string(n_outputs) +
                " rows, expected at most " + std::to_string(kMaxOutputs));
  }
  Layer layer;
  layer.weight = read_values(*weight, n_outputs, n_inputs);
  layer.bias.assign(static_cast<size_t>(n_outputs), 0.0f);
  if (const gguf::TensorInfo* bias = file.find_tensor(name + ".bias")) {
    layer.bias = read_values(*bias, 1, n_outputs);
  }
  return layer;
}

std::shared_ptr<const RankHead> RankHead::read(const gguf::GgufFile& file, int dim) {
  auto head = std::make_shared<RankHead>();
  int64_t n_inputs = dim;
  if (file.find_tensor("cls.output.weight") == nullptr) return nullptr;
  if (auto dense = Layer::read(file, "cls", n_inputs)) {
    n_inputs = static_cast<int64_t>(dense->bias.size());
    head->dense_ = *std::move(dense);
  }
  head->output_ = *Layer::read(file, "cls.output", n_inputs);
  head->is_distribution_ = file.architecture() == "qwen3" && head->output_.bias.size() > 1;
  return head;
}

std::vector<float> RankHead::Layer::apply(std::span<const float> input) const {
  std::vector<float> output(bias.size());
  for (size_t row = 0; row < output.size(); ++row) {
    const float* w = weight.data() + row * input.size();
    double sum = bias[row];
    for (size_t i = 0; i < input.size(); ++i)
      sum += double{w[i]} * double{input[i]};
    output[row] = static_cast<float>(sum);
  }
  return output;
}

std::vector<float> RankHead::scores(std::span<const float> state) const {
  std::vector<float> hidden(state.begin(), state.end());
  if (!dense_.weight.empty()) {
    hidden = dense_.apply(hidden);
    for (float& value : hidden)
      value = std::tanh(value);
  }
  std::vector<float> result = output_.apply(hidden);
  if (!is_distribution_) return result;
  const float largest = *std::max_element(result.begin(), result.end());
  float sum = 0.0f;
  for (float& value : result)
    sum += value = std::exp(value - largest);
  for (float& value : result)
    value /= sum;
  return result;
}

Pooler::Pooler(Pooling pooling, int n_prompt, int dim) : pooling_(pooling), n_prompt_(n_prompt) {
  const auto n_values = static_cast<size_t>(dim);
  if (pooling == Pooling::kMean) {
    sum_.assign(n_values, 0.0);
  } else {
    states_.assign(n_values * static_cast<size_t>(pooling == Pooling::kTokens ? n_prompt : 1),
                   0.0f);
  }
}

void Pooler::add(int position, std::span<const float> state) {
  assert(pooling_reads(pooling_, position, n_prompt_));
  if (pooling_ == Pooling::kMean) {
    if (position == 0) std::fill(sum_.begin(), sum_.end(), 0.0);
    for (size_t i = 0; i < state.size(); ++i)
      sum_[i] += double{state[i]};
    return;
  }
  const size_t row = pooling_ == Pooling::kTokens ? static_cast<size_t>(position) : 0;
  std::copy(state.begin(), state.end(),
            states_.begin() + static_cast<ptrdiff_t>(row * state.size()));
}

std::vector<float> Pooler::take(const RankHead* rank_head) {
  if (pooling_ == Pooling::kRank) {
    assert(rank_head != nullptr);
    return rank_head->scores(states_);
  }
  if (pooling_ != Pooling::kMean) return std::move(states_);
  std::vector<float> mean(sum_.size());
  for (size_t i = 0; i < mean.size(); ++i)
    mean[i] = static_cast<float>(sum_[i] / n_prompt_);
  return mean;
}

}  // namespace dsctl::engine
