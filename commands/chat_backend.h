// ChatBackend: what `run` talks to, wherever the model is: an engine in this process, or a server.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "commands/generation_request.h"
#include "commands/settings.h"
#include "commands/text_stream.h"
#include "engine/engine.h"
#include "engine/request.h"

namespace dsctl::commands {

/// What `/show` tells of a model; empty where nothing is known.
struct ModelFacts {
  std::string name;
  std::string architecture;
  std::string parameter_size;
  std::string quantization;
  int64_t context_length = 0;
  int64_t embedding_length = 0;
  std::string license;
  std::string modelfile;
  std::string parameters;  // as text, one line a value
  std::string system;
  std::string template_text;
  bool can_think = false;
  std::vector<templates::Message> messages;  // the conversation it starts from
};

/// How an answer ended, with Ollama's counts and times.
struct ChatSummary {
  engine::FinishReason reason = engine::FinishReason::kStop;
  int n_prompt_tokens = 0;
  int n_generated_tokens = 0;
  int n_dropped_messages = 0;
  std::chrono::nanoseconds total_time{};
  std::chrono::nanoseconds load_time{};
  std::chrono::nanoseconds prefill_time{};
  std::chrono::nanoseconds decode_time{};
};

/// One line of `/list`.
struct ListedModel {
  std::string name;
  std::string digest;
  int64_t size_bytes = 0;
  std::chrono::system_clock::time_point modified_at;
};

class ChatBackend {
 public:
  virtual ~ChatBackend() = default;
  /// Another model from now on. Throws Error when there is none such.
  virtual void use(const std::string& model) = 0;
  virtual const ModelFacts& facts() const = 0;
  /// Loads the model now rather than with the first question.
  virtual void preload(const GenerationRequest& request) = 0;
  /// Generates; `on_piece` gets the text as it comes. Ends with kCancelled soon after `interrupted`
  /// says true. Throws the reason why there is no answer.
  virtual ChatSummary generate(const GenerationRequest& request,
                               const std::function<void(const TextPiece&)>& on_piece,
                               const std::function<bool()>& interrupted) = 0;
  virtual std::vector<ListedModel> list() = 0;
  /// Makes a model of the current one with this session's settings and conversation.
  virtual void save(const std::string& name, const GenerationRequest& session) = 0;
};

/// How a model is loaded when `run` has its own engine.
struct LocalOptions {
  int n_threads = 0;
  int num_ctx = 0;                            // 0: the model's own, else the default
  std::vector<engine::LoraAdapter> adapters;  // besides the model's own
};

/// An engine in this process. `model` is a name of the registry or a GGUF file.
std::unique_ptr<ChatBackend> make_local_backend(const std::string& model, const Settings& settings,
                                                const LocalOptions& options);

/// The server that `settings` name, when one answers there and has `model`; else null.
std::unique_ptr<ChatBackend> find_server_backend(const std::string& model,
                                                 const Settings& settings);

}  // namespace dsctl::commands
