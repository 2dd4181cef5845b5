// The one exception type of this folder: an operation failed and the message says what was found,
// what was expected and where.
#pragma once

#include <stdexcept>
#include <string>

namespace dsctl::registry {

/// Thrown when an operation of this folder fails. The message is lower-case, without a final
/// period.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

}  // namespace dsctl::registry
