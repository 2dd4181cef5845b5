#include "tests/support/gguf_safetensors.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "gguf/quants/half.h"

namespace dsctl::tests {
namespace {

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

template <typename Round>
std::string rounded(const std::vector<float>& values, const Round& round) {
  std::vector<uint16_t> halves;
  for (const float value : values)
    halves.push_back(round(value));
  return bytes_of(halves);
}

int64_t product(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t dim : shape)
    n *= dim;
  return n;
}

/// How byte-level BPE writes a byte: printable ones as they are, others from U+0100 on.
std::string byte_symbol(int byte) {
  const auto is_printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  int code = byte;
  if (!is_printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b)
      code += is_printable(b) ? 0 : 1;
  }
  if (code < 128) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 63))};
}

}  // namespace

RawTensor f32_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& data) {
  return {std::move(name), "F32", std::move(shape), bytes_of(data)};
}
RawTensor f16_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& data) {
  return {std::move(name), "F16", std::move(shape), rounded(data, gguf::float_to_half)};
}
RawTensor bf16_tensor(std::string name, std::vector<int64_t> shape,
                      const std::vector<float>& data) {
  return {std::move(name), "BF16", std::move(shape), rounded(data, gguf::float_to_bfloat)};
}
RawTensor i32_tensor(std::string name, std::vector<int64_t> shape,
                     const std::vector<uint32_t>& data) {
  return {std::move(name), "I32", std::move(shape), bytes_of(data)};
}

std::string safetensors_bytes(std::string_view header, std::string_view data) {
  const uint64_t size = header.size();
  std::string bytes(sizeof(size), '\0');
  std::memcpy(bytes.data(), &size, sizeof(size));
  bytes += header;
  return bytes += data;
}

std::string safetensors_bytes(const std::vector<RawTensor>& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  std::string data;
  for (const RawTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.type},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + tensor.data.size()}}};
    data += tensor.data;
  }
  return safetensors_bytes(header.dump(), data);
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<float> ramp(int64_t n, int seed) {
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i)
    values.push_back(static_cast<float>((i * 37 + seed * 11) % 251 - 125) / 128.0F);
  return values;
}

std::vector<RawTensor> TinyLlama::tensors() const {
  std::vector<RawTensor> all;
  int seed = 0;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    all.push_back(bf16_tensor(name, shape, ramp(product(shape), ++seed)));
  };
  add("model.embed_tokens.weight", {vocab_size, 32});
  add("model.norm.weight", {32});
  add("lm_head.weight", {vocab_size, 32});
  const std::string layer = "model.layers.0.";
  add(layer + "input_layernorm.weight", {32});
  add(layer + "post_attention_layernorm.weight", {32});
  add(layer + "self_attn.q_proj.weight", {32, 32});
  add(layer + "self_attn.k_proj.weight", {16, 32});
  add(layer + "self_attn.v_proj.weight", {16, 32});
  add(layer + "self_attn.o_proj.weight", {32, 32});
  add(layer + "mlp.gate_proj.weight", {64, 32});
  add(layer + "mlp.up_proj.weight", {64, 32});
  add(layer + "mlp.down_proj.weight", {32, 64});
  return all;
}

std::string TinyLlama::config_json() const {
  return R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
             "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
             "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
             "bos_token_id": 286, "eos_token_id": 287, "vocab_size": )" +
         std::to_string(vocab_size) + config_more + "}";
}

std::string TinyLlama::tokenizer_json() const {
  nlohmann::json json;
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte)
    vocab[byte_symbol(byte)] = byte;
  vocab["he"] = 256;
  vocab["ll"] = 257;
  json["model"] = {
      {"type", "BPE"}, {"vocab", vocab}, {"ignore_merges", true}, {"merges", {"h e", "l l"}}};
  json["added_tokens"] = {{{"id", 286}, {"content", "<|begin|>"}, {"special", true}},
                          {{"id", 287}, {"content", "<|end|>"}, {"special", true}},
                          {{"id", 285}, {"content", "plain"}, {"special", false}}};
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern",
          {{"Regex", R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| )"
                     R"(?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}}},
         {"behavior", "Isolated"}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  json["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single",
                             {{{"SpecialToken", {{"id", "<|begin|>"}, {"type_id", 0}}}},
                              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}}};
  json["decoder"] = {{"type", "ByteLevel"}};
  return json.dump();
}

void TinyLlama::write(const std::filesystem::path& dir) const {
  std::filesystem::create_directories(dir);
  write_file(dir / "config.json", config_json());
  write_file(dir / "tokenizer.json", tokenizer_json());
  write_file(dir / "tokenizer_config.json",
             R"({"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>"},
                 "chat_template": "{{ messages }}"})");
  write_file(dir / "model.safetensors", safetensors_bytes(tensors()));
}

}  // namespace dsctl::tests
