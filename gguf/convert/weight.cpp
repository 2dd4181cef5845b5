#include "gguf/convert/weight.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

#include "gguf/error.h"
#include "gguf/printable.h"
#include "gguf/quants/half.h"

namespace dsctl::gguf::convert {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

/// An FP8 number with `n_mantissa` bits; E4M3 has no infinity.
float fp8_to_float(uint8_t code, int n_mantissa, int bias, bool has_infinity) {
  const int exponent = (code & 0x7f) >> n_mantissa;
  const int mantissa = code & ((1 << n_mantissa) - 1);
  const int max_exponent = (1 << (7 - n_mantissa)) - 1;
  float value;
  if (exponent == max_exponent && has_infinity) {
    value =
        mantissa ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  } else if ((code & 0x7f) == 0x7f && !has_infinity) {
    value = std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(mantissa), 1 - bias - n_mantissa);
  } else {
    value =
        std::ldexp(static_cast<float>(mantissa + (1 << n_mantissa)), exponent - bias - n_mantissa);
  }
  return code & 0x80 ? -value : value;
}

std::array<float, 256> fp8_table(ScalarType type) {
  std::array<float, 256> table;
  for (int code = 0; code < 256; ++code) {
    table[static_cast<size_t>(code)] = type == ScalarType::kF8E4M3
                                           ? fp8_to_float(static_cast<uint8_t>(code), 3, 7, false)
                                           : fp8_to_float(static_cast<uint8_t>(code), 2, 15, true);
  }
  return table;
}

const std::array<float, 256>& fp8_values(ScalarType type) {
  static const std::array<float, 256> e4m3 = fp8_table(ScalarType::kF8E4M3);
  static const std::array<float, 256> e5m2 = fp8_table(ScalarType::kF8E5M2);
  return type == ScalarType::kF8E4M3 ? e4m3 : e5m2;
}

/// Elements [begin, begin + n) of `tensor` as f32.
void read_scalars(const SafeTensor& tensor, int64_t begin, int64_t n, float* out) {
  const std::byte* at = tensor.data.data() + begin * scalar_bytes(tensor.type);
  switch (tensor.type) {
    case ScalarType::kF32:
      std::memcpy(out, at, static_cast<size_t>(n) * sizeof(float));
      return;
    case ScalarType::kF16:
      for (int64_t i = 0; i < n; ++i)
        out[i] = half_to_float(load<uint16_t>(at + 2 * i));
      return;
    case ScalarType::kBF16:
      for (int64_t i = 0; i < n; ++i)
        out[i] = bfloat_to_float(load<uint16_t>(at + 2 * i));
      return;
    case ScalarType::kF64:
      for (int64_t i = 0; i < n; ++i)
        out[i] = static_cast<float>(load<double>(at + 8 * i));
      return;
    case ScalarType::kF8E4M3:
    case ScalarType::kF8E5M2: {
      const auto& values = fp8_values(tensor.type);
      for (int64_t i = 0; i < n; ++i)
        out[i] = values[static_cast<size_t>(at[i])];
      return;
    }
    case ScalarType::kBool:
    case ScalarType::kU8:
    case ScalarType::kI8:
    case ScalarType::kI16:
    case ScalarType::kU16:
    case ScalarType::kI32:
    case ScalarType::kU32:
    case ScalarType::kI64:
    case ScalarType::kU64:
      break;
  }
  assert(false);
}

bool is_float(ScalarType type) {
  return type == ScalarType::kF64 || type == ScalarType::kF32 || type == ScalarType::kF16 ||
         type == ScalarType::kBF16 || type == ScalarType::kF8E4M3 || type == ScalarType::kF8E5M2;
}

class PlainWeight final : public Weight {
 public:
  explicit PlainWeight(const SafeTensor& tensor) : Weight(tensor.shape), tensor_(tensor) {
    if (!is_float(tensor.type)) {
      throw Error("tensor \"" + printable(tensor.name) + "\": type " +
                  std::string(scalar_name(tensor.type)) + " is no weight's type");
    }
  }

  void read_rows(int64_t begin, int64_t end, float* out) const override {
    read_scalars(tensor_, begin * n_cols(), (end - begin) * n_cols(), out);
  }
  bool is_exact_in(DType dtype) const override {
    return (dtype == DType::F32 && tensor_.type == ScalarType::kF32) ||
           (dtype == DType::F16 && tensor_.type == ScalarType::kF16) ||
           (dtype == DType::BF16 && tensor_.type == ScalarType::kBF16);
  }
  void copy_rows(DType, int64_t begin, int64_t end, std::byte* out) const override {
    const int64_t row_bytes = n_cols() * scalar_bytes(tensor_.type);
    std::memcpy(out, tensor_.data.data() + begin * row_bytes,
                static_cast<size_t>((end - begin) * row_bytes));
  }
  std::string stored_type() const override { return std::string(scalar_name(tensor_.type)); }
  bool is_half() const override { return tensor_.type == ScalarType::kF16; }

 private:
  SafeTensor tensor_;
};

class ScaledFp8Weight final : public Weight {
 public:
  ScaledFp8Weight(const SafeTensor& codes, const SafeTensor& scales, int64_t block_rows,
                  int64_t block_cols)
      : Weight(codes.shape),
        codes_(codes),
        scales_(scales),
        block_rows_(block_rows),
        block_cols_(block_cols) {
    const bool one_scale = scales.n_elems() == 1;
    if (codes.shape.size() != 2 || block_rows <= 0 || block_cols <= 0 ||
        !(codes.type == ScalarType::kF8E4M3 || codes.type == ScalarType::kF8E5M2) ||
        !is_float(scales.type)) {
      throw Error("tensor \"" + printable(codes.name) +
                  "\": " + std::string(scalar_name(codes.type)) + " " + shape_text(codes.shape) +
                  ", expected a matrix of FP8 with scales");
    }
    const auto n_blocks = [](int64_t n, int64_t block) { return (n + block - 1) / block; };
    const std::vector<int64_t> expected = {n_blocks(codes.shape[0], block_rows),
                                           n_blocks(codes.shape[1], block_cols)};
    if (one_scale) {
      block_rows_ = std::max<int64_t>(codes.shape[0], 1);
      block_cols_ = std::max<int64_t>(codes.shape[1], 1);
    } else if (scales.shape != expected) {
      throw Error("tensor \"" + printable(scales.name) + "\": shape " + shape_text(scales.shape) +
                  ", expected " + shape_text(expected));
    }
  }

  void read_rows(int64_t begin, int64_t end, float* out) const override {
    const int64_t n_scales = (n_cols() + block_cols_ - 1) / block_cols_;
    std::vector<float> scales(static_cast<size_t>(n_scales));
    for (int64_t row = begin; row < end; ++row, out += n_cols()) {
      read_scalars(codes_, row * n_cols(), n_cols(), out);
      read_scalars(scales_, row / block_rows_ * n_scales, n_scales, scales.data());
      for (int64_t col = 0; col < n_cols(); ++col)
        out[col] *= scales[static_cast<size_t>(col / block_cols_)];
    }
  }
  std::string stored_type() const override { return std::string(scalar_name(codes_.type)); }

 private:
  SafeTensor codes_;
  SafeTensor scales_;
  int64_t block_rows_;
  int64_t block_cols_;
};

class VectorWeight final : public Weight {
 public:
  explicit VectorWeight(std::vector<float> values)
      : Weight({static_cast<int64_t>(values.size())}), values_(std::move(values)) {}
  void read_rows(int64_t begin, int64_t end, float* out) const override {
    if (begin < end) std::copy(values_.begin(), values_.end(), out);
  }
  std::string stored_type() const override { return "computed"; }

 private:
  std::vector<float> values_;
};

class ShiftedWeight final : public Weight {
 public:
  ShiftedWeight(WeightPtr inner, float addend)
      : Weight(inner->shape()), inner_(std::move(inner)), addend_(addend) {}
  void read_rows(int64_t begin, int64_t end, float* out) const override {
    inner_->read_rows(begin, end, out);
    for (float* const out_end = out + (end - begin) * n_cols(); out != out_end; ++out) {
      *out += addend_;
      if (inner_->is_half()) *out = half_to_float(float_to_half(*out));
    }
  }
  std::string stored_type() const override { return inner_->stored_type(); }

 private:
  WeightPtr inner_;
  float addend_;
};

class InterleavedWeight final : public Weight {
 public:
  InterleavedWeight(WeightPtr inner, int64_t n_heads)
      // A bias is a vector: one number a row.
      : Weight(inner->shape()), inner_(std::move(inner)), is_vector_(shape_.size() == 1) {
    const int64_t n = shape_.empty() ? 0 : shape_.front();
    if (shape_.empty() || shape_.size() > 2 || n_heads <= 0 || n % (2 * n_heads) != 0) {
      throw Error("shape " + shape_text(shape_) + ", expected rows for " + std::to_string(n_heads) +
                  " heads of even size");
    }
    head_dim_ = n / n_heads;
  }

  void read_rows(int64_t begin, int64_t end, float* out) const override {
    if (is_vector_) {
      if (begin == end) return;
      std::vector<float> values(static_cast<size_t>(n_cols()));
      inner_->read_rows(0, 1, values.data());
      for (int64_t i = 0; i < n_cols(); ++i)
        out[i] = values[static_cast<size_t>(source_row(i))];
      return;
    }
    gather(begin, end, static_cast<size_t>(n_cols()), out,
           [this](int64_t from, int64_t to, float* rows) { inner_->read_rows(from, to, rows); });
  }
  bool is_exact_in(DType dtype) const override { return !is_vector_ && inner_->is_exact_in(dtype); }
  bool can_approximate(DType dtype) const override {
    return !is_vector_ && inner_->can_approximate(dtype);
  }
  void copy_rows(DType dtype, int64_t begin, int64_t end, std::byte* out) const override {
    gather(begin, end, static_cast<size_t>(row_size_bytes(dtype, n_cols())), out,
           [&](int64_t from, int64_t to, std::byte* rows) {
             inner_->copy_rows(dtype, from, to, rows);
           });
  }
  std::string stored_type() const override { return inner_->stored_type(); }
  bool is_quantized() const override { return inner_->is_quantized(); }
  bool is_half() const override { return inner_->is_half(); }

 private:
  int64_t source_row(int64_t row) const {
    const int64_t in_head = row % head_dim_;
    return row - in_head + in_head % 2 * (head_dim_ / 2) + in_head / 2;
  }

  /// Reads whole heads, which packed weights read much faster than single rows.
  template <typename T, typename Read>
  void gather(int64_t begin, int64_t end, size_t row_elems, T* out, const Read& read) const {
    std::vector<T> head(static_cast<size_t>(head_dim_) * row_elems);
    int64_t head_begin = -1;
    for (int64_t row = begin; row < end; ++row, out += row_elems) {
      if (row - row % head_dim_ != head_begin) {
        head_begin = row - row % head_dim_;
        read(head_begin, head_begin + head_dim_, head.data());
      }
      const size_t from = static_cast<size_t>(source_row(row) - head_begin) * row_elems;
      std::copy_n(head.data() + from, row_elems, out);
    }
  }

  WeightPtr inner_;
  bool is_vector_;
  int64_t head_dim_ = 0;
};

class FirstRows final : public Weight {
 public:
  FirstRows(WeightPtr inner, int64_t n_rows) : Weight(inner->shape()), inner_(std::move(inner)) {
    shape_.front() = std::min(n_rows, shape_.front());
  }
  void read_rows(int64_t begin, int64_t end, float* out) const override {
    inner_->read_rows(begin, end, out);
  }
  bool is_exact_in(DType dtype) const override { return inner_->is_exact_in(dtype); }
  bool can_approximate(DType dtype) const override { return inner_->can_approximate(dtype); }
  void copy_rows(DType dtype, int64_t begin, int64_t end, std::byte* out) const override {
    inner_->copy_rows(dtype, begin, end, out);
  }
  std::string stored_type() const override { return inner_->stored_type(); }
  bool is_quantized() const override { return inner_->is_quantized(); }

 private:
  WeightPtr inner_;
};

class StackedWeight final : public Weight {
 public:
  explicit StackedWeight(std::vector<WeightPtr> parts)
      : Weight(parts.front()->shape()), parts_(std::move(parts)) {
    for (const WeightPtr& part : parts_) {
      if (part->shape() == shape_) continue;
      throw Error("experts of shapes " + shape_text(shape_) + " and " + shape_text(part->shape()) +
                  ", expected one shape");
    }
    part_rows_ = std::max<int64_t>(parts_.front()->n_rows(), 1);
    shape_.insert(shape_.begin(), static_cast<int64_t>(parts_.size()));
  }
  void read_rows(int64_t begin, int64_t end, float* out) const override {
    for_parts(begin, end, [&](const Weight& part, int64_t from, int64_t to) {
      part.read_rows(from, to, out);
      out += (to - from) * n_cols();
    });
  }
  bool is_exact_in(DType dtype) const override {
    return std::all_of(parts_.begin(), parts_.end(),
                       [&](const WeightPtr& part) { return part->is_exact_in(dtype); });
  }
  bool can_approximate(DType dtype) const override {
    return std::all_of(parts_.begin(), parts_.end(), [&](const WeightPtr& part) {
      return part->is_exact_in(dtype) || part->can_approximate(dtype);
    });
  }
  void copy_rows(DType dtype, int64_t begin, int64_t end, std::byte* out) const override {
    for_parts(begin, end, [&](const Weight& part, int64_t from, int64_t to) {
      part.copy_rows(dtype, from, to, out);
      out += (to - from) * row_size_bytes(dtype, n_cols());
    });
  }
  std::string stored_type() const override { return parts_.front()->stored_type(); }
  bool is_quantized() const override {
    return std::any_of(parts_.begin(), parts_.end(),
                       [](const WeightPtr& part) { return part->is_quantized(); });
  }

 private:
  template <typename Use>
  void for_parts(int64_t begin, int64_t end, const Use& use) const {
    while (begin < end) {
      const int64_t part = begin / part_rows_;
      const int64_t from = begin % part_rows_;
      const int64_t to = std::min(part_rows_, from + end - begin);
      use(*parts_[static_cast<size_t>(part)], from, to);
      begin += to - from;
    }
  }

  std::vector<WeightPtr> parts_;
  int64_t part_rows_;
};

std::vector<int64_t> head_shape(const Weight& inner, int64_t n_heads, int64_t end) {
  const auto& shape = inner.shape();
  if (shape.size() != 2 || n_heads <= 0 || shape[0] % n_heads != 0 || shape[0] / n_heads < end) {
    throw Error("shape " + shape_text(shape) + ", expected " + std::to_string(n_heads) +
                " heads of at least " + std::to_string(end) + " rows");
  }
  return {n_heads, shape[0] / n_heads, shape[1]};
}

class HeadRows final : public Weight {
 public:
  HeadRows(std::shared_ptr<const Weight> inner, int64_t n_heads, int64_t begin, int64_t end)
      : Weight(head_shape(*inner, n_heads, end)),
        inner_(std::move(inner)),
        group_(shape_[1]),
        begin_(begin),
        rows_(end - begin) {
    shape_[1] = rows_;
  }
  void read_rows(int64_t begin, int64_t end, float* out) const override {
    for_runs(begin, end, [&](int64_t from, int64_t to) {
      inner_->read_rows(from, to, out);
      out += (to - from) * n_cols();
    });
  }
  bool is_exact_in(DType dtype) const override { return inner_->is_exact_in(dtype); }
  bool can_approximate(DType dtype) const override { return inner_->can_approximate(dtype); }
  void copy_rows(DType dtype, int64_t begin, int64_t end, std::byte* out) const override {
    for_runs(begin, end, [&](int64_t from, int64_t to) {
      inner_->copy_rows(dtype, from, to, out);
      out += (to - from) * row_size_bytes(dtype, n_cols());
    });
  }
  std::string stored_type() const override { return inner_->stored_type(); }
  bool is_quantized() const override { return inner_->is_quantized(); }

 private:
  template <typename Use>
  void for_runs(int64_t begin, int64_t end, const Use& use) const {
    while (begin < end) {
      const int64_t in_head = begin % rows_;
      const int64_t n = std::min(rows_ - in_head, end - begin);
      const int64_t from = begin / rows_ * group_ + begin_ + in_head;
      use(from, from + n);
      begin += n;
    }
  }

  std::shared_ptr<const Weight> inner_;
  int64_t group_;
  int64_t begin_;
  int64_t rows_;
};

class TransposedHeadRows final : public Weight {
 public:
  TransposedHeadRows(std::shared_ptr<const Weight> inner, int64_t n_heads, int64_t begin,
                     int64_t end)
      : Weight(head_shape(*inner, n_heads, end)),
        inner_(std::move(inner)),
        group_(shape_[1]),
        begin_(begin) {
    shape_ = {n_heads, inner_->n_cols(), end - begin};
  }
  void read_rows(int64_t begin, int64_t end, float* out) const override {
    const int64_t head_rows = shape_[1];  // columns of `inner_`
    std::vector<float> head(static_cast<size_t>(n_cols() * head_rows));
    int64_t head_idx = -1;
    for (int64_t row = begin; row < end; ++row) {
      if (row / head_rows != head_idx) {
        head_idx = row / head_rows;
        const int64_t from = head_idx * group_ + begin_;
        inner_->read_rows(from, from + n_cols(), head.data());
      }
      for (int64_t col = 0; col < n_cols(); ++col)
        *out++ = head[static_cast<size_t>(col * head_rows + row % head_rows)];
    }
  }
  std::string stored_type() const override { return inner_->stored_type(); }
  bool is_quantized() const override { return inner_->is_quantized(); }

 private:
  std::shared_ptr<const Weight> inner_;
  int64_t group_;
  int64_t begin_;
};

}  // namespace

int64_t Weight::n_rows() const {
  int64_t n = 1;
  for (size_t i = 0; i + 1 < shape_.size(); ++i)
    n *= shape_[i];
  return n;
}

void Weight::copy_rows(DType, int64_t, int64_t, std::byte*) const {
  assert(false);
}

WeightPtr plain_weight(const SafeTensor& tensor) {
  return std::make_unique<PlainWeight>(tensor);
}

WeightPtr scaled_fp8_weight(const SafeTensor& codes, const SafeTensor& scales, int64_t block_rows,
                            int64_t block_cols) {
  return std::make_unique<ScaledFp8Weight>(codes, scales, block_rows, block_cols);
}

WeightPtr vector_weight(std::vector<float> values) {
  return std::make_unique<VectorWeight>(std::move(values));
}

WeightPtr shifted_weight(WeightPtr inner, float addend) {
  return std::make_unique<ShiftedWeight>(std::move(inner), addend);
}

WeightPtr interleaved_weight(WeightPtr inner, int64_t n_heads) {
  return std::make_unique<InterleavedWeight>(std::move(inner), n_heads);
}

WeightPtr first_rows(WeightPtr inner, int64_t n_rows) {
  return std::make_unique<FirstRows>(std::move(inner), n_rows);
}

WeightPtr stacked_weight(std::vector<WeightPtr> parts) {
  return std::make_unique<StackedWeight>(std::move(parts));
}

WeightPtr head_rows(std::shared_ptr<const Weight> inner, int64_t n_heads, int64_t begin,
                    int64_t end) {
  return std::make_unique<HeadRows>(std::move(inner), n_heads, begin, end);
}

WeightPtr transposed_head_rows(std::shared_ptr<const Weight> inner, int64_t n_heads, int64_t begin,
                               int64_t end) {
  return std::make_unique<TransposedHeadRows>(std::move(inner), n_heads, begin, end);
}

}  // namespace dsctl::gguf::convert
