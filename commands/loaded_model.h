// LoadedModel: all of a model that is needed around its engine: weights by path, tokenizer, chat
// template and what the Modelfile says. `run` and the server share it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "commands/generation_request.h"
#include "commands/model_options.h"
#include "commands/text_stream.h"
#include "engine/engine.h"
#include "engine/pooling.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf/gguf_file.h"
#include "registry/registry.h"
#include "templates/chat_template.h"

namespace dsctl::commands {

/// Immutable once made; every function is thread-safe.
struct LoadedModel {
  std::string name;    // as the user knows it: "smollm2:latest", or the file's path
  std::string digest;  // of the manifest; empty for a file
  std::vector<std::filesystem::path> weight_paths;
  std::vector<engine::LoraAdapter> adapters;   // applied by the engine
  std::shared_ptr<const gguf::GgufFile> file;  // mapped; shared with an engine in this process
  std::shared_ptr<const engine::Tokenizer> tokenizer;
  std::shared_ptr<const templates::ChatTemplate> chat_template;  // null: see template_problem
  /// The weights' template for conversations with tools, when that is one of its own.
  std::shared_ptr<const templates::ChatTemplate> tool_template;
  std::string template_problem;  // why there is none and what to do about it
  std::string system;
  Options parameters;
  std::vector<templates::Message> messages;          // the conversation it starts from
  engine::Pooling pooling = engine::Pooling::kLast;  // of its embeddings
  std::string rerank_template;  // of a reranker: with {query} and {document}; or empty
  int64_t context_length = 0;   // that it was trained for; 0: unknown
  int64_t size_bytes = 0;

  bool can_think() const;
  bool can_insert() const;
  bool can_use_tools() const;
};

/// A model's chat template, or why it has none and what to do about it.
struct TemplateChoice {
  std::shared_ptr<const templates::ChatTemplate> chat_template;
  std::shared_ptr<const templates::ChatTemplate> tool_template;  // null: the same one
  std::string problem;
};

/// The Modelfile's TEMPLATE, else the weights' own template, else a built-in one.
TemplateChoice choose_template(const gguf::GgufFile& file,
                               const std::optional<std::string>& modelfile_template);

/// Loads a model of the registry. Throws Error, or the Error of the folder that failed.
std::shared_ptr<const LoadedModel> load_model(const registry::StoredModel& stored);

/// Loads a GGUF file, or any shard of a split one.
std::shared_ptr<const LoadedModel> load_model_file(const std::filesystem::path& path);

/// True when MODEL|FILE means a file: it ends in ".gguf", or contains a '/' and exists.
bool is_model_file(std::string_view model);

/// The options in the JSON of a manifest's parameters; unknown ones are left out.
Options parse_parameters_json(std::string_view json);

/// A prompt ready for the engine, and how to read the answer.
struct Prompt {
  std::string text;  // as rendered; empty for a prompt given in tokens
  std::vector<int32_t> tokens;
  std::optional<ThinkingFormat> thinking;
  std::optional<ToolCallReading> tools;        // when there are tools that may be called
  std::optional<engine::GrammarSpec> grammar;  // for the engine; begins after the thinking
  int n_dropped_messages = 0;                  // left out so that the rest fits
};

/// Builds the prompt of `request`: the model's system text and first messages, its template, its
/// tokens. At most `max_tokens` long; throws Error when it can't be, or when the model can't do
/// what the request asks (think, insert, chat without a template).
Prompt build_prompt(const LoadedModel& model, const GenerationRequest& request, int max_tokens);

}  // namespace dsctl::commands
