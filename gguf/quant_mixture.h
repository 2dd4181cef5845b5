// Which type each tensor of a model gets under a file type ("Q4_K_M"): llama.cpp's mixtures. The
// rules are facts of that program (spec/quants.md, section 7); a model quantised here has the same
// types as one quantised there.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/dtype.h"
#include "gguf/gguf_file.h"

namespace dsctl::gguf {

/// A name that quantise understands.
struct FileType {
  std::string_view name;         // "Q4_K_M"
  uint32_t id = 0;               // general.file_type
  DType dtype = DType::F32;      // of most tensors
  std::string_view description;  // "4.9 bits a weight, ..."
};

/// All of them, in ascending size.
std::span<const FileType> file_types();

/// The file type called `name`, case-insensitive; "Q3_K", "Q4_K" and "Q5_K" mean the _M form.
std::optional<FileType> file_type_from_name(std::string_view name);

/// A tensor whose name contains a match of `pattern` (a regular expression) gets `dtype`.
struct TensorTypeRule {
  std::string pattern;
  DType dtype = DType::F32;
};

/// What departs from the mixture.
struct MixtureOptions {
  std::optional<DType> output_type;     // of output.weight
  std::optional<DType> embedding_type;  // of token_embd.weight
  std::vector<TensorTypeRule> rules;    // the first that matches counts
  bool pure = false;                    // one type for all, where it fits
  bool leave_output = false;            // output.weight stays as it is
  bool has_matrix = false;              // some mixtures depend on it
};

/// The choice for one tensor.
struct TypeChoice {
  DType dtype = DType::F32;
  /// The type that was wanted but needs longer rows; `dtype` is what took its place.
  std::optional<DType> wanted;
};

/// The types of `tensors`, in their order, which has to be that of the layers: some rules count.
/// Throws Error for a bad pattern, or a type that fits no row.
std::vector<TypeChoice> choose_types(const GgufFile& file, std::span<const TensorInfo> tensors,
                                     const FileType& file_type, const MixtureOptions& options);

/// True when llama.cpp's rules allow to quantise the tensor at all: a weight of two or more
/// dimensions, no norm, no router, no convolution and so on.
bool may_quantize(const TensorInfo& tensor);

}  // namespace dsctl::gguf
