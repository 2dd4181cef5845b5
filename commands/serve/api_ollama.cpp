#include "commands/serve/api_ollama.h"

#include <spdlog/spdlog.h>

#include <cmath>
#include <limits>
#include <utility>

#include "commands/error.h"
#include "commands/model_info.h"
#include "commands/serve/grammar_fields.h"
#include "commands/serve/json_fields.h"
#include "commands/serve/ollama_writer.h"
#include "commands/serve/option_fields.h"
#include "commands/serve/tool_fields.h"

namespace dsctl::commands::serve {
namespace {

using std::chrono::system_clock;

constexpr size_t kMaxMessages = 100'000;
constexpr int kMaxLogprobs = 20;

void parse_think(const Fields& fields, GenerationRequest& request) {
  const Json* value = fields.any("think");
  if (!value) return;
  if (value->is_boolean()) {
    request.think = value->get<bool>();
    return;
  }
  const std::string level = value->is_string() ? value->get<std::string>() : value->dump();
  if (level != "low" && level != "medium" && level != "high" && level != "max") {
    throw ApiError(400,
                   "invalid think value: \"" + level +
                       "\" (must be \"high\", \"medium\", \"low\", \"max\", true, or false)",
                   "think");
  }
  request.think = true;
  request.think_level = level;
}

void parse_logprobs(const Fields& fields, GenerationRequest& request) {
  const bool wanted = fields.flag("logprobs").value_or(false);
  const Json* top = fields.any("top_logprobs");
  if (top && (!top->is_number() || top->get<double>() < 0 || top->get<double>() > kMaxLogprobs)) {
    throw ApiError(400, "top_logprobs must be between 0 and 20", "top_logprobs");
  }
  const auto n = fields.integer("top_logprobs", 0, kMaxLogprobs);
  if (wanted || n.value_or(0) > 0) request.n_logprobs = static_cast<int>(n.value_or(0));
}

// The fields that both endpoints have.
void parse_common(const Fields& fields, OllamaGenerate& parsed) {
  parsed.request.model = fields.required_text("model");
  parsed.stream = fields.flag("stream").value_or(true);
  parsed.render_only = fields.flag("_debug_render_only").value_or(false);
  fields.refuse({"images"});
  parsed.request.grammar = parse_format_field(fields);
  if (fields.flag("shift").value_or(false)) {
    throw ApiError(400, "field \"shift\": shifting a full context is not supported yet", "shift");
  }
  parsed.request.overlong =
      fields.flag("truncate").value_or(true) ? Overlong::kDropOldest : Overlong::kRefuse;
  parsed.request.options = parse_options(fields);
  parsed.request.keep_alive = parse_keep_alive_field(fields);
  parse_think(fields, parsed.request);
  parse_logprobs(fields, parsed.request);
}

// Nothing to generate: load the model, or unload it.
void set_load_action(OllamaGenerate& parsed) {
  const bool unload = parsed.request.keep_alive && parsed.request.keep_alive->count() == 0;
  parsed.action = unload ? OllamaGenerate::Action::kUnload : OllamaGenerate::Action::kLoad;
}

templates::Message parse_message(const Json& value, const std::string& path) {
  const Fields fields(value, path);
  templates::Message message;
  message.role = fields.required_text("role");
  if (message.role != "system" && message.role != "user" && message.role != "assistant" &&
      message.role != "tool") {
    throw ApiError(400,
                   "field \"" + path + ".role\": \"" + message.role +
                       "\", expected system, user, assistant or tool",
                   path + ".role");
  }
  fields.refuse({"images"});
  if (message.role == "assistant") {
    message.tool_calls = parse_tool_calls(fields);
  } else {
    fields.refuse({"tool_calls"});
  }
  message.content = fields.text("content").value_or("");
  message.thinking = fields.text("thinking");
  message.tool_name = fields.text("tool_name").value_or("");
  message.tool_call_id = fields.text("tool_call_id").value_or("");
  return message;
}

std::vector<int32_t> parse_context(const Fields& fields) {
  std::vector<int32_t> context;
  const Json* array = fields.array("context");
  if (!array) return context;
  for (const Json& token : *array) {
    if (!token.is_number_integer() || token.get<int64_t>() < 0 ||
        token.get<int64_t>() > std::numeric_limits<int32_t>::max()) {
      throw ApiError(400, "field \"context\": expected a list of token ids", "context");
    }
    context.push_back(static_cast<int32_t>(token.get<int64_t>()));
  }
  return context;
}

HttpResponse load_response(const OllamaGenerate& parsed, const char* reason) {
  Json line = {{"model", parsed.request.model}, {"created_at", format_time(system_clock::now())}};
  if (parsed.chat) {
    line["message"] = {{"role", "assistant"}, {"content", ""}};
  } else {
    line["response"] = "";
  }
  line["done"] = true;
  line["done_reason"] = reason;
  return {.content_type = parsed.stream ? "application/x-ndjson" : HttpResponse{}.content_type,
          .body = dump(line) + "\n",
          .headers = {}};
}

void load_only(const ApiContext& context, const OllamaGenerate& parsed,
               std::shared_ptr<Exchange> exchange) {
  const auto id = context.jobs.source.find(parsed.request.model);
  if (!id) throw ApiError(404, "model '" + parsed.request.model + "' not found");
  if (parsed.action == OllamaGenerate::Action::kUnload) {
    context.jobs.host.unload(id->name);
    exchange->respond(load_response(parsed, "unload"));
    return;
  }
  context.jobs.host.acquire(
      *id, load_options(parsed.request.options), parsed.request.keep_alive,
      [exchange, parsed](const std::shared_ptr<ModelHost::Lease>& lease,
                         const std::exception_ptr& failure) {
        if (lease) {
          exchange->respond(load_response(parsed, "load"));
        } else {
          ApiError error = to_api_error(failure);
          exchange->respond(error_response(
              ErrorForm::kOllama, error.status() == 400 ? ApiError(500, error.what()) : error));
        }
      });
}

// Renders without generating; needs the model's template, so it loads it.
void render_only(const ApiContext& context, OllamaGenerate parsed,
                 std::shared_ptr<Exchange> exchange) {
  const auto id = context.jobs.source.find(parsed.request.model);
  if (!id) throw ApiError(404, "model '" + parsed.request.model + "' not found");
  const LoadOptions options = load_options(parsed.request.options);
  const auto keep_alive = parsed.request.keep_alive;
  context.jobs.host.acquire(
      *id, options, keep_alive,
      [exchange, parsed = std::move(parsed), &workers = context.jobs.workers](
          std::shared_ptr<ModelHost::Lease> lease, const std::exception_ptr& failure) {
        if (!lease) {
          exchange->respond(error_response(ErrorForm::kOllama, to_api_error(failure)));
          return;
        }
        workers.post([exchange, parsed, lease = std::move(lease)] {
          try {
            const Prompt prompt =
                build_prompt(*lease->model(), parsed.request, lease->max_model_len() - 1);
            const Json body = {{"model", lease->model()->name},
                               {"created_at", format_time(system_clock::now())},
                               {"_debug_info", {{"rendered_template", prompt.text}}}};
            exchange->respond({.body = dump(body), .headers = {}});
          } catch (const std::exception&) {
            exchange->respond(
                error_response(ErrorForm::kOllama, to_api_error(std::current_exception())));
          }
        });
      });
}

void generate(const ApiContext& context, OllamaGenerate parsed,
              const std::shared_ptr<Exchange>& exchange) {
  if (parsed.action != OllamaGenerate::Action::kGenerate) {
    load_only(context, parsed, exchange);
    return;
  }
  if (parsed.render_only) {
    render_only(context, std::move(parsed), exchange);
    return;
  }
  auto writer = make_ollama_writer(exchange, parsed);
  GenerationJob::start(context.jobs, std::move(parsed.request), exchange, std::move(writer));
}

}  // namespace

OllamaGenerate parse_ollama_generate(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  OllamaGenerate parsed;
  parse_common(fields, parsed);
  fields.refuse({"tools"});
  GenerationRequest& request = parsed.request;
  request.form = PromptForm::kPrompt;
  request.prompt = fields.text("prompt").value_or("");
  request.suffix = fields.text("suffix").value_or("");
  request.system = fields.text("system");
  request.context = parse_context(fields);
  if (auto source = fields.text("template"); source && !source->empty()) {
    request.template_source = std::move(source);
  }
  if (fields.flag("raw").value_or(false)) {
    if ((request.system && !request.system->empty()) || request.template_source ||
        !request.context.empty()) {
      throw ApiError(400, "raw mode does not support template, system, or context", "raw");
    }
    if (!request.suffix.empty()) {
      throw ApiError(400, "field \"suffix\": raw mode does not support it", "suffix");
    }
    request.form = PromptForm::kRaw;
  }
  if (request.prompt.empty()) set_load_action(parsed);
  return parsed;
}

OllamaGenerate parse_ollama_chat(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  OllamaGenerate parsed;
  parsed.chat = true;
  parse_common(fields, parsed);
  parsed.request.form = PromptForm::kChat;
  parse_tool_fields(fields, parsed.request);
  const Json* messages = fields.array("messages");
  if (!messages || messages->empty()) {
    set_load_action(parsed);
    return parsed;
  }
  if (messages->size() > kMaxMessages) {
    throw ApiError(400, "field \"messages\": more than " + std::to_string(kMaxMessages),
                   "messages");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    parsed.request.messages.push_back(
        parse_message((*messages)[i], "messages[" + std::to_string(i) + "]"));
  }
  link_tool_results(parsed.request.messages);
  return parsed;
}

void add_ollama_generation(Router& router, const ApiContext& context) {
  router.add("POST", "/api/generate", [&context](HttpRequest request, auto exchange) {
    generate(context, parse_ollama_generate(request.body), exchange);
  });
  router.add("POST", "/api/chat", [&context](HttpRequest request, auto exchange) {
    generate(context, parse_ollama_chat(request.body), exchange);
  });
  for (const char* path : {"/api/push"}) {
    router.add("POST", path, [](HttpRequest request, auto) {
      throw ApiError(400, request.path + " is not supported yet");
    });
  }
}

}  // namespace dsctl::commands::serve
