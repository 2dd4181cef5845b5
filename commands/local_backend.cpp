// The engine in this process: no server needed.
#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "commands/chat_backend.h"
#include "commands/error.h"
#include "commands/loaded_model.h"
#include "commands/model_info.h"
#include "commands/show.h"
#include "commands/structured_output.h"
#include "engine/engine.h"
#include "engine/kv_cache.h"
#include "registry/registry.h"

namespace dsctl::commands {
namespace {

using std::chrono::steady_clock;

constexpr auto kInterruptPoll = std::chrono::milliseconds(50);

// Events of one request, from the engine's thread to this one.
class EventQueue {
 public:
  void push(const engine::Event& event) {
    {
      const std::lock_guard lock(mutex_);
      events_.push_back(event);
    }
    wake_.notify_one();
  }
  std::optional<engine::Event> pop() {
    std::unique_lock lock(mutex_);
    if (!wake_.wait_for(lock, kInterruptPoll, [this] { return !events_.empty(); })) {
      return std::nullopt;
    }
    engine::Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<engine::Event> events_;
};

std::string options_json(const Options& options) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, value] : options) {
    std::visit([&json, key = name](const auto& typed) { json[key] = typed; }, value);
  }
  return json.dump();
}

class LocalBackend final : public ChatBackend {
 public:
  LocalBackend(const Settings& settings, const LocalOptions& options)
      : settings_(settings), options_(options), registry_(settings.models_dir) {}

  void use(const std::string& model) override {
    const auto begin = steady_clock::now();
    stored_.reset();
    std::shared_ptr<const LoadedModel> loaded;
    if (is_model_file(model)) {
      loaded = load_model_file(model);
    } else {
      stored_ = registry_.find(registry::ModelName::parse(model));
      if (!stored_) {
        throw Error("model '" + model + "' not found: make it with `dsctl create " + model +
                    "`, or give a GGUF file");
      }
      loaded = load_model(*stored_);
    }
    engine_.reset();  // before the file that it uses
    model_ = std::move(loaded);
    load_time_ = steady_clock::now() - begin;
    read_facts();
  }

  const ModelFacts& facts() const override { return facts_; }

  void preload(const GenerationRequest& request) override { start_engine(request); }

  ChatSummary generate(const GenerationRequest& request,
                       const std::function<void(const TextPiece&)>& on_piece,
                       const std::function<bool()>& interrupted) override {
    // What use() took is part of the first answer's time.
    const auto begin = steady_clock::now() - load_time_;
    start_engine(request);
    ChatSummary summary;
    summary.load_time = std::exchange(load_time_, {});
    const GenerationOptions options =
        generation_options(merge_options(model_->parameters, request.options), request.defaults);
    int limit = engine_->stats().max_model_len;
    if (options.num_ctx) limit = std::min(limit, *options.num_ctx);
    const Prompt prompt = build_prompt(*model_, request, limit - 1);
    summary.n_dropped_messages = prompt.n_dropped_messages;
    engine::Request asked;
    asked.prompt_tokens = prompt.tokens;
    asked.sampling = options.sampling;
    asked.grammar = prompt.grammar;
    const int room = limit - static_cast<int>(prompt.tokens.size());
    asked.max_tokens = options.max_tokens < 0 ? room : std::min(options.max_tokens, room);
    TextStream text(*model_->tokenizer, options.stop, prompt.thinking, LogprobsWanted::kNo);
    // Shared with the sink, which the engine may keep a little longer than this call lasts.
    const auto queue = std::make_shared<EventQueue>();
    const engine::SubmitResult result = engine_->submit(
        std::move(asked), [queue](const engine::Event& event) { queue->push(event); });
    if (result.error) throw Error(result.message);
    const engine::Event end =
        follow(*queue, result.request_id, text, on_piece, interrupted, summary);
    if (end.reason == engine::FinishReason::kError) throw Error(end.error);
    summary.reason = text.stopped() ? engine::FinishReason::kStop : end.reason;
    summary.n_prompt_tokens = end.stats.n_prompt_tokens;
    summary.prefill_time = std::chrono::nanoseconds(end.stats.prefill_ns);
    summary.decode_time = std::chrono::nanoseconds(end.stats.decode_ns);
    summary.total_time = steady_clock::now() - begin;
    return summary;
  }

  std::vector<ListedModel> list() override {
    std::vector<ListedModel> models;
    for (const registry::ModelEntry& entry : registry_.list().models) {
      models.push_back({.name = entry.name.short_form(),
                        .digest = entry.digest.hex(),
                        .size_bytes = entry.size_bytes,
                        .modified_at = entry.modified_at});
    }
    return models;
  }

  void save(const std::string& name, const GenerationRequest& session) override {
    registry::CreateSpec spec;
    if (stored_) {
      spec.from = stored_->name;
    } else {
      for (const auto& path : model_->weight_paths) {
        spec.weights.push_back(
            {.source = path,
             .media_type = registry::media_type::kModel,
             .name = model_->weight_paths.size() > 1 ? path.filename().string() : ""});
      }
      spec.config = to_config(read_model_info(*model_->file));
    }
    for (const templates::Message& message : session.messages) {
      if (message.role == "system") {
        spec.system = message.content;
      } else {
        spec.messages.push_back({.role = message.role, .content = message.content});
      }
    }
    spec.parameters_json = options_json(session.options);
    registry_.create(registry::ModelName::parse(name), spec, {});
  }

 private:
  // Tokens until the end; on an interrupt the rest is cancelled and not shown.
  engine::Event follow(EventQueue& queue, engine::RequestId id, TextStream& text,
                       const std::function<void(const TextPiece&)>& on_piece,
                       const std::function<bool()>& interrupted, ChatSummary& summary) {
    bool cancelled = false;
    for (;;) {
      const auto event = queue.pop();
      if (!cancelled && (interrupted() || text.stopped())) {
        cancelled = true;
        engine_->cancel(id);
      }
      if (!event) continue;
      if (event->finished) {
        for (const TextPiece& rest : text.finish())
          on_piece(rest);
        return *event;
      }
      if (cancelled) continue;
      ++summary.n_generated_tokens;
      for (const TextPiece& piece : text.push(*event))
        on_piece(piece);
    }
  }

  void start_engine(const GenerationRequest& request) {
    const LoadOptions asked = load_options(merge_options(model_->parameters, request.options));
    int num_ctx = asked.num_ctx.value_or(0);
    if (num_ctx == 0) num_ctx = options_.num_ctx;
    if (num_ctx == 0) num_ctx = settings_.context_length;
    engine::EngineOptions options;
    if (num_ctx > 0) options.max_model_len = num_ctx;
    if (engine_ && options.max_model_len <= reserved_) return;
    const auto begin = steady_clock::now();
    engine_.reset();
    options.max_num_seqs = 1;
    options.kv_cache_type = engine::parse_kv_cache_type(settings_.kv_cache_dtype);
    options.n_threads = options_.n_threads > 0 ? options_.n_threads : settings_.n_threads;
    if (asked.num_thread.value_or(0) > 0) options.n_threads = *asked.num_thread;
    if (asked.num_batch) options.max_num_batched_tokens = *asked.num_batch;
    if (asked.num_gpu) options.n_gpu_layers = *asked.num_gpu;
    options.tokenizer = model_->tokenizer.get();
    options.adapters = model_->adapters;
    options.adapters.insert(options.adapters.end(), options_.adapters.begin(),
                            options_.adapters.end());
    reserved_ = options.max_model_len;
    engine_ = engine::Engine::load(*model_->file, options);
    load_time_ += steady_clock::now() - begin;
  }

  void read_facts() {
    const ModelInfo info = read_model_info(*model_->file);
    facts_ = {};
    facts_.name = model_->name;
    facts_.architecture = info.family;
    facts_.parameter_size = info.parameter_size;
    facts_.quantization = info.quantization_level;
    facts_.context_length = info.context_length;
    facts_.embedding_length = info.embedding_length;
    facts_.system = model_->system;
    facts_.template_text = model_->chat_template ? model_->chat_template->source() : "";
    facts_.can_think = model_->can_think();
    facts_.messages = model_->messages;
    if (!stored_) return;
    for (const std::string& license : stored_->licenses)
      facts_.license += license + "\n";
    facts_.modelfile = modelfile_of(*stored_);
    facts_.parameters = format_parameters(stored_->parameters_json);
  }

  const Settings settings_;
  const LocalOptions options_;
  registry::Registry registry_;
  std::optional<registry::StoredModel> stored_;
  std::shared_ptr<const LoadedModel> model_;
  ModelFacts facts_;
  int reserved_ = 0;  // max_model_len that the engine was asked for
  std::chrono::nanoseconds load_time_{};
  std::unique_ptr<engine::Engine> engine_;  // last: it uses the model's file
};

}  // namespace

std::unique_ptr<ChatBackend> make_local_backend(const std::string& model, const Settings& settings,
                                                const LocalOptions& options) {
  auto backend = std::make_unique<LocalBackend>(settings, options);
  backend->use(model);
  return backend;
}

}  // namespace dsctl::commands
