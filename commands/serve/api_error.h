// A request that can't be answered, in the error form of its API.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "commands/serve/http.h"

namespace dsctl::commands::serve {

/// Thrown while a request is read or answered; becomes an HTTP error.
class ApiError : public std::runtime_error {
 public:
  ApiError(int status, const std::string& message, std::string param = "", std::string code = "")
      : std::runtime_error(message),
        status_(status),
        param_(std::move(param)),
        code_(std::move(code)) {}
  int status() const { return status_; }
  const std::string& param() const { return param_; }  // the field at fault, for OpenAI's form
  const std::string& code() const { return code_; }    // OpenAI's machine-readable code

 private:
  int status_;
  std::string param_;
  std::string code_;
};

enum class ErrorForm { kOllama, kOpenAi, kAnthropic };

/// The form that clients of `path` understand.
ErrorForm error_form(std::string_view path);

/// The JSON text of an error: {"error":"..."}, {"error":{"message":...}} or
/// {"type":"error","error":{"type":...,"message":...}}.
std::string error_json(ErrorForm form, const ApiError& error);

/// The whole response, with Retry-After when the server is busy.
HttpResponse error_response(ErrorForm form, const ApiError& error);

}  // namespace dsctl::commands::serve
