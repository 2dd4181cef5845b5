// The part of Ollama's API that lists, describes and changes models.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "commands/error.h"
#include "commands/list.h"
#include "commands/model_info.h"
#include "commands/serve/api_ollama.h"
#include "commands/serve/json_fields.h"
#include "commands/show.h"
#include "gguf/error.h"
#include "registry/error.h"

namespace dsctl::commands::serve {
namespace {

using registry::ModelName;

void respond_json(Exchange& exchange, const Json& body) {
  exchange.respond({.body = dump(body), .headers = {}});
}

ModelName parse_name(const std::string& text) {
  auto name = ModelName::try_parse(text);
  if (!name) throw ApiError(400, "invalid model name \"" + text + "\"", "model");
  return *std::move(name);
}

// "model", or "name" as older clients call it.
std::string model_field(const Fields& fields) {
  if (auto model = fields.text("model"); model && !model->empty()) return *std::move(model);
  if (auto name = fields.text("name"); name && !name->empty()) return *std::move(name);
  return fields.required_text("model");
}

[[noreturn]] void not_found(const std::string& name) {
  throw ApiError(404, "model '" + name + "' not found", "model");
}

Json details_json(const registry::ModelConfig& config) {
  Json details = {{"parent_model", ""},
                  {"format", config.model_format},
                  {"family", config.model_family},
                  {"families", config.model_families},
                  {"parameter_size", config.model_type},
                  {"quantization_level", config.file_type}};
  if (config.context_length > 0) details["context_length"] = config.context_length;
  if (config.embedding_length > 0) details["embedding_length"] = config.embedding_length;
  return details;
}

void tags(const ApiContext& context, Exchange& exchange) {
  const registry::ModelList list = context.registry.list();
  for (const std::string& problem : list.problems)
    spdlog::warn("{}", problem);
  exchange.respond({.body = list_json(list), .headers = {}});
}

void ps(const ApiContext& context, Exchange& exchange) {
  Json models = Json::array();
  for (const HostedModelInfo& info : context.jobs.host.list()) {
    const engine::EngineStats& stats = info.stats;
    const int64_t size = stats.weight_bytes + stats.kv_bytes;
    const bool on_cpu = stats.device.empty() || stats.device.starts_with("CPU");
    registry::ModelConfig config;
    if (info.model->file) config = to_config(read_model_info(*info.model->file));
    // Ollama's clients take a time that is over for "Stopping...".
    const auto expires = info.stopping ? std::chrono::system_clock::time_point() : info.expires_at;
    models.push_back(
        {{"name", info.id.name},
         {"model", info.id.name},
         {"size", size > 0 ? size : info.model->size_bytes},
         {"digest", info.id.digest},
         {"details", details_json(config)},
         {"expires_at", format_time(expires)},
         {"size_vram", on_cpu ? 0 : size},
         {"context_length", stats.max_model_len},
         {"device", stats.device},
         {"requests", {{"running", stats.n_running}, {"waiting", stats.n_waiting}}},
         {"kv_blocks", {{"total", stats.n_kv_blocks}, {"free", stats.n_free_kv_blocks}}},
         {"forever", info.forever}});
  }
  respond_json(exchange, {{"models", std::move(models)}});
}

void show(const ApiContext& context, const HttpRequest& request, Exchange& exchange) {
  const Json json = parse_body(request.body);
  const Fields fields(json);
  const std::string name = model_field(fields);
  const bool verbose = fields.flag("verbose").value_or(false);
  const auto stored = context.registry.find(parse_name(name));
  if (!stored) not_found(name);
  exchange.respond(
      {.body = show_json(*stored, {.long_arrays = verbose, .tensors = verbose}), .headers = {}});
}

void remove(const ApiContext& context, const HttpRequest& request, Exchange& exchange) {
  const Json json = parse_body(request.body);
  const std::string text = model_field(Fields(json));
  const ModelName name = parse_name(text);
  if (const auto stored = context.registry.stored_name(name)) {
    context.jobs.host.unload(stored->short_form());
  }
  if (!context.registry.remove(name)) not_found(text);
  exchange.respond({.body = "", .headers = {}});
}

void copy(const ApiContext& context, const HttpRequest& request, Exchange& exchange) {
  const Json json = parse_body(request.body);
  const Fields fields(json);
  const std::string source = fields.required_text("source");
  const std::string destination = fields.required_text("destination");
  if (!context.registry.stored_name(parse_name(source))) not_found(source);
  context.registry.copy(parse_name(source), parse_name(destination));
  exchange.respond({.body = "", .headers = {}});
}

std::vector<std::string> parse_licenses(const Fields& fields) {
  const Json* license = fields.any("license");
  std::vector<std::string> licenses;
  if (!license) return licenses;
  if (license->is_string()) return {license->get<std::string>()};
  if (!license->is_array()) fields.fail("license", "a string or an array of strings", *license);
  for (const Json& item : *license) {
    if (!item.is_string()) fields.fail("license", "a string or an array of strings", item);
    licenses.push_back(item.get<std::string>());
  }
  return licenses;
}

std::string parse_parameters(const Fields& fields) {
  const Json* parameters = fields.object("parameters");
  Json checked = Json::object();
  if (!parameters) return "{}";
  for (const auto& [name, value] : parameters->items()) {
    if (value.is_null()) continue;
    try {
      // The registry knows the types; going through it keeps one rule for files and requests.
      Options options = parse_parameters_json(Json{{name, value}}.dump());
      if (options.empty()) throw Error("unknown parameter '" + name + "'");
    } catch (const Error& error) {
      throw ApiError(400, error.what(), "parameters." + name);
    }
    checked[name] = name == "stop" && value.is_string() ? Json::array({value}) : value;
  }
  return dump(checked);
}

// Weights that were uploaded before: {"file name": "sha256:..."}.
std::vector<registry::WeightSource> parse_files(const ApiContext& context, const Fields& fields) {
  std::vector<registry::WeightSource> weights;
  const Json* files = fields.object("files");
  if (!files) return weights;
  for (const auto& [name, value] : files->items()) {
    const std::string where = "files[\"" + name + "\"]";
    const auto digest =
        value.is_string() ? registry::Digest::parse(value.get<std::string>()) : std::nullopt;
    if (!digest)
      throw ApiError(400, "field \"" + where + "\": expected \"sha256:<64 hex>\"", where);
    if (name.find('/') != std::string::npos)
      throw ApiError(400, "file path must be relative", where);
    if (!context.registry.blobs().has(*digest)) {
      throw ApiError(400,
                     "field \"" + where + "\": blob " + digest->to_string() +
                         " is not here; upload it to /api/blobs first",
                     where);
    }
    weights.push_back(
        {.source = *digest, .media_type = registry::media_type::kModel, .name = name});
  }
  // The names of shards sort in their order; what is no proper split is refused when it is opened.
  std::sort(weights.begin(), weights.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return weights;
}

registry::CreateSpec parse_create(const ApiContext& context, const Fields& fields) {
  fields.refuse(
      {"quantize", "quantization", "draft_quantize", "draft_files", "remote_host", "info"});
  fields.refuse({"adapters", "modelfile", "path"});
  registry::CreateSpec spec;
  if (const auto from = fields.text("from"); from && !from->empty()) {
    spec.from = parse_name(*from);
    if (!context.registry.stored_name(*spec.from)) not_found(*from);
  }
  spec.weights = parse_files(context, fields);
  if (!spec.from && spec.weights.empty()) {
    throw ApiError(400, "neither 'from' or 'files' was specified");
  }
  if (!spec.weights.empty()) {
    std::vector<std::filesystem::path> paths;
    for (const auto& weight : spec.weights) {
      paths.push_back(context.registry.blobs().path_of(std::get<registry::Digest>(weight.source)));
    }
    try {
      spec.config = to_config(read_model_info(gguf::GgufFile::open_shards(paths)));
    } catch (const gguf::Error& error) {
      throw ApiError(400, std::string("supplied file was not in GGUF format: ") + error.what());
    }
    if (spec.weights.size() == 1) spec.weights.front().name.clear();
  }
  spec.template_text = fields.text("template");
  if (spec.template_text) {
    try {
      templates::ChatTemplate::parse(templates::TemplateLanguage::kGo, *spec.template_text);
    } catch (const std::exception& error) {
      throw ApiError(400, std::string("template error: ") + error.what(), "template");
    }
  }
  spec.system = fields.text("system");
  spec.parameters_json = parse_parameters(fields);
  spec.licenses = parse_licenses(fields);
  if (const Json* messages = fields.array("messages")) {
    for (size_t i = 0; i < messages->size(); ++i) {
      const Fields message((*messages)[i], "messages[" + std::to_string(i) + "]");
      spec.messages.push_back(
          {.role = message.required_text("role"), .content = message.text("content").value_or("")});
    }
  }
  spec.renderer = fields.text("renderer");
  spec.parser = fields.text("parser");
  spec.requires_version = fields.text("requires");
  return spec;
}

void create(const ApiContext& context, const HttpRequest& request, Exchange& exchange) {
  const Json json = parse_body(request.body);
  const Fields fields(json);
  const ModelName name = parse_name(model_field(fields));
  const bool stream = fields.flag("stream").value_or(true);
  const registry::CreateSpec spec = parse_create(context, fields);
  if (stream) exchange.begin_stream("application/x-ndjson");
  const auto line = [&exchange, stream](const Json& object) {
    if (stream) exchange.write(dump(object) + "\n");
  };
  registry::Observer observer;
  observer.status = [&line](std::string_view status) { line({{"status", status}}); };
  observer.progress = [&line, &exchange](std::string_view what, int64_t done, int64_t total) {
    if (exchange.closed()) throw Error("the client has gone");
    line({{"status", what}, {"total", total}, {"completed", done}});
  };
  try {
    context.registry.create(name, spec, observer);
  } catch (const std::exception& error) {
    if (!stream) throw ApiError(500, error.what());
    line({{"error", error.what()}});
    exchange.end_stream();
    return;
  }
  line({{"status", "success"}});
  if (stream) {
    exchange.end_stream();
  } else {
    respond_json(exchange, {{"status", "success"}});
  }
}

registry::Digest blob_digest(const HttpRequest& request) {
  const std::string text = request.path.substr(sizeof("/api/blobs/") - 1);
  const auto digest = registry::Digest::parse(text);
  if (!digest) throw ApiError(400, "invalid digest \"" + text + "\", expected sha256:<64 hex>");
  return *digest;
}

// A blob that comes through HTTP: staged while it arrives, made visible when it is what it should
// be.
class BlobUpload final : public BodySink {
 public:
  BlobUpload(const registry::BlobStore& blobs, const registry::Digest& digest)
      : blobs_(blobs),
        digest_(digest),
        staging_(blobs, [](std::string_view) {}),
        writer_(staging_) {}

  void write(std::span<const std::byte> data) override {
    if (!data.empty()) writer_.write(data);
  }

  void finish(Exchange& exchange) override {
    registry::StagedBlob staged;
    try {
      staged = writer_.finish(digest_);
    } catch (const registry::Error& error) {
      throw ApiError(400, error.what());
    }
    const registry::StoreLock lock(blobs_.root(), "upload", kLockTimeoutMs,
                                   [](std::string_view) {});
    blobs_.publish(staged);
    exchange.respond({.status = 201, .body = "", .headers = {}});
  }

 private:
  static constexpr int64_t kLockTimeoutMs = 60'000;
  const registry::BlobStore& blobs_;
  const registry::Digest digest_;
  registry::Staging staging_;
  registry::Staging::Writer writer_;
};

// The blob is here already: its bytes are read and thrown away.
class KnownBlob final : public BodySink {
 public:
  void write(std::span<const std::byte>) override {}
  void finish(Exchange& exchange) override { exchange.respond({.body = "", .headers = {}}); }
};

}  // namespace

void add_ollama_models(Router& router, const ApiContext& context) {
  router.add("GET", "/", [](HttpRequest, auto exchange) {
    exchange->respond({.content_type = "text/plain; charset=utf-8",
                       .body = "Ollama is running",  // what Ollama's clients look for
                       .headers = {}});
  });
  router.add("GET", "/health", [](HttpRequest, auto exchange) {
    respond_json(*exchange, {{"status", "ok"}});
  });
  router.add("GET", "/api/version", [](HttpRequest, auto exchange) {
    respond_json(*exchange, {{"version", DSCTL_VERSION}, {"program", "dsctl"}});
  });
  router.add("GET", "/api/tags",
             [&context](HttpRequest, auto exchange) { tags(context, *exchange); });
  router.add("GET", "/api/ps", [&context](HttpRequest, auto exchange) { ps(context, *exchange); });
  router.add("POST", "/api/show",
             [&context](HttpRequest request, auto exchange) { show(context, request, *exchange); });
  router.add("DELETE", "/api/delete", [&context](HttpRequest request, auto exchange) {
    remove(context, request, *exchange);
  });
  router.add("POST", "/api/copy",
             [&context](HttpRequest request, auto exchange) { copy(context, request, *exchange); });
  router.add("POST", "/api/create", [&context](HttpRequest request, auto exchange) {
    create(context, request, *exchange);
  });
  router.add("HEAD", "/api/blobs/*", [&context](HttpRequest request, auto exchange) {
    const bool has = context.registry.blobs().has(blob_digest(request));
    exchange->respond({.status = has ? 200 : 404, .body = "", .headers = {}});
  });
  router.add_upload("/api/blobs/*",
                    [&context](const HttpRequest& request) -> std::unique_ptr<BodySink> {
                      const registry::Digest digest = blob_digest(request);
                      if (context.registry.blobs().has(digest))
                        return std::make_unique<KnownBlob>();
                      return std::make_unique<BlobUpload>(context.registry.blobs(), digest);
                    });
}

}  // namespace dsctl::commands::serve
