// A checkpoint of the Hub (a directory with config.json, safetensors and a tokenizer) as a GGUF
// file, with the tensors, names and metadata that llama.cpp's convert_hf_to_gguf gives it. Planned
// from headers alone, then written in pieces: no tensor is ever whole in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/convert/metadata_list.h"
#include "gguf/convert/tokenizer_tables.h"
#include "gguf/dtype.h"
#include "gguf/quant_mixture.h"

namespace dsctl::gguf::convert {

/// The type of matrices; vectors, norms and routers are F32 always.
enum class OutType {
  kAuto,  // that of the first matrix of 16 bits; codes of AWQ and GPTQ get a type that is exact
  kF32,
  kF16,
  kBF16,
  kQ8_0,
};

/// What happens to 4-bit codes that the wanted type can't hold exactly.
enum class Rounding { kExact, kNearest };  // refused, or the nearest value taken

struct ConvertOptions {
  OutType out_type = OutType::kAuto;
  std::optional<FileType> quantize;  // a mixture, as llama-quantize has it, over out_type
  Rounding rounding = Rounding::kExact;
  std::string name;           // general.name; "" takes the model card's or the directory's
  std::string pre_tokenizer;  // tokenizer.ggml.pre; "" recognises it
  int n_threads = 0;          // 0: one for each processor
  /// Names the pre-tokenizer better than its regexes do, when it can: several names stand for the
  /// same regexes.
  std::function<std::optional<std::string>(const TokenizerTables& tables)> name_pre_tokenizer;
};

/// A tensor of the file to be written.
struct ConvertedTensor {
  std::string name;
  std::string source;       // its name in the checkpoint
  std::string stored_type;  // there: "BF16", "AWQ"
  DType dtype = DType::F32;
  std::vector<int64_t> dims;  // dims[0] is the row length
  int64_t size_bytes = 0;
};

/// Called with the bytes written so far and their total, from the thread that called write; throws
/// to stop.
using ConvertProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

class Conversion {
 public:
  /// Reads the headers, config.json and the tokenizer of `dir`. Throws Error naming the file, field
  /// or tensor: one that is missing, unknown, of a wrong shape, or that can't be held exactly.
  static Conversion plan(const std::filesystem::path& dir, const ConvertOptions& options);

  const std::string& architecture() const;
  const MetadataList& metadata() const;
  const std::vector<ConvertedTensor>& tensors() const;
  int64_t data_bytes() const;  // of all tensors
  /// What a person should know: choices that were made, in words.
  const std::vector<std::string>& notes() const;

  /// Writes the file; it appears whole or not at all. Throws Error.
  void write(const std::filesystem::path& path, const ConvertProgress& progress) const;

  ~Conversion();
  Conversion(Conversion&&) noexcept;
  Conversion& operator=(Conversion&&) noexcept;

 private:
  struct State;
  explicit Conversion(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// True when `dir` looks like a checkpoint: config.json and safetensors.
bool is_checkpoint(const std::filesystem::path& dir);

}  // namespace dsctl::gguf::convert
