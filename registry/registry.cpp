#include "registry/registry.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>

#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/manifest_scan.h"
#include "registry/weight_import.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr size_t kMaxTextBytes = 32 << 20;  // of a template, a licence, a list of messages

std::chrono::system_clock::time_point modified_at(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  return std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::seconds(status.st_mtim.tv_sec) +
          std::chrono::nanoseconds(status.st_mtim.tv_nsec)));
}

std::vector<StoredMessage> parse_messages(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_array()) throw Error("messages: expected a JSON list");
  std::vector<StoredMessage> messages;
  for (const Json& item : json) {
    if (!item.is_object() || !item.value("role", Json()).is_string() ||
        !item.value("content", Json("")).is_string()) {
      throw Error("messages[" + std::to_string(messages.size()) +
                  "]: expected an object with role and content");
    }
    messages.push_back({item["role"].get<std::string>(), item.value("content", std::string())});
  }
  return messages;
}

std::string messages_to_json(const std::vector<StoredMessage>& messages) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const StoredMessage& message : messages) {
    json.push_back({{"role", message.role}, {"content", message.content}});
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json parse_parameters(const std::string& text) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw Error("params: expected a JSON object");
  return json;
}

std::string merge_parameters(const std::string& parent, const std::string& child) {
  Json merged = parse_parameters(parent);
  merged.update(parse_parameters(child));
  return merged.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void read_layer(const BlobStore& blobs, const Layer& layer, StoredModel& model) {
  blobs.check(layer.digest, layer.size_bytes);
  const fs::path path = blobs.path_of(layer.digest);
  const std::string& kind = layer.media_type;
  const auto text = [&] { return blobs.read(layer.digest, kMaxTextBytes); };
  if (kind == media_type::kModel) {
    model.weight_paths.push_back(path);
  } else if (kind == media_type::kProjector) {
    model.projector_paths.push_back(path);
  } else if (kind == media_type::kAdapter) {
    model.adapter_paths.push_back(path);
  } else if (kind == media_type::kTemplate || kind == media_type::kPrompt) {
    model.template_text = text();
  } else if (kind == media_type::kSystem) {
    model.system = text();
  } else if (kind == media_type::kParams) {
    model.parameters_json = parse_parameters(text()).dump();
  } else if (kind == media_type::kMessages) {
    model.messages = parse_messages(text());
  } else if (kind == media_type::kLicense) {
    model.licenses.push_back(text());
  }
}

/// The model of a manifest with these bytes; errors name the model.
StoredModel read_model(const BlobStore& blobs, const ModelName& name, const std::string& bytes,
                       const fs::path& path) {
  StoredModel model;
  model.name = name;
  try {
    model.digest = Digest::of(bytes);
    model.manifest = Manifest::parse(bytes);
    blobs.check(model.manifest.config.digest, model.manifest.config.size_bytes);
    model.config =
        ModelConfig::parse(blobs.read(model.manifest.config.digest, Manifest::kMaxBytes));
    for (const Layer& layer : model.manifest.layers)
      read_layer(blobs, layer, model);
  } catch (const Error& error) {
    throw Error("model \"" + name.short_form() + "\": " + error.what());
  }
  model.modified_at = modified_at(path);
  model.size_bytes = model.manifest.size_bytes();
  return model;
}

/// The layers of the manifest at `path`; none when there is none that can be read.
std::vector<Layer> layers_at(const fs::path& path) {
  try {
    const auto bytes = read_small_file(path, Manifest::kMaxBytes);
    return bytes ? all_layers(Manifest::parse(*bytes)) : std::vector<Layer>();
  } catch (const Error&) {
    return {};
  }
}

/// Gathers the layers of a new model; everything not inherited is staged.
class Draft {
 public:
  Draft(Staging& staging, const Observer& observer) : staging_(staging), observer_(observer) {}

  void add_staged(StagedBlob blob, std::string_view media_type, std::string name) {
    Layer layer;
    layer.media_type = media_type;
    layer.digest = blob.digest;
    layer.size_bytes = blob.size_bytes;
    layer.name = std::move(name);
    if (observer_.status) observer_.status("creating new layer " + layer.digest.to_string());
    manifest_.layers.push_back(std::move(layer));
    staged_.push_back(std::move(blob));
  }

  void add_text(std::string_view content, std::string_view media_type) {
    add_staged(staging_.stage_bytes(content), media_type, "");
  }

  void add_existing(Layer layer) {
    if (observer_.status) observer_.status("using existing layer " + layer.digest.to_string());
    manifest_.layers.push_back(std::move(layer));
  }

  void add_inherited(const StoredModel& parent, std::string_view media_type) {
    for (const Layer& layer : parent.manifest.layers_of(media_type))
      add_existing(layer);
  }

  void set_config(const ModelConfig& config) {
    StagedBlob blob = staging_.stage_bytes(config.to_json(manifest_.layers));
    manifest_.config.media_type = media_type::kConfig;
    manifest_.config.digest = blob.digest;
    manifest_.config.size_bytes = blob.size_bytes;
    staged_.push_back(std::move(blob));
  }

  const Manifest& manifest() const { return manifest_; }
  const std::vector<StagedBlob>& staged() const { return staged_; }

 private:
  Staging& staging_;
  const Observer& observer_;
  Manifest manifest_;
  std::vector<StagedBlob> staged_;
};

void add_files(Draft& draft, const std::vector<WeightSource>& weights, ImportMode mode,
               const BlobStore& blobs, Staging& staging, const Observer& observer) {
  std::vector<fs::path> paths;
  for (const WeightSource& weight : weights) {
    if (const auto* path = std::get_if<fs::path>(&weight.source)) paths.push_back(*path);
  }
  std::vector<StagedBlob> files = stage_files(staging, paths, mode, observer.progress);
  size_t file_idx = 0;
  for (const WeightSource& weight : weights) {
    if (std::holds_alternative<fs::path>(weight.source)) {
      draft.add_staged(std::move(files[file_idx++]), weight.media_type, weight.name);
      continue;
    }
    Layer layer;
    layer.media_type = weight.media_type;
    layer.digest = std::get<Digest>(weight.source);
    layer.name = weight.name;
    std::error_code error;
    const auto size = fs::file_size(blobs.path_of(layer.digest), error);
    if (error) throw Error("blob " + layer.digest.to_string() + " is missing");
    layer.size_bytes = static_cast<int64_t>(size);
    draft.add_existing(std::move(layer));
  }
}

void add_weights(Draft& draft, const CreateSpec& spec, const StoredModel* parent,
                 const BlobStore& blobs, Staging& staging, const Observer& observer) {
  std::vector<WeightSource> files = spec.weights;
  if (spec.weights.empty()) {
    draft.add_inherited(*parent, media_type::kModel);
    draft.add_inherited(*parent, media_type::kProjector);
    if (spec.adapters.empty()) draft.add_inherited(*parent, media_type::kAdapter);
    draft.add_inherited(*parent, media_type::kDraft);
  }
  files.insert(files.end(), spec.adapters.begin(), spec.adapters.end());
  if (!files.empty()) add_files(draft, files, spec.import_mode, blobs, staging, observer);
}

void add_texts(Draft& draft, const CreateSpec& spec, const StoredModel* parent) {
  const auto own_or_inherited = [&](const std::optional<std::string>& own, std::string_view kind) {
    if (own) {
      draft.add_text(*own, kind);
    } else if (parent) {
      draft.add_inherited(*parent, kind);
    }
  };
  // An old template layer ("prompt") is one: it must not outlive a new template.
  if (!spec.template_text && parent) draft.add_inherited(*parent, media_type::kPrompt);
  own_or_inherited(spec.template_text, media_type::kTemplate);
  if (parent) draft.add_inherited(*parent, media_type::kLicense);
  for (const std::string& license : spec.licenses) {
    const bool have = parent && std::find(parent->licenses.begin(), parent->licenses.end(),
                                          license) != parent->licenses.end();
    if (!have) draft.add_text(license, media_type::kLicense);
  }
  own_or_inherited(spec.system, media_type::kSystem);
  const std::string inherited = parent ? parent->parameters_json : "{}";
  const std::string parameters = merge_parameters(inherited, spec.parameters_json);
  if (parent && parameters == inherited) {
    draft.add_inherited(*parent, media_type::kParams);
  } else if (parameters != "{}") {
    draft.add_text(parameters, media_type::kParams);
  }
  if (!spec.messages.empty()) {
    draft.add_text(messages_to_json(spec.messages), media_type::kMessages);
  } else if (parent) {
    draft.add_inherited(*parent, media_type::kMessages);
  }
}

ModelConfig make_config(const CreateSpec& spec, const StoredModel* parent) {
  ModelConfig config = parent ? parent->config : ModelConfig();
  if (spec.config) config = *spec.config;
  if (spec.renderer) config.renderer = *spec.renderer;
  if (spec.parser) config.parser = *spec.parser;
  if (spec.requires_version) config.requires_version = *spec.requires_version;
  return config;
}

}  // namespace

Registry::Registry(fs::path root) : blobs_(std::move(root)) {}

fs::path Registry::manifest_path(const ModelName& name) const {
  return root() / "manifests" / name.relative_path();
}

ModelList Registry::list() const {
  ModelList list;
  ManifestScan scan = scan_manifests(root());
  list.problems = std::move(scan.problems);
  for (const ModelName& name : scan.names) {
    const fs::path path = manifest_path(name);
    try {
      const auto bytes = read_manifest(root(), name);
      if (!bytes) continue;  // removed since the directory was read
      const Manifest manifest = Manifest::parse(*bytes);
      ModelEntry entry;
      entry.name = name;
      entry.digest = Digest::of(*bytes);
      entry.size_bytes = manifest.size_bytes();
      entry.modified_at = modified_at(path);
      const auto config =
          read_small_file(blobs_.path_of(manifest.config.digest), Manifest::kMaxBytes);
      if (config) {
        entry.config = ModelConfig::parse(*config);
      } else {
        list.problems.push_back(path.string() + ": config blob " +
                                manifest.config.digest.to_string() + " is missing");
      }
      list.models.push_back(std::move(entry));
    } catch (const Error& error) {
      const std::string what = error.what();
      const bool named = what.starts_with(path.string());
      list.problems.push_back(named ? what : path.string() + ": " + what);
    }
  }
  std::stable_sort(
      list.models.begin(), list.models.end(),
      [](const ModelEntry& a, const ModelEntry& b) { return a.modified_at > b.modified_at; });
  return list;
}

std::optional<ModelName> Registry::stored_name(const ModelName& name) const {
  std::error_code error;
  if (fs::is_regular_file(manifest_path(name), error)) return name;
  for (const ModelName& stored : scan_manifests(root()).names) {
    if (stored.same_as(name)) return stored;
  }
  return std::nullopt;
}

std::optional<StoredModel> Registry::find(const ModelName& name) const {
  const auto stored = stored_name(name);
  if (!stored) return std::nullopt;
  const fs::path path = manifest_path(*stored);
  auto bytes = read_manifest(root(), *stored);
  // Without a lock the model may be replaced between its manifest and its blobs: then read again.
  while (bytes) {
    try {
      return read_model(blobs_, *stored, *bytes, path);
    } catch (const Error&) {
      auto now = read_manifest(root(), *stored);
      if (now == bytes) throw;
      bytes = std::move(now);
    }
  }
  return std::nullopt;
}

StoredModel Registry::create(const ModelName& name, const CreateSpec& spec,
                             const Observer& observer) {
  std::optional<StoredModel> parent;
  if (spec.from) {
    parent = find(*spec.from);
    if (!parent) throw Error("model \"" + spec.from->short_form() + "\" not found");
  }
  const bool has_weights =
      !spec.weights.empty() || (parent && !parent->manifest.layers_of(media_type::kModel).empty());
  if (!has_weights && parent) {
    throw Error("model \"" + parent->name.short_form() +
                "\" has no weights of its own in GGUF form");
  }
  if (!has_weights) throw Error("model \"" + name.short_form() + "\": no weights given");
  Staging staging(blobs_, observer.status);
  Draft draft(staging, observer);
  const StoredModel* parent_or_null = parent ? &*parent : nullptr;
  add_weights(draft, spec, parent_or_null, blobs_, staging, observer);
  add_texts(draft, spec, parent_or_null);
  draft.set_config(make_config(spec, parent_or_null));

  const StoreLock lock(root(), "create " + name.short_form(), lock_timeout_ms_, observer.status);
  const ModelName target = stored_name(name).value_or(name);
  for (const StagedBlob& blob : draft.staged())
    blobs_.publish(blob);
  sync_dir(blobs_.blobs_dir());
  // Inherited blobs may have been removed while files were hashed.
  for (const Layer& layer : all_layers(draft.manifest()))
    blobs_.check(layer.digest, layer.size_bytes);
  const std::vector<Layer> old_layers = layers_at(manifest_path(target));
  if (observer.status) observer.status("writing manifest");
  write_manifest(target, draft.manifest().to_json());
  for (const std::string& note : remove_unused(old_layers).notes) {
    if (observer.status) observer.status(note);
  }
  return read_model(blobs_, target, *read_manifest(root(), target), manifest_path(target));
}

void Registry::install(const std::vector<StagedBlob>& staged,
                       const std::vector<NamedManifest>& manifests, const Observer& observer) {
  const StoreLock lock(root(), "import", lock_timeout_ms_, observer.status);
  for (const StagedBlob& blob : staged)
    blobs_.publish(blob);
  sync_dir(blobs_.blobs_dir());
  for (const auto& [name, json] : manifests) {
    // A blob that was in the store already may have been removed since it was looked for.
    for (const Layer& layer : all_layers(Manifest::parse(json)))
      blobs_.check(layer.digest, layer.size_bytes);
  }
  std::vector<Layer> old_layers;
  for (const auto& [name, json] : manifests) {
    const ModelName target = stored_name(name).value_or(name);
    const std::vector<Layer> old = layers_at(manifest_path(target));
    old_layers.insert(old_layers.end(), old.begin(), old.end());
    if (observer.status) observer.status("writing manifest of " + target.short_form());
    write_manifest(target, json);
  }
  for (const std::string& note : remove_unused(old_layers).notes) {
    if (observer.status) observer.status(note);
  }
}

void Registry::copy(const ModelName& source, const ModelName& destination,
                    const Observer& observer) {
  const StoreLock lock(root(), "cp " + source.short_form(), lock_timeout_ms_, observer.status);
  const auto stored = stored_name(source);
  const auto bytes = stored ? read_manifest(root(), *stored) : std::nullopt;
  if (!bytes) throw Error("model \"" + source.short_form() + "\" not found");
  try {
    Manifest::parse(*bytes);
  } catch (const Error& error) {
    throw Error("model \"" + stored->short_form() + "\": " + error.what());
  }
  const ModelName target = stored_name(destination).value_or(destination);
  if (target == *stored) return;
  const std::vector<Layer> old_layers = layers_at(manifest_path(target));
  write_manifest(target, *bytes);
  for (const std::string& note : remove_unused(old_layers).notes) {
    if (observer.status) observer.status(note);
  }
}

std::optional<RemoveResult> Registry::remove(const ModelName& name, const Observer& observer) {
  if (!stored_name(name))
    return std::nullopt;  // an unwritable or absent store needs no lock for it
  const StoreLock lock(root(), "rm " + name.short_form(), lock_timeout_ms_, observer.status);
  const auto stored = stored_name(name);
  if (!stored) return std::nullopt;
  const fs::path path = manifest_path(*stored);
  const std::vector<Layer> layers = layers_at(path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw_errno(path, "can't remove");
  sync_dir(path.parent_path());
  fs::path dir = path.parent_path();
  for (int level = 0; level < 3 && ::rmdir(dir.c_str()) == 0; ++level)
    dir = dir.parent_path();
  return remove_unused(layers);
}

void Registry::write_manifest(const ModelName& name, const std::string& json) const {
  const fs::path path = manifest_path(name);
  create_directories_synced(path.parent_path());
  // One name for every temporary: the lock is held, so a stale one is overwritten. At this depth
  // Ollama doesn't look for manifests, nor do we.
  replace_file(path, root() / "manifests" / ".dsctl-manifest", json);
}

RemoveResult Registry::remove_unused(const std::vector<Layer>& candidates) const {
  RemoveResult result;
  if (candidates.empty()) return result;
  const BlobUses uses = read_blob_uses(root());
  if (!uses.unknown.empty()) {
    result.notes.push_back("blobs were kept, because " + uses.unknown);
    return result;
  }
  std::set<Digest> removed;
  for (const Layer& layer : candidates) {
    const bool used = uses.blobs.contains(layer.digest);
    if (!used && removed.insert(layer.digest).second)
      result.freed_bytes += blobs_.remove(layer.digest);
  }
  return result;
}

}  // namespace dsctl::registry
