// The JSON numbers between two bounds, digit by digit.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/grammar/syntax.h"

namespace dsctl::engine::grammar {

/// A bound as JSON wrote it, taken apart: digits without leading zeros, fraction without trailing
/// ones.
struct DecimalBound {
  bool negative = false;
  std::string whole;     // "0", "12"
  std::string fraction;  // "", "5"
  bool exclusive = false;

  /// Reads a JSON number; nothing when it has an exponent that can't be written out in 40 digits.
  static std::optional<DecimalBound> parse(std::string_view number, bool exclusive);
};

/// Integers of at most 16 digits from `min` to `max`. Throws Error when there is none.
Expr integer_range(const std::optional<DecimalBound>& min, const std::optional<DecimalBound>& max);

/// Numbers of at most 16 digits before and after the point, without exponent, from `min` to `max`.
/// Throws Error when there is none.
Expr number_range(const std::optional<DecimalBound>& min, const std::optional<DecimalBound>& max);

}  // namespace dsctl::engine::grammar
