#include "commands/loaded_model.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "commands/error.h"
#include "commands/structured_output.h"
#include "commands/tool_calls.h"
#include "templates/error.h"
#include "templates/thinking_parser.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using engine::AddSpecial;
using engine::SpecialTokens;
using templates::ChatTemplate;
using templates::Message;
using templates::TemplateLanguage;

constexpr const char* kNoTemplate =
    "the model has no chat template and none is built in for it; give it one with TEMPLATE in a "
    "Modelfile (dsctl create), or send the prompt raw";

void read_weights(LoadedModel& model) {
  model.file = std::make_shared<gguf::GgufFile>(
      model.weight_paths.size() == 1 ? gguf::GgufFile::open(model.weight_paths.front())
                                     : gguf::GgufFile::open_shards(model.weight_paths));
  model.tokenizer = engine::Tokenizer::from_gguf(*model.file);
  model.size_bytes = model.file->size_bytes();
  model.pooling = engine::model_pooling(*model.file);
  model.rerank_template =
      model.file->find_string("tokenizer.chat_template.rerank").value_or(std::string_view());
  const std::string key = std::string(model.file->architecture()) + ".context_length";
  if (const auto length = model.file->find_uint(key)) {
    model.context_length = static_cast<int64_t>(*length);
  }
}

void set_template(LoadedModel& model, const std::optional<std::string>& modelfile_template) {
  TemplateChoice choice = choose_template(*model.file, modelfile_template);
  model.chat_template = std::move(choice.chat_template);
  model.tool_template = std::move(choice.tool_template);
  model.template_problem = std::move(choice.problem);
}

std::string token_text(const engine::Tokenizer& tokenizer, int32_t token) {
  return token < 0 ? std::string() : std::string(tokenizer.text(token));
}

// The conversation as the template will see it, system text first.
std::vector<Message> conversation(const LoadedModel& model, const GenerationRequest& request) {
  std::vector<Message> messages;
  if (request.form == PromptForm::kChat) {
    messages = model.messages;
    messages.insert(messages.end(), request.messages.begin(), request.messages.end());
    const bool has_system = !request.messages.empty() && request.messages.front().role == "system";
    if (!has_system && !model.system.empty()) {
      messages.insert(messages.begin(), Message{.role = "system", .content = model.system});
    }
    return messages;
  }
  const std::string system = request.system.value_or(model.system);
  if (!system.empty()) messages.push_back({.role = "system", .content = system});
  if (request.context.empty()) {
    messages.insert(messages.end(), model.messages.begin(), model.messages.end());
  }
  messages.push_back({.role = "user", .content = request.prompt});
  return messages;
}

std::string render(const LoadedModel& model, const ChatTemplate& chat_template,
                   const GenerationRequest& request, std::vector<Message> messages) {
  templates::RenderInput input;
  input.messages = std::move(messages);
  input.think = request.think;
  if (!input.think && chat_template.capabilities().thinking) input.think = true;
  input.think_level = request.think_level;
  input.suffix = request.suffix;
  if (request.tool_choice.kind != ToolChoice::Kind::kNone) input.tools = request.tools;
  input.extra = request.template_variables;
  input.bos_token = token_text(*model.tokenizer, model.tokenizer->bos());
  input.eos_token = token_text(*model.tokenizer, model.tokenizer->eos());
  return chat_template.render(input) + request.answer_prefix;
}

std::vector<int32_t> encode(const LoadedModel& model, const GenerationRequest& request,
                            std::string_view text) {
  if (request.context.empty()) {
    return model.tokenizer->encode(text, AddSpecial::kYes, SpecialTokens::kParse);
  }
  std::vector<int32_t> tokens = request.context;
  const auto more = model.tokenizer->encode(text, AddSpecial::kNo, SpecialTokens::kParse);
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}

[[noreturn]] void too_long(size_t n_tokens, int max_tokens) {
  throw Error("the prompt is longer than the context length currently available: " +
              std::to_string(n_tokens) + " tokens, expected at most " + std::to_string(max_tokens) +
              "; raise num_ctx or send less");
}

// The oldest message that may go: not system, not the last. -1 when there is none.
int oldest_droppable(const std::vector<Message>& messages) {
  for (size_t i = 0; i + 1 < messages.size(); ++i) {
    if (messages[i].role != "system") return static_cast<int>(i);
  }
  return -1;
}

// Leaves out messages until the rest fits. Rendering again for each one would be quadratic in a
// long conversation, so the number to drop is found by doubling, then halving.
Prompt render_to_fit(const LoadedModel& model, const ChatTemplate& chat_template,
                     const GenerationRequest& request, int max_tokens) {
  const std::vector<Message> all = conversation(model, request);
  const auto attempt = [&](int n_drop) {
    std::vector<Message> messages = all;
    Prompt prompt;
    while (prompt.n_dropped_messages < n_drop) {
      const int oldest = oldest_droppable(messages);
      if (oldest < 0) break;
      messages.erase(messages.begin() + oldest);
      ++prompt.n_dropped_messages;
    }
    prompt.text = render(model, chat_template, request, std::move(messages));
    prompt.tokens = encode(model, request, prompt.text);
    return prompt;
  };
  Prompt prompt = attempt(0);
  const auto fits = [max_tokens](const Prompt& candidate) {
    return static_cast<int64_t>(candidate.tokens.size()) <= max_tokens;
  };
  if (fits(prompt)) return prompt;
  if (request.form != PromptForm::kChat || request.overlong == Overlong::kRefuse) {
    too_long(prompt.tokens.size(), max_tokens);
  }
  int too_few = 0;
  int enough = 1;
  for (;; enough *= 2) {
    prompt = attempt(enough);
    if (fits(prompt)) break;
    if (prompt.n_dropped_messages < enough) too_long(prompt.tokens.size(), max_tokens);
    too_few = enough;
  }
  enough = prompt.n_dropped_messages;
  while (enough - too_few > 1) {
    const int middle = (enough + too_few) / 2;
    Prompt candidate = attempt(middle);
    if (fits(candidate)) {
      prompt = std::move(candidate);
      enough = middle;
    } else {
      too_few = middle;
    }
  }
  return prompt;
}

Prompt raw_prompt(const LoadedModel& model, const GenerationRequest& request, int max_tokens) {
  Prompt prompt;
  prompt.text = request.prompt;
  prompt.tokens =
      request.prompt_tokens.empty()
          ? model.tokenizer->encode(request.prompt, AddSpecial::kYes, SpecialTokens::kParse)
          : request.prompt_tokens;
  if (static_cast<int64_t>(prompt.tokens.size()) > max_tokens) {
    too_long(prompt.tokens.size(), max_tokens);
  }
  return prompt;
}

}  // namespace

TemplateChoice choose_template(const gguf::GgufFile& file,
                               const std::optional<std::string>& modelfile_template) {
  TemplateChoice choice;
  const auto jinja = [&file](const char* key) -> std::shared_ptr<const ChatTemplate> {
    const auto source = file.find_string(key);
    return source ? ChatTemplate::parse(TemplateLanguage::kJinja, *source) : nullptr;
  };
  try {
    if (modelfile_template) {
      choice.chat_template = ChatTemplate::parse(TemplateLanguage::kGo, *modelfile_template);
      return choice;
    }
    choice.chat_template = jinja("tokenizer.chat_template");
    if (choice.chat_template) {
      choice.tool_template = jinja("tokenizer.chat_template.tool_use");
      return choice;
    }
  } catch (const templates::Error& error) {
    // A model whose template we can't read still answers raw prompts.
    choice.chat_template = nullptr;
    choice.problem = "the chat template: " + std::string(error.what());
    return choice;
  }
  const gguf::ArrayValue* tokens = file.find_array("tokenizer.ggml.tokens");
  const auto has_token = [tokens](std::string_view text) {
    if (!tokens) return false;
    const auto* texts = std::get_if<std::vector<std::string_view>>(&tokens->elements);
    return texts && std::find(texts->begin(), texts->end(), text) != texts->end();
  };
  if (const auto builtin = ChatTemplate::builtin(file.architecture(), has_token)) {
    choice.chat_template = ChatTemplate::parse(TemplateLanguage::kJinja, *builtin);
    return choice;
  }
  choice.problem = kNoTemplate;
  return choice;
}

bool LoadedModel::can_think() const {
  return chat_template && chat_template->capabilities().thinking;
}

bool LoadedModel::can_insert() const {
  return chat_template && chat_template->capabilities().insert;
}

bool LoadedModel::can_use_tools() const {
  return tool_template || (chat_template && chat_template->capabilities().tools);
}

std::shared_ptr<const LoadedModel> load_model(const registry::StoredModel& stored) {
  auto model = std::make_shared<LoadedModel>();
  model->name = stored.name.short_form();
  model->digest = stored.digest.hex();
  model->weight_paths = stored.weight_paths;
  if (model->weight_paths.empty()) {
    throw Error("model \"" + model->name + "\" has no GGUF weights that could be run");
  }
  for (const fs::path& path : stored.adapter_paths)
    model->adapters.push_back({.path = path.string()});
  read_weights(*model);
  set_template(*model, stored.template_text);
  model->system = stored.system.value_or("");
  model->parameters = parse_parameters_json(stored.parameters_json);
  for (const registry::StoredMessage& message : stored.messages) {
    model->messages.push_back({.role = message.role, .content = message.content});
  }
  return model;
}

std::shared_ptr<const LoadedModel> load_model_file(const fs::path& path) {
  auto model = std::make_shared<LoadedModel>();
  model->name = path.string();
  model->weight_paths = {path};
  read_weights(*model);
  model->weight_paths.clear();
  for (const gguf::MappedFile& shard : model->file->shards())
    model->weight_paths.push_back(shard.path());
  set_template(*model, std::nullopt);
  return model;
}

bool is_model_file(std::string_view model) {
  if (model.ends_with(".gguf")) return true;
  std::error_code ignored;
  return model.find('/') != std::string_view::npos && fs::is_regular_file(fs::path(model), ignored);
}

Options parse_parameters_json(std::string_view json) {
  Options options;
  const auto root = nlohmann::json::parse(json, nullptr, false);
  if (!root.is_object()) return options;
  for (const auto& [name, value] : root.items()) {
    if (!find_option(name) || value.is_null()) continue;
    OptionValue typed;
    if (value.is_boolean()) {
      typed = value.get<bool>();
    } else if (value.is_number_integer()) {
      typed = value.get<int64_t>();
    } else if (value.is_number()) {
      typed = value.get<double>();
    } else if (value.is_string()) {
      typed = std::vector<std::string>{value.get<std::string>()};
    } else if (value.is_array()) {
      std::vector<std::string> texts;
      for (const auto& item : value) {
        if (item.is_string()) texts.push_back(item.get<std::string>());
      }
      typed = std::move(texts);
    } else {
      continue;
    }
    options[name] = check_option(name, typed);
  }
  return options;
}

Prompt build_prompt(const LoadedModel& model, const GenerationRequest& request, int max_tokens) {
  if (request.form == PromptForm::kRaw) {
    Prompt prompt = raw_prompt(model, request, max_tokens);
    prompt.grammar = request.grammar;
    return prompt;
  }
  const bool has_tools =
      !request.tools.empty() && request.tool_choice.kind != ToolChoice::Kind::kNone;
  std::shared_ptr<const ChatTemplate> chat_template =
      has_tools && model.tool_template ? model.tool_template : model.chat_template;
  if (request.template_source) {
    chat_template = ChatTemplate::parse(TemplateLanguage::kGo, *request.template_source);
  }
  if (!chat_template) throw Error("model \"" + model.name + "\": " + model.template_problem);
  const templates::TemplateCapabilities& can = chat_template->capabilities();
  if (request.think.value_or(false) && !can.thinking) {
    throw Error("\"" + model.name + "\" does not support thinking");
  }
  if (!request.suffix.empty() && !can.insert) {
    throw Error("\"" + model.name + "\" does not support insert");
  }
  if (has_tools && (!can.tools || !can.tool_format)) {
    throw Error("\"" + model.name + "\" does not support tools");
  }
  Prompt prompt = render_to_fit(model, *chat_template, request, max_tokens);
  if (can.thinking && request.think.value_or(true)) {
    prompt.thinking =
        ThinkingFormat{.open_tag = can.think_open,
                       .close_tag = can.think_close,
                       .starts_inside = templates::prompt_opens_thinking(prompt.text, can)};
  }
  if (has_tools) prompt.tools = read_tool_calls(request, *can.tool_format);
  prompt.grammar = grammar_for_engine(request.grammar ? request.grammar
                                      : has_tools     ? tool_grammar(request, *can.tool_format)
                                                      : std::nullopt,
                                      prompt.thinking);
  return prompt;
}

}  // namespace dsctl::commands
