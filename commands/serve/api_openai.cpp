#include "commands/serve/api_openai.h"

#include <chrono>
#include <utility>

#include "commands/serve/json_fields.h"
#include "commands/serve/openai_writer.h"

namespace dsctl::commands::serve {
namespace {

void generate(const ApiContext& context, OpenAiGenerate parsed,
              const std::shared_ptr<Exchange>& exchange) {
  auto writer = make_openai_writer(exchange, parsed);
  GenerationJob::start(context.jobs, std::move(parsed.request), exchange, std::move(writer));
}

Json model_json(const registry::ModelEntry& entry) {
  const auto created =
      std::chrono::duration_cast<std::chrono::seconds>(entry.modified_at.time_since_epoch());
  return {{"id", entry.name.short_form()},
          {"object", "model"},
          {"created", created.count()},
          {"owned_by", entry.name.owner}};
}

void list_models(const ApiContext& context, Exchange& exchange) {
  Json data = Json::array();
  for (const registry::ModelEntry& entry : context.registry.list().models)
    data.push_back(model_json(entry));
  const Json body = {{"object", "list"}, {"data", std::move(data)}};
  exchange.respond({.body = dump(body), .headers = {}});
}

void show_model(const ApiContext& context, const std::string& id, Exchange& exchange) {
  const auto wanted = registry::ModelName::try_parse(id);
  for (const registry::ModelEntry& entry : context.registry.list().models) {
    if (!wanted || !entry.name.same_as(*wanted)) continue;
    Json body = model_json(entry);
    body["id"] = id;
    exchange.respond({.body = dump(body), .headers = {}});
    return;
  }
  throw ApiError(404, "model '" + id + "' not found", "model", "model_not_found");
}

}  // namespace

void add_openai(Router& router, const ApiContext& context) {
  router.add("POST", "/v1/chat/completions", [&context](HttpRequest request, auto exchange) {
    generate(context, parse_openai_chat(request.body), exchange);
  });
  router.add("POST", "/v1/completions", [&context](HttpRequest request, auto exchange) {
    generate(context, parse_openai_completion(request.body), exchange);
  });
  router.add("GET", "/v1/models",
             [&context](HttpRequest, auto exchange) { list_models(context, *exchange); });
  router.add("GET", "/v1/models/*", [&context](HttpRequest request, auto exchange) {
    show_model(context, request.path.substr(sizeof("/v1/models/") - 1), *exchange);
  });
  for (const char* path : {"/v1/responses", "/v1/images/generations", "/v1/audio/transcriptions"}) {
    router.add("POST", path, [](HttpRequest request, auto) {
      throw ApiError(400, request.path + " is not supported yet");
    });
  }
}

}  // namespace dsctl::commands::serve
