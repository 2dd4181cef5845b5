#include "commands/create.h"

#include <pwd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "commands/create_weights.h"
#include "commands/error.h"
#include "commands/model_info.h"
#include "gguf/convert/convert.h"
#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "gguf/split.h"
#include "registry/error.h"
#include "templates/chat_template.h"
#include "templates/error.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using registry::Instruction;
using registry::ModelfileCommand;

std::string read_stdin(Console& console) {
  std::string text;
  while (const auto line = console.read_line("")) {
    text += *line + "\n";
    if (text.size() > registry::Modelfile::kMaxBytes) break;  // the parser says that it is too long
  }
  return text;
}

std::string read_modelfile(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) throw Error(path.string() + ": is a directory");
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw Error(path.string() + ": can't read the Modelfile; give one with -f, or - for stdin");
  }
  std::string text(registry::Modelfile::kMaxBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

bool has_ending(const fs::path& path, std::string_view ending) {
  const std::string name = path.filename().string();
  return name.size() > ending.size() &&
         registry::starts_with_ignoring_case(name.substr(name.size() - ending.size()), ending);
}

std::vector<fs::path> files_in(const fs::path& dir) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::directory_iterator entry(dir, error);
  for (const fs::directory_iterator end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    if (entry->is_regular_file(ignored)) files.push_back(entry->path());
  }
  if (error) throw Error(dir.string() + ": can't read the directory: " + error.message());
  std::sort(files.begin(), files.end());
  return files;
}

/// "~" and "~user" replaced by the home directory.
fs::path expand_home(const std::string& text) {
  if (!text.starts_with('~')) return text;
  const size_t end = std::min(text.find('/'), text.size());
  const std::string user = text.substr(1, end - 1);
  const char* home = user.empty() ? std::getenv("HOME") : nullptr;
  if (!home) {
    const passwd* entry = user.empty() ? ::getpwuid(::geteuid()) : ::getpwnam(user.c_str());
    if (!entry) throw Error(text + ": there is no user \"" + user + "\"");
    home = entry->pw_dir;
  }
  return home + text.substr(end);
}

/// True when a value that names no existing file can't have meant a model.
bool looks_like_path(const std::string& value) {
  return value.starts_with('/') || value.starts_with('.') || value.starts_with('~') ||
         has_ending(value, ".gguf") || has_ending(value, ".safetensors") ||
         has_ending(value, ".bin");
}

/// One file for each model in a directory: shards of a split count once.
std::vector<fs::path> weights_in(const fs::path& dir) {
  std::vector<fs::path> models;
  std::vector<std::string> prefixes;
  bool has_safetensors = false;
  bool has_pytorch = false;
  for (const fs::path& file : files_in(dir)) {
    has_safetensors = has_safetensors || has_ending(file, ".safetensors");
    has_pytorch = has_pytorch || has_ending(file, ".bin") || has_ending(file, ".pth");
    if (!has_ending(file, ".gguf")) continue;
    const auto shard = gguf::parse_shard_name(file.filename().string());
    if (shard) {
      if (std::find(prefixes.begin(), prefixes.end(), shard->prefix) != prefixes.end()) continue;
      prefixes.push_back(shard->prefix);
    }
    models.push_back(file);
  }
  if (!models.empty()) return models;
  if (has_safetensors) {
    throw Error(dir.string() +
                ": has safetensors, but no model's: expected config.json and "
                "model*.safetensors");
  }
  if (has_pytorch) {
    throw Error(dir.string() +
                ": holds a model in PyTorch form; converting it is not supported, "
                "give safetensors or a GGUF file");
  }
  throw Error(dir.string() + ": no GGUF files in this directory");
}

/// One model of `add_weights`: its shards in order.
struct OpenedWeights {
  gguf::GgufFile file;
  bool is_projector = false;
};

OpenedWeights classify(gguf::GgufFile file, const fs::path& path) {
  const auto type = file.find_string("general.type").value_or("");
  if (type == "adapter") {
    throw Error(path.string() +
                ": is an adapter (LoRA), not a model; name its model with FROM and it with "
                "ADAPTER");
  }
  const bool is_projector = type == "mmproj" || type == "clip-vision" ||
                            file.find_string("general.architecture").value_or("") == "clip";
  return {std::move(file), is_projector};
}

/// Opens every file. Blobs of a store have no shard names: those that are no model alone are taken
/// as the shards of one, in their order.
std::vector<OpenedWeights> open_weights(const std::vector<fs::path>& files) {
  std::vector<OpenedWeights> opened;
  std::vector<fs::path> shards;
  for (const fs::path& path : files) {
    const bool is_blob = registry::Digest::parse(path.filename().string()).has_value();
    const bool known = std::any_of(opened.begin(), opened.end(), [&](const OpenedWeights& weights) {
      return std::any_of(weights.file.shards().begin(), weights.file.shards().end(),
                         [&](const gguf::MappedFile& shard) {
                           std::error_code ignored;
                           return fs::equivalent(shard.path(), path, ignored);
                         });
    });
    if (known) continue;  // another shard of a split that one FROM has already opened
    if (!is_blob) {
      opened.push_back(classify(gguf::GgufFile::open(path), path));
      continue;
    }
    try {
      opened.push_back(classify(gguf::GgufFile::open_shards({path}), path));
    } catch (const gguf::Error&) {
      shards.push_back(path);
    }
  }
  if (!shards.empty()) {
    opened.push_back(classify(gguf::GgufFile::open_shards(shards), shards.front()));
  }
  return opened;
}

/// An adapter of ADAPTER: a GGUF file, or @sha256: of one in the store.
registry::WeightSource adapter_source(const std::string& value, const fs::path& dir,
                                      const registry::Registry& registry) {
  registry::WeightSource source;
  source.media_type = registry::media_type::kAdapter;
  fs::path path;
  if (value.starts_with("@sha256:")) {
    const auto digest = registry::Digest::parse(value.substr(1));
    if (!digest || !registry.blobs().has(*digest)) {
      throw Error("ADAPTER " + value + ": there is no such blob");
    }
    path = registry.blobs().path_of(*digest);
    source.source = *digest;
  } else {
    path = (dir / expand_home(value)).lexically_normal();
    source.source = path;
  }
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    throw Error("ADAPTER " + value + ": no such file: " + path.string() +
                "; expected an adapter in GGUF form");
  }
  const gguf::GgufFile file = gguf::GgufFile::open(path);
  if (file.find_string("general.type").value_or("") != "adapter") {
    throw Error("ADAPTER " + value + ": not an adapter (general.type is not \"adapter\")");
  }
  return source;
}

registry::WeightSource weight_source(const fs::path& path, bool is_projector, bool is_split,
                                     const registry::Registry& registry) {
  registry::WeightSource weight;
  weight.media_type =
      is_projector ? registry::media_type::kProjector : registry::media_type::kModel;
  const auto digest = registry::Digest::parse(path.filename().string());
  std::error_code error;
  if (digest && fs::equivalent(path, registry.blobs().path_of(*digest), error) && !error) {
    weight.source = *digest;
  } else {
    weight.source = path;
    if (is_split && !digest) weight.name = path.filename().string();
  }
  return weight;
}

/// Turns FROM lines into files or a parent.
class FromResolver {
 public:
  FromResolver(const fs::path& dir, const registry::Registry& registry,
               const CheckpointConverter& convert)
      : dir_(dir), registry_(registry), convert_(convert) {}

  void resolve(const std::string& value) {
    if (value.starts_with("@sha256:")) {
      const auto digest = registry::Digest::parse(value.substr(1));
      if (!digest) throw Error("FROM " + value + ": expected @sha256: and 64 hexadecimal digits");
      files.push_back(registry_.blobs().path_of(*digest));
      if (!registry_.blobs().has(*digest)) throw Error("FROM " + value + ": there is no such blob");
      return;
    }
    const fs::path expanded = expand_home(value);
    const fs::path path = (dir_ / expanded).lexically_normal();
    std::error_code error;
    if (fs::is_directory(path, error)) {
      if (gguf::convert::is_checkpoint(path)) {
        files.push_back(convert_(path));
        return;
      }
      const std::vector<fs::path> found = weights_in(path);
      files.insert(files.end(), found.begin(), found.end());
    } else if (fs::exists(path, error)) {
      if (has_ending(path, ".safetensors") || has_ending(path, ".pth")) {
        throw Error("FROM " + value +
                    ": give the directory with its config.json and tokenizer, or a GGUF file");
      }
      files.push_back(path);
    } else if (looks_like_path(value)) {
      throw Error("FROM " + value + ": no such file: " + path.string());
    } else {
      resolve_name(value);
    }
  }

  std::vector<fs::path> files;
  std::optional<registry::ModelName> parent;

 private:
  void resolve_name(const std::string& value) {
    const auto name = registry::ModelName::try_parse(value);
    if (!name || !registry_.stored_name(*name)) {
      throw Error("FROM " + value + ": there is neither a file nor a model of this name");
    }
    if (parent) throw Error("FROM " + value + ": only one model can be the parent");
    parent = *name;
  }

  const fs::path& dir_;
  const registry::Registry& registry_;
  const CheckpointConverter& convert_;
};

void refuse(const registry::Modelfile& modelfile, Instruction instruction,
            const std::string& message, std::string_view label) {
  for (const ModelfileCommand& command : modelfile.commands()) {
    if (command.instruction != instruction) continue;
    throw Error(std::string(label) + ":" + std::to_string(command.line) + ":" +
                std::to_string(command.column) + ": " + message);
  }
}

}  // namespace

void check_template(std::string_view text) {
  templates::ChatTemplate::parse(templates::TemplateLanguage::kGo, text);
}

void add_weights(registry::CreateSpec& spec, const std::vector<fs::path>& files,
                 const registry::Registry& registry) {
  const std::vector<OpenedWeights> opened = open_weights(files);
  const OpenedWeights* model = nullptr;
  for (const OpenedWeights& weights : opened) {
    if (weights.is_projector) continue;
    if (model) {
      throw Error("more than one model given: " + model->file.shards()[0].path().string() +
                  " and " + weights.file.shards()[0].path().string() +
                  "; name one of them (any shard stands for a split model)");
    }
    model = &weights;
  }
  if (!model) throw Error("only a projector was given, expected a model too");
  // The model first: a projector belongs to it.
  std::vector<const OpenedWeights*> ordered = {model};
  for (const OpenedWeights& weights : opened) {
    if (weights.is_projector) ordered.push_back(&weights);
  }
  for (const OpenedWeights* weights : ordered) {
    const auto& shards = weights->file.shards();
    for (const gguf::MappedFile& shard : shards) {
      spec.weights.push_back(
          weight_source(shard.path(), weights->is_projector, shards.size() > 1, registry));
    }
  }
  spec.config = to_config(read_model_info(model->file));
}

registry::CreateSpec make_spec(const registry::Modelfile& modelfile, const fs::path& dir,
                               std::string_view label, const registry::Registry& registry,
                               const CheckpointConverter& convert) {
  refuse(modelfile, Instruction::kDraft, "DRAFT is not supported yet", label);
  registry::CreateSpec spec;
  FromResolver from(dir, registry, convert);
  for (const ModelfileCommand& command : modelfile.commands()) {
    const auto fail = [&](const std::string& message) {
      throw Error(std::string(label) + ":" + std::to_string(command.line) + ":" +
                  std::to_string(command.column) + ": " + message);
    };
    try {
      if (command.instruction == Instruction::kFrom) from.resolve(command.value);
      if (command.instruction == Instruction::kTemplate) check_template(command.value);
      if (command.instruction == Instruction::kAdapter)
        spec.adapters.push_back(adapter_source(command.value, dir, registry));
    } catch (const Error& error) {
      fail(error.what());
    } catch (const gguf::Error& error) {
      fail("ADAPTER: " + std::string(error.what()));
    } catch (const templates::Error& error) {
      fail("TEMPLATE: " + std::string(error.what()));
    }
  }
  if (from.parent && !from.files.empty()) {
    throw Error(std::string(label) + ": FROM names a model and files; expected one or the other");
  }
  spec.from = from.parent;
  if (!from.files.empty()) add_weights(spec, from.files, registry);
  spec.template_text = modelfile.last(Instruction::kTemplate);
  spec.system = modelfile.last(Instruction::kSystem);
  spec.parameters_json = modelfile.parameters_json();
  spec.licenses = modelfile.values(Instruction::kLicense);
  spec.messages = modelfile.messages();
  spec.renderer = modelfile.last(Instruction::kRenderer);
  spec.parser = modelfile.last(Instruction::kParser);
  spec.requires_version = modelfile.last(Instruction::kRequires);
  return spec;
}

int create(const Settings& settings, const CreateOptions& options, Console& console) {
  const registry::ModelName name = registry::ModelName::parse(options.name);
  std::string text;
  std::string label = options.file.string();
  fs::path dir = options.file.parent_path();
  std::error_code error;
  if (options.file == "-") {
    text = read_stdin(console);
    label = "stdin";
    dir.clear();
  } else if (options.file == "Modelfile" && !fs::exists(options.file, error)) {
    const std::vector<fs::path> here = files_in(fs::current_path());
    const bool has_weights = std::any_of(here.begin(), here.end(), [](const fs::path& file) {
      return has_ending(file, ".gguf") || has_ending(file, ".safetensors");
    });
    text = has_weights ? "FROM .\n" : read_modelfile(options.file);
  } else {
    text = read_modelfile(options.file);
  }
  const registry::Modelfile modelfile = registry::Modelfile::parse(text, label);
  for (const std::string& warning : modelfile.warnings())
    console.note("warning: " + warning);
  registry::Registry registry(settings.models_dir);
  MadeWeights made(registry, options.quantize, console);
  registry::CreateSpec spec =
      make_spec(modelfile, fs::absolute(dir.empty() ? fs::path(".") : dir), label, registry,
                [&made](const fs::path& checkpoint) { return made.convert(checkpoint); });
  if (!options.quantize.empty() && !made.has_converted()) {
    made.quantize(spec, options.allow_requantize ? Requantize::kYes : Requantize::kNo);
  }
  if (options.copy) spec.import_mode = registry::ImportMode::kCopy;

  registry::Observer observer;
  observer.progress = [&console](std::string_view what, int64_t done, int64_t total) {
    if (console.interrupted()) throw Error("interrupted");
    console.progress(what, done, total);
  };
  observer.status = [&console](std::string_view line) { console.note(line); };
  const registry::StoredModel model = registry.create(name, spec, observer);
  console.finish_progress();
  if (options.json) {
    nlohmann::ordered_json json;
    json["name"] = model.name.short_form();
    json["digest"] = model.digest.hex();
    json["size"] = model.size_bytes;
    console.print(json.dump() + "\n");
  } else {
    console.print("created '" + model.name.short_form() + "'\n");
  }
  return 0;
}

}  // namespace dsctl::commands
