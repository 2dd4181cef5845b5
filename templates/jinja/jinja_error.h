// What can go wrong in a Jinja template, by Python's kinds, so that a caller can tell a wrong type
// (worth a second try with another message shape) from everything else.
#pragma once

#include <string>

#include "templates/error.h"

namespace dsctl::templates::jinja {

enum class ErrorKind {
  kSyntax,     // the template doesn't parse, or names a filter or test that doesn't exist
  kType,       // Python's TypeError
  kValue,      // Python's ValueError, ZeroDivisionError, OverflowError, IndexError
  kUndefined,  // something undefined was used
  kSecurity,   // the sandbox forbids it
  kLimit,      // time, output, depth or size
};

/// Thrown with the bare message where it is found; Template adds "template:LINE:COLUMN: ".
class JinjaError : public Error {
 public:
  JinjaError(ErrorKind kind, const std::string& message) : Error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

[[noreturn]] inline void fail_type(const std::string& message) {
  throw JinjaError(ErrorKind::kType, message);
}

[[noreturn]] inline void fail_value(const std::string& message) {
  throw JinjaError(ErrorKind::kValue, message);
}

}  // namespace dsctl::templates::jinja
