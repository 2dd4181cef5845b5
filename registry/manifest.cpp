#include "registry/manifest.h"

#include <nlohmann/json.hpp>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

Json parse_object(std::string_view json, const std::string& what) {
  Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) throw Error(what + ": is no valid JSON");
  if (!root.is_object()) throw Error(what + ": expected a JSON object");
  return root;
}

/// The string at `key`; empty when absent or null.
std::string string_field(const Json& object, const char* key, const std::string& what) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return "";
  if (!found->is_string()) throw Error(what + ": " + key + ": expected a string");
  return found->get<std::string>();
}

int64_t int_field(const Json& object, const char* key, const std::string& what) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return 0;
  if (!found->is_number_integer() ||
      (found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX)) {
    throw Error(what + ": " + key + ": expected a whole number");
  }
  return found->get<int64_t>();
}

std::vector<std::string> strings_field(const Json& object, const char* key,
                                       const std::string& what) {
  std::vector<std::string> values;
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return values;
  if (!found->is_array()) throw Error(what + ": " + key + ": expected a list of strings");
  for (const Json& value : *found) {
    if (!value.is_string()) throw Error(what + ": " + key + ": expected a list of strings");
    values.push_back(value.get<std::string>());
  }
  return values;
}

Layer parse_layer(const Json& object, const std::string& what) {
  if (!object.is_object()) throw Error(what + ": expected a JSON object");
  Layer layer;
  layer.media_type = string_field(object, "mediaType", what);
  const std::string digest = string_field(object, "digest", what);
  const std::optional<Digest> parsed = Digest::parse(digest);
  if (!parsed) {
    throw Error(what + ": digest: expected \"sha256:\" and 64 hexadecimal digits");
  }
  layer.digest = *parsed;
  layer.size_bytes = int_field(object, "size", what);
  // Bounded so that sums over all layers can't overflow.
  if (layer.size_bytes < 0 || layer.size_bytes > INT64_MAX / 131072) {
    throw Error(what + ": size: " + std::to_string(layer.size_bytes) + " is no size of a file");
  }
  layer.from = string_field(object, "from", what);
  layer.name = string_field(object, "name", what);
  return layer;
}

OrderedJson layer_to_json(const Layer& layer) {
  OrderedJson object;
  object["mediaType"] = layer.media_type;
  object["digest"] = layer.digest.to_string();
  object["size"] = layer.size_bytes;
  if (!layer.from.empty()) object["from"] = layer.from;
  if (!layer.name.empty()) object["name"] = layer.name;
  return object;
}

// Strings come from files and may hold broken UTF-8, which JSON can't carry.
std::string dump(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace

Manifest Manifest::parse(std::string_view json) {
  if (json.size() > kMaxBytes) {
    throw Error("manifest: " + std::to_string(json.size()) + " bytes, expected at most " +
                std::to_string(kMaxBytes));
  }
  const Json root = parse_object(json, "manifest");
  Manifest manifest;
  if (const int64_t version = int_field(root, "schemaVersion", "manifest");
      root.contains("schemaVersion") && version != 2) {
    throw Error("manifest: schemaVersion: " + std::to_string(version) + ", expected 2");
  }
  if (!root.contains("config")) throw Error("manifest: config: missing");
  manifest.config = parse_layer(root["config"], "manifest: config");
  if (!root.contains("layers") || root["layers"].is_null()) return manifest;
  const Json& layers = root["layers"];
  if (!layers.is_array()) throw Error("manifest: layers: expected a list");
  if (layers.size() > kMaxLayers) {
    throw Error("manifest: layers: " + std::to_string(layers.size()) + ", expected at most " +
                std::to_string(kMaxLayers));
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    manifest.layers.push_back(
        parse_layer(layers[i], "manifest: layers[" + std::to_string(i) + "]"));
  }
  return manifest;
}

std::string Manifest::to_json() const {
  OrderedJson root;
  root["schemaVersion"] = 2;
  root["mediaType"] = media_type::kManifest;
  root["config"] = layer_to_json(config);
  root["layers"] = OrderedJson::array();
  for (const Layer& layer : layers)
    root["layers"].push_back(layer_to_json(layer));
  return dump(root) + "\n";
}

int64_t Manifest::size_bytes() const {
  int64_t total = config.size_bytes;
  for (const Layer& layer : layers)
    total += layer.size_bytes;
  return total;
}

std::vector<Layer> Manifest::layers_of(std::string_view wanted) const {
  std::vector<Layer> found;
  for (const Layer& layer : layers) {
    if (layer.media_type == wanted) found.push_back(layer);
  }
  return found;
}

ModelConfig ModelConfig::parse(std::string_view json) {
  const std::string what = "config";
  const Json root = parse_object(json, what);
  ModelConfig config;
  config.model_format = string_field(root, "model_format", what);
  config.model_family = string_field(root, "model_family", what);
  config.model_families = strings_field(root, "model_families", what);
  config.model_type = string_field(root, "model_type", what);
  config.file_type = string_field(root, "file_type", what);
  config.renderer = string_field(root, "renderer", what);
  config.parser = string_field(root, "parser", what);
  config.requires_version = string_field(root, "requires", what);
  config.remote_host = string_field(root, "remote_host", what);
  config.remote_model = string_field(root, "remote_model", what);
  config.capabilities = strings_field(root, "capabilities", what);
  config.context_length = int_field(root, "context_length", what);
  config.embedding_length = int_field(root, "embedding_length", what);
  return config;
}

std::string ModelConfig::to_json(const std::vector<Layer>& layers) const {
  OrderedJson root;
  root["model_format"] = model_format;
  root["model_family"] = model_family;
  root["model_families"] = model_families;
  root["model_type"] = model_type;
  root["file_type"] = file_type;
  const auto add_text = [&root](const char* key, const std::string& value) {
    if (!value.empty()) root[key] = value;
  };
  add_text("renderer", renderer);
  add_text("parser", parser);
  add_text("requires", requires_version);
  add_text("remote_host", remote_host);
  add_text("remote_model", remote_model);
  if (!capabilities.empty()) root["capabilities"] = capabilities;
  if (context_length > 0) root["context_length"] = context_length;
  if (embedding_length > 0) root["embedding_length"] = embedding_length;
  root["architecture"] = "amd64";
  root["os"] = "linux";
  root["rootfs"]["type"] = "layers";
  root["rootfs"]["diff_ids"] = OrderedJson::array();
  for (const Layer& layer : layers) {
    root["rootfs"]["diff_ids"].push_back(layer.digest.to_string());
  }
  return dump(root);
}

}  // namespace dsctl::registry
