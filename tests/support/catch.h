// Catch2 under one include for version 2 (Debian 12) and version 3 (newer distributions). Tests use
// version 2's names where the two differ.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#include <string>

using Catch::Approx;

namespace Catch {

/// Version 2's string matcher; in version 3 Matchers::Contains looks for an element of a range.
inline auto Contains(const std::string& part) {
  return Matchers::ContainsSubstring(part);
}

}  // namespace Catch
#else
#include <catch2/catch.hpp>
#endif
