#include "engine/weights.h"

#include <cassert>

#include "engine/error.h"
#include "gguf/quants/all.h"

namespace dsctl::engine {
namespace {

std::string shape_text(const int64_t* dims, int n_dims) {
  std::string text = "[";
  for (int i = 0; i < n_dims; ++i)
    text += (i > 0 ? ", " : "") + std::to_string(dims[i]);
  return text + "]";
}

}  // namespace

std::string block_name(int layer_idx, const std::string& suffix) {
  return "blk." + std::to_string(layer_idx) + "." + suffix;
}

/// A vector is a matrix of one row.
const gguf::TensorInfo& WeightLoader::find(const std::string& name, int64_t n_rows,
                                           int64_t n_cols) const {
  const gguf::TensorInfo* tensor = file_.find_tensor(name);
  if (tensor == nullptr) throw Error(name + ": tensor missing");
  const int64_t expected[2] = {n_cols, n_rows};
  const bool fits = tensor->dims[0] == n_cols && tensor->dims[1] == n_rows &&
                    tensor->dims[2] == 1 && tensor->dims[3] == 1;
  if (!fits) {
    throw Error(name + ": shape " + shape_text(tensor->dims.data(), tensor->n_dims) +
                ", expected " + shape_text(expected, n_rows == 1 ? 1 : 2));
  }
  return *tensor;
}

int64_t WeightLoader::block_elems(const std::string& name) const {
  const gguf::TensorInfo* tensor = file_.find_tensor(name);
  return tensor != nullptr ? gguf::dtype_info(tensor->dtype).block_elems : 1;
}

MatrixView WeightLoader::replicated(const std::string& name, int64_t n_rows, int64_t n_cols) const {
  return column(name, n_rows, n_cols, {0, n_rows});
}

MatrixView WeightLoader::column(const std::string& name, int64_t n_rows, int64_t n_cols,
                                Range rows) const {
  assert(rows.begin >= 0 && rows.end <= n_rows);
  const gguf::TensorInfo& tensor = find(name, n_rows, n_cols);
  const int64_t row_bytes = gguf::row_size_bytes(tensor.dtype, n_cols);
  MatrixView view{.dtype = tensor.dtype,
                  .n_rows = rows.size(),
                  .n_cols = n_cols,
                  .data = tensor.data + rows.begin * row_bytes,
                  .row_stride_bytes = row_bytes,
                  .is_mapped = true};
  if (loras_ != nullptr) loras_->add_to(view, name, {n_rows, n_cols}, rows, {0, n_cols});
  return view;
}

MatrixView WeightLoader::row(const std::string& name, int64_t n_rows, int64_t n_cols,
                             Range cols) const {
  const gguf::TensorInfo& tensor = find(name, n_rows, n_cols);
  assert(cols.begin % gguf::dtype_info(tensor.dtype).block_elems == 0);
  assert(cols.size() % gguf::dtype_info(tensor.dtype).block_elems == 0 && cols.end <= n_cols);
  MatrixView view{.dtype = tensor.dtype,
                  .n_rows = n_rows,
                  .n_cols = cols.size(),
                  .data = tensor.data + gguf::row_size_bytes(tensor.dtype, cols.begin),
                  .row_stride_bytes = gguf::row_size_bytes(tensor.dtype, n_cols),
                  .is_mapped = true};
  if (loras_ != nullptr) loras_->add_to(view, name, {n_rows, n_cols}, {0, n_rows}, cols);
  return view;
}

MatrixStack WeightLoader::stack(const std::string& name, int64_t n_matrices, int64_t n_rows,
                                int64_t n_cols, Range matrices, Range rows, Range cols) const {
  assert(matrices.begin >= 0 && matrices.end <= n_matrices);
  assert(rows.begin >= 0 && rows.end <= n_rows);
  const gguf::TensorInfo* found = file_.find_tensor(name);
  if (found == nullptr) throw Error(name + ": tensor missing");
  const auto& dims = found->dims;
  const bool fits = dims[0] == n_cols && dims[3] == 1 &&
                    ((dims[1] == n_rows && dims[2] == n_matrices) ||
                     (dims[1] == n_rows * n_matrices && dims[2] == 1));
  if (!fits) {
    const int64_t expected[3] = {n_cols, n_rows, n_matrices};
    throw Error(name + ": shape " + shape_text(dims.data(), found->n_dims) + ", expected " +
                shape_text(expected, 3));
  }
  assert(cols.begin % gguf::dtype_info(found->dtype).block_elems == 0);
  assert(cols.size() % gguf::dtype_info(found->dtype).block_elems == 0 && cols.end <= n_cols);
  const int64_t row_bytes = gguf::row_size_bytes(found->dtype, n_cols);
  const int64_t matrix_bytes = row_bytes * n_rows;
  const int64_t offset_bytes = matrices.begin * matrix_bytes + rows.begin * row_bytes +
                               gguf::row_size_bytes(found->dtype, cols.begin);
  return {.first = {.dtype = found->dtype,
                    .n_rows = rows.size(),
                    .n_cols = cols.size(),
                    .data = found->data + offset_bytes,
                    .row_stride_bytes = row_bytes,
                    .is_mapped = true},
          .n_matrices = static_cast<int>(matrices.size()),
          .stride_bytes = matrix_bytes};
}

VectorPtr WeightLoader::find_vector(const std::string& name, int64_t n) {
  return has(name) ? vector(name, n) : nullptr;
}

std::vector<float> WeightLoader::values(const std::string& name, int64_t n) const {
  const gguf::TensorInfo& tensor = find(name, 1, n);
  std::vector<float> result(static_cast<size_t>(n));
  gguf::dequantize_row(tensor.dtype, tensor.data, result.data(), n);
  return result;
}

}  // namespace dsctl::engine
