// What one render may use. A template comes from a downloaded file: it must not be able to hang or
// exhaust the process, whatever it says.
#pragma once

#include <cstddef>
#include <cstdint>

#include "templates/jinja/jinja_error.h"

namespace dsctl::templates::jinja {

struct Limits {
  uint64_t max_steps = 100'000'000;         // nodes evaluated and elements touched: some seconds
  size_t max_output_bytes = 64u << 20;      // of the prompt
  size_t max_string_bytes = 64u << 20;      // of any one string
  uint64_t max_created_bytes = 1ull << 30;  // of all strings made during the render
  size_t max_items = 1'000'000;             // of any one list
  int max_depth = 1200;                     // nested evaluations, macro calls included
};

/// Counts what a render uses; every charge that goes over a limit throws JinjaError(kLimit).
class Budget {
 public:
  explicit Budget(const Limits& limits) : limits_(limits) {}

  const Limits& limits() const { return limits_; }

  void charge_steps(uint64_t n_steps) {
    steps_ += n_steps;
    if (steps_ > limits_.max_steps) {
      throw JinjaError(ErrorKind::kLimit, "the template takes too many steps");
    }
  }

  /// Before a string of this size is made.
  void charge_string(size_t size_bytes) {
    if (size_bytes > limits_.max_string_bytes) {
      throw JinjaError(ErrorKind::kLimit, "the template makes too long a string");
    }
    created_bytes_ += size_bytes;
    if (created_bytes_ > limits_.max_created_bytes) {
      throw JinjaError(ErrorKind::kLimit, "the template makes too much text");
    }
  }

  /// Before a list of this many items is made.
  void charge_items(size_t n_items) {
    if (n_items > limits_.max_items) {
      throw JinjaError(ErrorKind::kLimit, "the template makes too long a list");
    }
    charge_steps(n_items);
  }

 private:
  Limits limits_;
  uint64_t steps_ = 0;
  uint64_t created_bytes_ = 0;
};

}  // namespace dsctl::templates::jinja
