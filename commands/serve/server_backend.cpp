// The model in a running server, for `run`: the same API that every other client uses.
#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "commands/chat_backend.h"
#include "commands/error.h"
#include "commands/loaded_model.h"
#include "commands/serve/client.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;
using serve::ClientResponse;
using serve::HttpClient;

constexpr auto kFindTimeout = std::chrono::milliseconds(300);

Json parse(const std::string& text) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw Error("the server's answer is no JSON object");
  return json;
}

std::string text_of(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

int64_t count_of(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_number() ? it->get<int64_t>() : 0;
}

[[noreturn]] void fail(const ClientResponse& response) {
  const Json json = Json::parse(response.body, nullptr, false);
  const std::string text = json.is_object() ? text_of(json, "error") : "";
  throw Error(text.empty() ? "the server answered with status " + std::to_string(response.status)
                           : text);
}

Json options_json(const Options& options) {
  Json json = Json::object();
  for (const auto& [name, value] : options) {
    std::visit([&json, key = name](const auto& typed) { json[key] = typed; }, value);
  }
  return json;
}

Json messages_json(const std::vector<templates::Message>& messages) {
  Json list = Json::array();
  for (const templates::Message& message : messages) {
    Json one = {{"role", message.role}, {"content", message.content}};
    if (message.thinking) one["thinking"] = *message.thinking;
    list.push_back(std::move(one));
  }
  return list;
}

Json chat_json(const GenerationRequest& request, const std::string& model) {
  Json body = {{"model", model}};
  body["messages"] = messages_json(request.messages);
  body["options"] = options_json(request.options);
  if (request.grammar) {
    using Kind = engine::GrammarSpec::Kind;
    body["format"] = request.grammar->kind == Kind::kJsonObject
                         ? Json("json")
                         : Json::parse(request.grammar->source, nullptr, false);
    if (body["format"].is_discarded()) throw Error("format: the schema is no JSON");
  }
  if (request.think) {
    body["think"] = request.think_level.empty() ? Json(*request.think) : Json(request.think_level);
  }
  if (request.keep_alive) {
    body["keep_alive"] = *request.keep_alive == kForever
                             ? Json(-1)
                             : Json(std::chrono::duration<double>(*request.keep_alive).count());
  }
  return body;
}

// "2026-11-24T10:00:00.123Z" to the second.
std::chrono::system_clock::time_point parse_time(const std::string& text) {
  std::tm parts{};
  if (!strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts)) return {};
  return std::chrono::system_clock::from_time_t(timegm(&parts));
}

class ServerBackend final : public ChatBackend {
 public:
  explicit ServerBackend(HttpClient client) : client_(std::move(client)) {}

  void use(const std::string& model) override {
    const ClientResponse response =
        client_.request("POST", "/api/show", Json{{"model", model}}.dump());
    if (response.status != 200) fail(response);
    read_facts(model, parse(response.body));
  }

  const ModelFacts& facts() const override { return facts_; }

  void preload(const GenerationRequest& request) override {
    Json body = chat_json(request, facts_.name);
    body["messages"] = Json::array();
    const ClientResponse response = client_.request("POST", "/api/chat", body.dump());
    if (response.status != 200) fail(response);
  }

  ChatSummary generate(const GenerationRequest& request,
                       const std::function<void(const TextPiece&)>& on_piece,
                       const std::function<bool()>& interrupted) override {
    ChatSummary summary;
    bool done = false;
    const auto on_line = [&](std::string_view line) {
      const Json json = parse(std::string(line));
      if (json.contains("error")) throw Error(text_of(json, "error"));
      if (const auto it = json.find("message"); it != json.end() && it->is_object()) {
        TextPiece piece;
        piece.content = text_of(*it, "content");
        piece.thinking = text_of(*it, "thinking");
        if (!piece.empty()) on_piece(piece);
      }
      if (json.value("done", false)) {
        done = true;
        read_summary(json, summary);
      }
    };
    const ClientResponse response = client_.stream(
        "POST", "/api/chat", chat_json(request, facts_.name).dump(), on_line, interrupted);
    if (response.status == 0) {
      summary.reason = engine::FinishReason::kCancelled;
      return summary;
    }
    if (response.status != 200) fail(response);
    if (!done) throw Error("the server's answer ended too early");
    return summary;
  }

  std::vector<ListedModel> list() override {
    const ClientResponse response = client_.request("GET", "/api/tags", "");
    if (response.status != 200) fail(response);
    std::vector<ListedModel> models;
    const Json body = parse(response.body);
    for (const Json& entry : body.value("models", Json::array())) {
      models.push_back({.name = text_of(entry, "name"),
                        .digest = text_of(entry, "digest"),
                        .size_bytes = count_of(entry, "size"),
                        .modified_at = parse_time(text_of(entry, "modified_at"))});
    }
    return models;
  }

  void save(const std::string& name, const GenerationRequest& session) override {
    Json body = {{"model", name}, {"from", facts_.name}, {"stream", false}};
    std::vector<templates::Message> messages;
    for (const templates::Message& message : session.messages) {
      if (message.role == "system") {
        body["system"] = message.content;
      } else {
        messages.push_back(message);
      }
    }
    if (!messages.empty()) body["messages"] = messages_json(messages);
    if (!session.options.empty()) body["parameters"] = options_json(session.options);
    const ClientResponse response = client_.request("POST", "/api/create", body.dump());
    if (response.status != 200) fail(response);
  }

 private:
  static void read_summary(const Json& json, ChatSummary& summary) {
    using std::chrono::nanoseconds;
    summary.reason = text_of(json, "done_reason") == "length" ? engine::FinishReason::kLength
                                                              : engine::FinishReason::kStop;
    summary.n_prompt_tokens = static_cast<int>(count_of(json, "prompt_eval_count"));
    summary.n_generated_tokens = static_cast<int>(count_of(json, "eval_count"));
    summary.n_dropped_messages = static_cast<int>(count_of(json, "truncated_messages"));
    summary.total_time = nanoseconds(count_of(json, "total_duration"));
    summary.load_time = nanoseconds(count_of(json, "load_duration"));
    summary.prefill_time = nanoseconds(count_of(json, "prompt_eval_duration"));
    summary.decode_time = nanoseconds(count_of(json, "eval_duration"));
  }

  void read_facts(const std::string& model, const Json& body) {
    facts_ = {};
    facts_.name = model;
    const Json details = body.value("details", Json::object());
    facts_.architecture = text_of(details, "family");
    facts_.parameter_size = text_of(details, "parameter_size");
    facts_.quantization = text_of(details, "quantization_level");
    facts_.context_length = count_of(details, "context_length");
    facts_.embedding_length = count_of(details, "embedding_length");
    facts_.license = text_of(body, "license");
    facts_.modelfile = text_of(body, "modelfile");
    facts_.parameters = text_of(body, "parameters");
    facts_.system = text_of(body, "system");
    facts_.template_text = text_of(body, "template");
    for (const Json& capability : body.value("capabilities", Json::array()))
      facts_.can_think = facts_.can_think || capability == "thinking";
    for (const Json& message : body.value("messages", Json::array())) {
      templates::Message one;
      one.role = text_of(message, "role");
      one.content = text_of(message, "content");
      facts_.messages.push_back(std::move(one));
    }
  }

  const HttpClient client_;
  ModelFacts facts_;
};

}  // namespace

std::unique_ptr<ChatBackend> find_server_backend(const std::string& model,
                                                 const Settings& settings) {
  if (is_model_file(model)) return nullptr;
  HttpClient client(settings.host, settings.port);
  if (!client.is_up(kFindTimeout)) return nullptr;
  try {
    // Another program may answer at this port: only a server of ours stands in for our engine.
    const ClientResponse version = client.request("GET", "/api/version", "");
    const Json json = Json::parse(version.body, nullptr, false);
    if (!json.is_object() || text_of(json, "program") != "dsctl") return nullptr;
    auto backend = std::make_unique<ServerBackend>(std::move(client));
    backend->use(model);
    return backend;
  } catch (const Error&) {
    return nullptr;  // it has no such model, or is no server of ours
  }
}

}  // namespace dsctl::commands
