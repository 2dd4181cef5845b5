// Safetensors files and small checkpoints made by hand, for the tests of the converter.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::tests {

/// A tensor to be written; `data` has the bytes of its shape and type.
struct RawTensor {
  std::string name;
  std::string type;  // "F32", "BF16", "I32", ...
  std::vector<int64_t> shape;
  std::string data;
};

RawTensor f32_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& data);
RawTensor f16_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& data);
RawTensor bf16_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& data);
RawTensor i32_tensor(std::string name, std::vector<int64_t> shape,
                     const std::vector<uint32_t>& data);

/// The bytes of a file: the header's length, the header, the data.
std::string safetensors_bytes(const std::vector<RawTensor>& tensors);
/// The same with a header of one's own.
std::string safetensors_bytes(std::string_view header, std::string_view data);

void write_file(const std::filesystem::path& path, std::string_view bytes);
std::string read_file(const std::filesystem::path& path);

/// `n` different values around 0 that bf16 holds.
std::vector<float> ramp(int64_t n, int seed = 0);

/// A tiny llama in `dir`: config.json, model.safetensors (BF16), a byte-level tokenizer of
/// `vocab_size` tokens. `config_more` are members of config.json, with a comma before each.
struct TinyLlama {
  int vocab_size = 288;
  std::string config_more;
  std::vector<RawTensor> tensors() const;
  std::string config_json() const;
  std::string tokenizer_json() const;
  void write(const std::filesystem::path& dir) const;
};

}  // namespace dsctl::tests
