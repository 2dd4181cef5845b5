#include "commands/show.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "commands/error.h"
#include "commands/model_info.h"
#include "commands/show_file.h"
#include "gguf/gguf_file.h"
#include "gguf/printable.h"
#include "registry/modelfile.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using registry::Instruction;
using registry::ModelfileCommand;
using registry::StoredModel;

bool is_file(const std::string& text) {
  std::error_code error;
  return text.ends_with(".gguf") ||
         (text.find('/') != std::string::npos && fs::is_regular_file(text, error));
}

gguf::GgufFile open_weights(const StoredModel& model) {
  if (!model.weight_paths.empty()) return gguf::GgufFile::open_shards(model.weight_paths);
  const std::string what =
      model.config.remote_host.empty()
          ? "its format is \"" + model.config.model_format + "\", which is not supported yet"
          : "it runs on " + model.config.remote_host;
  throw Error("model '" + model.name.short_form() + "' has no GGUF weights here: " + what);
}

/// The template in force: TEMPLATE, else the one that came with the weights.
std::string template_of(const StoredModel& model, const gguf::GgufFile& file) {
  if (model.template_text) return *model.template_text;
  return std::string(file.find_string("tokenizer.chat_template").value_or(""));
}

std::string join(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts)
    all += (all.empty() ? "" : "\n") + text;
  return all;
}

/// The first lines of a long text.
Section text_section(const char* title, const std::string& text) {
  constexpr size_t kLines = 2;
  Section section{title, {}};
  size_t pos = 0;
  while (pos < text.size()) {
    const size_t end = std::min(text.find('\n', pos), text.size());
    std::string line = text.substr(pos, end - pos);
    pos = end + 1;
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos) continue;
    if (section.rows.size() == kLines) {
      section.rows.push_back({"..."});
      break;
    }
    section.rows.push_back({gguf::printable(line.substr(first), 400)});
  }
  return section;
}

Section parameters_section(const StoredModel& model) {
  Section section{"Parameters", {}};
  const Json parameters = Json::parse(model.parameters_json);
  for (const auto& [name, value] : parameters.items()) {
    const auto add = [&, key = name](const Json& item) {
      section.rows.push_back({gguf::printable(key), gguf::printable(item.dump(), 200)});
    };
    if (value.is_array()) {
      for (const Json& item : value)
        add(item);
    } else {
      add(value);
    }
  }
  return section;
}

std::vector<Section> summary(const StoredModel& model, const gguf::GgufFile& file,
                             const ShowOptions& options) {
  std::vector<Section> sections = {model_section(file)};
  if (!model.config.requires_version.empty()) {
    sections[0].rows.push_back({"requires", gguf::printable(model.config.requires_version)});
  }
  Section capabilities{"Capabilities", {}};
  for (const std::string& capability :
       read_capabilities(file, model.template_text, !model.projector_paths.empty())) {
    capabilities.rows.push_back({capability});
  }
  sections.push_back(std::move(capabilities));
  if (!model.projector_paths.empty()) {
    Section projector = model_section(gguf::GgufFile::open_shards({model.projector_paths[0]}));
    projector.title = "Projector";
    sections.push_back(std::move(projector));
  }
  sections.push_back(parameters_section(model));
  sections.push_back(text_section("System", model.system.value_or("")));
  // A model without LICENSE still has what its author wrote into the weights.
  const std::string license = model.licenses.empty()
                                  ? std::string(file.find_string("general.license").value_or(""))
                                  : join(model.licenses);
  sections.push_back(text_section("License", license));
  if (options.metadata) sections.push_back(metadata_section(file));
  if (options.tensors) sections.push_back(tensors_section(file));
  return sections;
}

Json details_json(const ModelInfo& info) {
  Json details;
  details["parent_model"] = "";
  details["format"] = info.format;
  details["family"] = info.family;
  details["families"] = info.families;
  details["parameter_size"] = info.parameter_size;
  details["quantization_level"] = info.quantization_level;
  if (info.context_length > 0) details["context_length"] = info.context_length;
  if (info.embedding_length > 0) details["embedding_length"] = info.embedding_length;
  return details;
}

Json tensors_json(const gguf::GgufFile& file) {
  Json tensors = Json::array();
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    Json shape = Json::array();
    for (int i = 0; i < tensor.n_dims; ++i)
      shape.push_back(tensor.dims[static_cast<size_t>(i)]);
    tensors.push_back({{"name", std::string(tensor.name)},
                       {"type", std::string(gguf::dtype_info(tensor.dtype).name)},
                       {"shape", std::move(shape)}});
  }
  return tensors;
}

std::string with_newline(std::string text) {
  if (!text.empty() && !text.ends_with('\n')) text += '\n';
  return text;
}

std::string part_text(const StoredModel& model, ShowOptions::Part part) {
  switch (part) {
    case ShowOptions::Part::kModelfile:
      return modelfile_of(model);
    case ShowOptions::Part::kParameters:
      return with_newline(format_parameters(model.parameters_json));
    case ShowOptions::Part::kTemplate:
      return with_newline(model.template_text ? *model.template_text
                                              : template_of(model, gguf::GgufFile::open_shards(
                                                                       model.weight_paths)));
    case ShowOptions::Part::kSystem:
      return with_newline(model.system.value_or(""));
    case ShowOptions::Part::kLicense:
      return with_newline(join(model.licenses));
    case ShowOptions::Part::kSummary:
      break;
  }
  return "";
}

}  // namespace

std::string modelfile_of(const StoredModel& model) {
  std::vector<ModelfileCommand> commands;
  const auto add = [&commands](Instruction instruction, std::string value, std::string key = "") {
    ModelfileCommand command;
    command.instruction = instruction;
    command.key = std::move(key);
    command.value = std::move(value);
    commands.push_back(std::move(command));
  };
  for (const fs::path& path : model.weight_paths)
    add(Instruction::kFrom, path.string());
  for (const fs::path& path : model.projector_paths)
    add(Instruction::kFrom, path.string());
  for (const fs::path& path : model.adapter_paths)
    add(Instruction::kAdapter, path.string());
  if (model.template_text) add(Instruction::kTemplate, *model.template_text);
  if (model.system) add(Instruction::kSystem, *model.system);
  const Json parameters = Json::parse(model.parameters_json);
  for (const auto& [name, value] : parameters.items()) {
    const auto text_of = [](const Json& item) {
      return item.is_string() ? item.get<std::string>() : item.dump();
    };
    if (!value.is_array()) add(Instruction::kParameter, text_of(value), name);
    if (!value.is_array()) continue;
    for (const Json& item : value)
      add(Instruction::kParameter, text_of(item), name);
  }
  const auto add_if = [&](Instruction instruction, const std::string& value) {
    if (!value.empty()) add(instruction, value);
  };
  add_if(Instruction::kRenderer, model.config.renderer);
  add_if(Instruction::kParser, model.config.parser);
  add_if(Instruction::kRequires, model.config.requires_version);
  for (const std::string& license : model.licenses)
    add(Instruction::kLicense, license);
  for (const registry::StoredMessage& message : model.messages)
    add(Instruction::kMessage, message.content, message.role);
  return "# Modelfile generated by \"dsctl show\"\n"
         "# To build a new Modelfile based on this, replace FROM with:\n# FROM " +
         model.name.short_form() + "\n\n" + registry::Modelfile(std::move(commands)).print();
}

std::string show_json(const StoredModel& model, const ShowDetail& detail) {
  const gguf::GgufFile file = open_weights(model);
  const ModelInfo info = read_model_info(file);
  Json root;
  const auto add_text = [&root](const char* key, const std::string& value) {
    if (!value.empty()) root[key] = value;
  };
  add_text("license", join(model.licenses));
  root["modelfile"] = modelfile_of(model);
  add_text("parameters", format_parameters(model.parameters_json));
  add_text("template", template_of(model, file));
  add_text("system", model.system.value_or(""));
  add_text("renderer", model.config.renderer);
  add_text("parser", model.config.parser);
  root["details"] = details_json(info);
  if (!model.messages.empty()) root["messages"] = Json::array();
  for (const registry::StoredMessage& message : model.messages) {
    root["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  root["model_info"] = Json::parse(
      metadata_json_text(file, detail.long_arrays ? LongArrays::kFull : LongArrays::kNull));
  root["model_info"]["general.parameter_count"] = info.n_parameters;
  if (detail.tensors) root["tensors"] = tensors_json(file);
  root["capabilities"] =
      read_capabilities(file, model.template_text, !model.projector_paths.empty());
  root["modified_at"] = format_time(model.modified_at);
  add_text("requires", model.config.requires_version);
  return root.dump(-1, ' ', false, Json::error_handler_t::replace);
}

int show(const Settings& settings, const ShowOptions& options, Console& console) {
  if (is_file(options.model)) {
    if (options.part != ShowOptions::Part::kSummary) {
      throw Error(options.model +
                  ": is a file; Modelfile, parameters, template, system and license "
                  "belong to a model made with create");
    }
    ShowFileOptions file_options;
    file_options.path = options.model;
    file_options.json = options.json;
    file_options.metadata = options.metadata;
    file_options.tensors = options.tensors;
    return show_file(file_options, console);
  }
  const auto name = registry::ModelName::parse(options.model);
  const auto model = registry::Registry(settings.models_dir).find(name);
  if (!model) throw Error("model '" + options.model + "' not found");
  if (options.part != ShowOptions::Part::kSummary) {
    console.print(part_text(*model, options.part));
    return 0;
  }
  if (options.json) {
    console.print(show_json(*model, {options.metadata, options.tensors}) + "\n");
    return 0;
  }
  const gguf::GgufFile file = open_weights(*model);
  console.print(
      render(summary(*model, file, options), console.stdout_is_terminal() ? console.width() : 0));
  return 0;
}

}  // namespace dsctl::commands
