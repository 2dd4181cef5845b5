#include "commands/duration.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "commands/error.h"

namespace dsctl::commands {
namespace {

constexpr double kNanosecondsPerSecond = 1e9;

std::optional<double> unit_seconds(std::string_view unit) {
  if (unit == "ns") return 1e-9;
  if (unit == "us" || unit == "µs" || unit == "μs") return 1e-6;
  if (unit == "ms") return 1e-3;
  if (unit == "s") return 1.0;
  if (unit == "m") return 60.0;
  if (unit == "h") return 3600.0;
  return std::nullopt;
}

bool is_number_char(char c) {
  return (c >= '0' && c <= '9') || c == '.';
}

[[noreturn]] void fail(std::string_view text) {
  throw Error("duration \"" + std::string(text) +
              "\": expected a number with a unit such as \"5m\", \"1h30m\" or \"300s\"");
}

// Number and unit at the front of `rest`, taken off it.
double take_term(std::string_view& rest, std::string_view whole) {
  size_t n = 0;
  while (n < rest.size() && is_number_char(rest[n]))
    ++n;
  const std::string number(rest.substr(0, n));
  if (number.empty() || number == "." || std::count(number.begin(), number.end(), '.') > 1) {
    fail(whole);
  }
  rest.remove_prefix(n);
  n = 0;
  while (n < rest.size() && !is_number_char(rest[n]))
    ++n;
  const auto seconds = unit_seconds(rest.substr(0, n));
  if (!seconds) fail(whole);
  rest.remove_prefix(n);
  return std::strtod(number.c_str(), nullptr) * *seconds;
}

}  // namespace

KeepAlive keep_alive_from_seconds(double seconds) {
  if (std::isnan(seconds) || seconds < 0.0) return kForever;
  const double nanoseconds = seconds * kNanosecondsPerSecond;
  if (nanoseconds >= static_cast<double>(KeepAlive::max().count())) return kForever;
  return KeepAlive(static_cast<int64_t>(nanoseconds));
}

KeepAlive parse_keep_alive(std::string_view text, BareNumber bare_number) {
  std::string_view rest = text;
  double sign = 1.0;
  if (!rest.empty() && (rest.front() == '-' || rest.front() == '+')) {
    if (rest.front() == '-') sign = -1.0;
    rest.remove_prefix(1);
  }
  if (rest.empty()) fail(text);
  if (rest == "0") return KeepAlive(0);
  if (bare_number == BareNumber::kSeconds &&
      std::all_of(rest.begin(), rest.end(), is_number_char) &&
      std::count(rest.begin(), rest.end(), '.') <= 1 && rest != ".") {
    return keep_alive_from_seconds(sign * std::strtod(std::string(rest).c_str(), nullptr));
  }
  double seconds = 0.0;
  while (!rest.empty())
    seconds += take_term(rest, text);
  return keep_alive_from_seconds(sign * seconds);
}

std::string format_duration(std::chrono::nanoseconds duration) {
  const int64_t total_ns = duration.count();
  if (total_ns == 0) return "0s";
  char buffer[64];
  // Go prints every significant digit and drops trailing zeros.
  const auto trimmed = [&buffer](double value, int digits, const char* unit) {
    std::snprintf(buffer, sizeof(buffer), "%.*f", digits, value);
    std::string text(buffer);
    if (text.find('.') != std::string::npos) {
      while (text.back() == '0')
        text.pop_back();
      if (text.back() == '.') text.pop_back();
    }
    return text + unit;
  };
  const std::string sign = total_ns < 0 ? "-" : "";
  const int64_t ns = std::abs(total_ns);
  if (ns < 1'000) return sign + std::to_string(ns) + "ns";
  if (ns < 1'000'000) return sign + trimmed(static_cast<double>(ns) / 1e3, 3, "µs");
  if (ns < 1'000'000'000) return sign + trimmed(static_cast<double>(ns) / 1e6, 6, "ms");
  const int64_t hours = ns / 3'600'000'000'000;
  const int64_t minutes = ns / 60'000'000'000 % 60;
  std::string text = sign;
  if (hours > 0) text += std::to_string(hours) + "h";
  if (hours > 0 || minutes > 0) text += std::to_string(minutes) + "m";
  return text + trimmed(static_cast<double>(ns % 60'000'000'000) / 1e9, 9, "s");
}

}  // namespace dsctl::commands
