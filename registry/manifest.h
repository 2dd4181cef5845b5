// Manifest: the small JSON document that makes a model of blobs, and the config blob it names.
// Field for field Ollama's, so that either program reads what the other wrote.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "registry/digest.h"

namespace dsctl::registry {

/// What a layer is: the ending of its media type "application/vnd.ollama.image.<kind>".
namespace media_type {
inline constexpr std::string_view kManifest =
    "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr std::string_view kConfig = "application/vnd.docker.container.image.v1+json";
inline constexpr std::string_view kModel = "application/vnd.ollama.image.model";
inline constexpr std::string_view kProjector = "application/vnd.ollama.image.projector";
inline constexpr std::string_view kAdapter = "application/vnd.ollama.image.adapter";
inline constexpr std::string_view kDraft = "application/vnd.ollama.image.draft";
inline constexpr std::string_view kTemplate = "application/vnd.ollama.image.template";
inline constexpr std::string_view kPrompt = "application/vnd.ollama.image.prompt";  // old template
inline constexpr std::string_view kSystem = "application/vnd.ollama.image.system";
inline constexpr std::string_view kParams = "application/vnd.ollama.image.params";
inline constexpr std::string_view kMessages = "application/vnd.ollama.image.messages";
inline constexpr std::string_view kLicense = "application/vnd.ollama.image.license";
}  // namespace media_type

/// One blob with its role.
struct Layer {
  std::string media_type;
  Digest digest;
  int64_t size_bytes = 0;
  std::string from;  // the model it was inherited from, or empty
  std::string name;  // a shard's original file name, or empty
};

/// The manifest of one model. A split model has its shards as `kModel` layers in order.
struct Manifest {
  static constexpr size_t kMaxBytes = 4 << 20;
  static constexpr size_t kMaxLayers = 65536;

  Layer config;
  std::vector<Layer> layers;

  /// Reads a manifest. Throws Error naming the field that is missing or wrong.
  static Manifest parse(std::string_view json);
  /// The document as Ollama writes it: fixed order of fields, no white space, a final newline.
  std::string to_json() const;
  /// Bytes of all blobs together, config included: Ollama's SIZE.
  int64_t size_bytes() const;
  /// The layers of one kind, in order.
  std::vector<Layer> layers_of(std::string_view media_type) const;
};

/// The config blob: facts of the model that `list` and `show` need without opening the weights.
struct ModelConfig {
  std::string model_format;  // "gguf"
  std::string model_family;  // architecture: "llama"
  std::vector<std::string> model_families;
  std::string model_type;  // parameters: "671.0B"
  std::string file_type;   // quantization: "Q4_K_M"
  std::string renderer;    // names of Ollama's built-in prompt code, kept, not used
  std::string parser;
  std::string requires_version;  // REQUIRES
  std::string remote_host;       // a model that lives on another machine has no weights here
  std::string remote_model;
  std::vector<std::string> capabilities;
  int64_t context_length = 0;  // 0: not recorded
  int64_t embedding_length = 0;

  /// Reads a config blob; unknown fields are ignored. Throws Error naming a field of a wrong type.
  static ModelConfig parse(std::string_view json);
  /// The config blob of a model with these layers (their digests go to rootfs.diff_ids).
  std::string to_json(const std::vector<Layer>& layers) const;
};

/// A line of a conversation that the model starts from (MESSAGE).
struct StoredMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
  bool operator==(const StoredMessage&) const = default;
};

}  // namespace dsctl::registry
