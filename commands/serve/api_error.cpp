#include "commands/serve/api_error.h"

#include <nlohmann/json.hpp>

namespace dsctl::commands::serve {
namespace {

using Json = nlohmann::ordered_json;

const char* error_type(int status) {
  switch (status) {
    case 400:
    case 405:
    case 408:
    case 413:
    case 415:
    case 431:
      return "invalid_request_error";
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return "api_error";
  }
}

}  // namespace

ErrorForm error_form(std::string_view path) {
  if (path == "/v1/messages" || path.starts_with("/v1/messages/")) return ErrorForm::kAnthropic;
  // vLLM's own paths have the form of its OpenAI ones.
  const bool openai = path == "/v1" || path.starts_with("/v1/") || path == "/tokenize" ||
                      path == "/detokenize" || path == "/rerank";
  return openai ? ErrorForm::kOpenAi : ErrorForm::kOllama;
}

std::string error_json(ErrorForm form, const ApiError& error) {
  // Messages quote what the client sent: it may not be valid UTF-8.
  constexpr auto kReplace = Json::error_handler_t::replace;
  if (form == ErrorForm::kOllama)
    return Json{{"error", error.what()}}.dump(-1, ' ', false, kReplace);
  if (form == ErrorForm::kAnthropic) {
    const Json body = {
        {"type", "error"},
        {"error", {{"type", error_type(error.status())}, {"message", error.what()}}}};
    return body.dump(-1, ' ', false, kReplace);
  }
  Json inner = {{"message", error.what()}, {"type", error_type(error.status())}};
  inner["param"] = error.param().empty() ? Json(nullptr) : Json(error.param());
  inner["code"] = error.code().empty() ? Json(nullptr) : Json(error.code());
  return Json{{"error", std::move(inner)}}.dump(-1, ' ', false, kReplace);
}

HttpResponse error_response(ErrorForm form, const ApiError& error) {
  HttpResponse response{.status = error.status(), .body = error_json(form, error), .headers = {}};
  if (error.status() == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

}  // namespace dsctl::commands::serve
