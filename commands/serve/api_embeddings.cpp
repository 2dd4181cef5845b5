#include "commands/serve/api_embeddings.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

#include "commands/serve/json_fields.h"
#include "commands/serve/option_fields.h"
#include "registry/sources/credentials.h"

namespace dsctl::commands::serve {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxInputs = 65'536;
constexpr int64_t kMaxDimensions = 1 << 20;

void check_count(size_t n, const char* field) {
  if (n <= kMaxInputs) return;
  throw ApiError(400,
                 std::string("field \"") + field + "\": " + std::to_string(n) +
                     " inputs, expected at most " + std::to_string(kMaxInputs),
                 field);
}

std::vector<int32_t> parse_tokens(const Fields& fields, const Json& array) {
  std::vector<int32_t> tokens;
  for (const Json& token : array) {
    if (!token.is_number_integer() || token.get<int64_t>() < 0 || token.get<int64_t>() > kMaxInt) {
      fields.fail("input", "an array of token ids", token);
    }
    tokens.push_back(static_cast<int32_t>(token.get<int64_t>()));
  }
  return tokens;
}

// OpenAI's input: a text, texts, tokens or arrays of tokens.
std::vector<EmbeddingInput> parse_any_input(const Fields& fields, const Json& input) {
  if (input.is_string()) return {{.text = input.get<std::string>(), .tokens = {}}};
  constexpr const char* kExpected = "a string, an array of strings, or arrays of token ids";
  if (!input.is_array() || input.empty()) fields.fail("input", kExpected, input);
  if (input.front().is_number()) return {{.text = {}, .tokens = parse_tokens(fields, input)}};
  check_count(input.size(), "input");
  std::vector<EmbeddingInput> inputs;
  for (const Json& item : input) {
    if (item.is_string()) {
      inputs.push_back({.text = item.get<std::string>(), .tokens = {}});
    } else if (item.is_array() && !item.empty()) {
      inputs.push_back({.text = {}, .tokens = parse_tokens(fields, item)});
    } else {
      fields.fail("input", kExpected, item);
    }
  }
  return inputs;
}

// Ollama's: a text or texts; none or an empty text only loads the model.
std::vector<EmbeddingInput> parse_texts(const Fields& fields) {
  const Json* input = fields.any("input");
  if (!input) return {};
  std::vector<EmbeddingInput> inputs;
  if (input->is_string()) {
    if (!input->get_ref<const std::string&>().empty()) {
      inputs.push_back({.text = input->get<std::string>(), .tokens = {}});
    }
    return inputs;
  }
  if (!input->is_array()) fields.fail("input", "a string or an array of strings", *input);
  check_count(input->size(), "input");
  for (const Json& item : *input) {
    if (!item.is_string()) fields.fail("input", "a string or an array of strings", item);
    inputs.push_back({.text = item.get<std::string>(), .tokens = {}});
  }
  return inputs;
}

Json vector_json(const std::vector<float>& vector, bool base64) {
  if (!base64) return vector;
  static_assert(std::endian::native == std::endian::little);
  return registry::base64_encode(
      {reinterpret_cast<const char*>(vector.data()), vector.size() * sizeof(float)});
}

void cut_and_normalize(EmbeddingResult& result, const std::optional<int64_t>& dimensions) {
  if (dimensions) cut_dimensions(result, *dimensions);
  for (std::vector<float>& vector : result.vectors)
    normalize(vector);
}

HttpResponse embed_response(const EmbeddingsCall& call, EmbeddingResult& result) {
  cut_and_normalize(result, call.dimensions);
  Json body = {{"model", call.request.model}, {"embeddings", Json::array()}};
  for (const std::vector<float>& vector : result.vectors)
    body["embeddings"].push_back(vector);
  body["total_duration"] = result.total_time.count();
  body["load_duration"] = result.load_time.count();
  body["prompt_eval_count"] = result.n_prompt_tokens;
  return {.body = dump(body), .headers = {}};
}

// The older endpoint gives the vector as the model does.
HttpResponse embeddings_response(EmbeddingResult& result) {
  Json body = {{"embedding", Json::array()}};
  if (!result.vectors.empty()) body["embedding"] = result.vectors.front();
  return {.body = dump(body), .headers = {}};
}

Json usage_json(const EmbeddingResult& result) {
  return {{"prompt_tokens", result.n_prompt_tokens}, {"total_tokens", result.n_prompt_tokens}};
}

HttpResponse openai_response(const EmbeddingsCall& call, EmbeddingResult& result) {
  cut_and_normalize(result, call.dimensions);
  Json data = Json::array();
  for (size_t i = 0; i < result.vectors.size(); ++i) {
    data.push_back({{"object", "embedding"},
                    {"index", i},
                    {"embedding", vector_json(result.vectors[i], call.base64)}});
  }
  const Json body = {{"object", "list"},
                     {"data", std::move(data)},
                     {"model", call.request.model},
                     {"usage", usage_json(result)}};
  return {.body = dump(body), .headers = {}};
}

HttpResponse rerank_response(const RerankCall& call, const EmbeddingResult& result) {
  std::vector<size_t> order(result.vectors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto score = [&](size_t i) { return result.vectors[i].front(); };
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return score(a) > score(b); });
  order.resize(std::min(order.size(), static_cast<size_t>(call.top_n)));
  Json results = Json::array();
  for (const size_t i : order) {
    Json item = {{"index", i}, {"relevance_score", score(i)}};
    if (call.return_documents) item["document"] = {{"text", call.request.inputs[i].text}};
    results.push_back(std::move(item));
  }
  const Json body = {{"model", call.request.model},
                     {"object", "list"},
                     {"usage", usage_json(result)},
                     {"results", std::move(results)}};
  return {.body = dump(body), .headers = {}};
}

}  // namespace

EmbeddingsCall parse_ollama_embed(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  EmbeddingsCall call;
  call.request.model = fields.required_text("model");
  call.request.inputs = parse_texts(fields);
  call.request.too_long = fields.flag("truncate").value_or(true)
                              ? EmbeddingRequest::TooLong::kTruncate
                              : EmbeddingRequest::TooLong::kRefuse;
  // Ollama's 0 means all of them.
  const auto dimensions = fields.integer("dimensions", 0, kMaxDimensions);
  if (dimensions.value_or(0) > 0) call.dimensions = dimensions;
  call.request.options = parse_options(fields);
  call.request.keep_alive = parse_keep_alive_field(fields);
  return call;
}

EmbeddingsCall parse_ollama_embeddings(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  EmbeddingsCall call;
  call.request.model = fields.required_text("model");
  if (auto prompt = fields.text("prompt"); prompt && !prompt->empty()) {
    call.request.inputs.push_back({.text = *std::move(prompt), .tokens = {}});
  }
  call.request.too_long = EmbeddingRequest::TooLong::kTruncate;
  call.request.options = parse_options(fields);
  call.request.keep_alive = parse_keep_alive_field(fields);
  return call;
}

EmbeddingsCall parse_openai_embeddings(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  EmbeddingsCall call;
  call.request.model = fields.required_text("model");
  const Json* input = fields.any("input");
  if (!input) {
    throw ApiError(400, "field \"input\" is missing: expected a string or an array", "input");
  }
  call.request.inputs = parse_any_input(fields, *input);
  const std::string format = fields.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64") {
    throw ApiError(400, "field \"encoding_format\": \"" + format + "\", expected float or base64",
                   "encoding_format");
  }
  call.base64 = format == "base64";
  call.dimensions = fields.integer("dimensions", 1, kMaxDimensions);
  call.request.keep_alive = parse_keep_alive_field(fields);
  return call;
}

RerankCall parse_rerank(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  RerankCall call;
  call.request.model = fields.required_text("model");
  call.request.query = fields.required_text("query");
  const Json* documents = fields.array("documents");
  if (!documents || documents->empty()) {
    throw ApiError(400, "field \"documents\" is missing: expected an array of strings",
                   "documents");
  }
  check_count(documents->size(), "documents");
  for (size_t i = 0; i < documents->size(); ++i) {
    const Json& document = (*documents)[i];
    if (document.is_string()) {
      call.request.inputs.push_back({.text = document.get<std::string>(), .tokens = {}});
    } else {
      const Fields object(document, "documents[" + std::to_string(i) + "]");
      call.request.inputs.push_back({.text = object.required_text("text"), .tokens = {}});
    }
  }
  call.top_n = fields.integer("top_n", 1, kMaxInt).value_or(kMaxInt);
  call.return_documents = fields.flag("return_documents").value_or(false);
  call.request.keep_alive = parse_keep_alive_field(fields);
  return call;
}

void add_embeddings(Router& router, const ApiContext& context) {
  const auto add = [&](const char* path, ErrorForm form, auto parse, auto respond) {
    router.add("POST", path, [&context, form, parse, respond](HttpRequest request, auto exchange) {
      auto call = parse(request.body);
      EmbeddingRequest wanted = call.request;
      EmbeddingJob::start(context.jobs, std::move(wanted), std::move(exchange), form,
                          [call = std::move(call), respond](EmbeddingResult& result) {
                            return respond(call, result);
                          });
    });
  };
  add("/api/embed", ErrorForm::kOllama, parse_ollama_embed, embed_response);
  add("/api/embeddings", ErrorForm::kOllama, parse_ollama_embeddings,
      [](const EmbeddingsCall&, EmbeddingResult& result) { return embeddings_response(result); });
  add("/v1/embeddings", ErrorForm::kOpenAi, parse_openai_embeddings, openai_response);
  for (const char* path : {"/v1/rerank", "/rerank"})
    add(path, ErrorForm::kOpenAi, parse_rerank, rerank_response);
}

}  // namespace dsctl::commands::serve
