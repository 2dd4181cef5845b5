// Registry: the models on this machine, in Ollama's layout: blobs/sha256-<hex> and
// manifests/<host>/<owner>/<model>/<tag>. Shared by every command; safe between processes and
// threads.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "registry/blob_store.h"
#include "registry/digest.h"
#include "registry/manifest.h"
#include "registry/model_name.h"

namespace dsctl::registry {

/// One line of `list`.
struct ModelEntry {
  ModelName name;
  Digest digest;           // of the manifest's bytes: Ollama's ID
  int64_t size_bytes = 0;  // of all blobs
  std::chrono::system_clock::time_point modified_at;
  ModelConfig config;  // empty fields where the config blob can't be read
};

/// The models, newest first, and one line for each manifest that could not be read.
struct ModelList {
  std::vector<ModelEntry> models;
  std::vector<std::string> problems;
};

/// A model with everything that its manifest names; weights by path, the rest read.
struct StoredModel {
  ModelName name;
  Digest digest;  // of the manifest's bytes
  Manifest manifest;
  ModelConfig config;
  std::vector<std::filesystem::path> weight_paths;     // the shards of the weights, in order
  std::vector<std::filesystem::path> projector_paths;  // mmproj files
  std::vector<std::filesystem::path> adapter_paths;
  std::optional<std::string> template_text;  // Go text/template; absent: use the weights' own
  std::optional<std::string> system;
  std::string parameters_json = "{}";  // object: option name -> value, `stop` is a list
  std::vector<std::string> licenses;
  std::vector<StoredMessage> messages;
  std::chrono::system_clock::time_point modified_at;
  int64_t size_bytes = 0;
};

/// Weights for `create`: a file of the user, or a blob that is already in the store.
struct WeightSource {
  std::variant<std::filesystem::path, Digest> source;
  std::string_view media_type = media_type::kModel;
  std::string name;  // a shard's file name; empty for a model in one file
};

/// What `create` makes a model of. A field that is absent or empty is inherited from `from`.
struct CreateSpec {
  std::optional<ModelName> from;      // parent: its layers, overridden by what follows
  std::vector<WeightSource> weights;  // replace the parent's weights when not empty
  /// LoRA adapters; replace the parent's, which go with its weights too.
  std::vector<WeightSource> adapters;
  ImportMode import_mode = ImportMode::kLink;
  std::optional<std::string> template_text;
  std::optional<std::string> system;
  std::string parameters_json = "{}";   // merged into the parent's, key by key
  std::vector<std::string> licenses;    // added to the parent's
  std::vector<StoredMessage> messages;  // replace the parent's when not empty
  std::optional<ModelConfig> config;    // facts of new weights; absent: the parent's
  std::optional<std::string> renderer;  // RENDERER, PARSER, REQUIRES
  std::optional<std::string> parser;
  std::optional<std::string> requires_version;
};

/// What a long operation tells its caller. Either may be empty.
struct Observer {
  Progress progress;                             // may throw to give up
  std::function<void(std::string_view)> status;  // one line for a person or an API stream
};

struct RemoveResult {
  int64_t freed_bytes = 0;
  std::vector<std::string> notes;  // why blobs were kept, when they could not be judged
};

/// A model as another store has it: its manifest's bytes, kept as they are so that its ID is.
struct NamedManifest {
  ModelName name;
  std::string json;
};

class Registry {
 public:
  /// `root` need not exist: then there are no models, and the first `create` makes it.
  explicit Registry(std::filesystem::path root);

  const std::filesystem::path& root() const { return blobs_.root(); }
  const BlobStore& blobs() const { return blobs_; }

  ModelList list() const;

  /// The model called `name` (letters without case; the stored case wins), or nothing. Throws Error
  /// when its manifest is broken, or names a blob that is missing or changed.
  std::optional<StoredModel> find(const ModelName& name) const;

  /// The name under which a model is stored, or nothing. Reads no manifest.
  std::optional<ModelName> stored_name(const ModelName& name) const;

  /// Makes or replaces a model. Nothing of it is visible before all of it is on disk.
  StoredModel create(const ModelName& name, const CreateSpec& spec, const Observer& observer);

  /// Makes models of manifests whose blobs are staged, or in the store already. Nothing is visible
  /// when it throws: Error names a blob that is missing or has another size. Models of these names
  /// are replaced, one after the other.
  void install(const std::vector<StagedBlob>& staged, const std::vector<NamedManifest>& manifests,
               const Observer& observer);

  /// Gives a model a second name, replacing what had it. Throws Error when there is no `source`.
  void copy(const ModelName& source, const ModelName& destination, const Observer& observer = {});

  /// Removes a model, and the blobs that no other model uses. Nothing when there is no such model.
  std::optional<RemoveResult> remove(const ModelName& name, const Observer& observer = {});

  /// How long an operation waits for another process; then it fails naming it.
  void set_lock_timeout_ms(int64_t timeout_ms) { lock_timeout_ms_ = timeout_ms; }

 private:
  std::filesystem::path manifest_path(const ModelName& name) const;
  void write_manifest(const ModelName& name, const std::string& json) const;
  RemoveResult remove_unused(const std::vector<Layer>& candidates) const;

  BlobStore blobs_;
  int64_t lock_timeout_ms_ = 60'000;
};

}  // namespace dsctl::registry
