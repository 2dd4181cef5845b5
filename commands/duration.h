// Go durations ("5m", "1h30m", "-1m"), as keep_alive has them and Ollama prints them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace dsctl::commands {

/// How long an idle model stays loaded. Negative durations of the user mean kForever.
using KeepAlive = std::chrono::nanoseconds;
inline constexpr KeepAlive kForever = KeepAlive::max();

/// A bare number, seconds as the environment and flags have it, is allowed or refused.
enum class BareNumber { kSeconds, kRefused };

/// Parses a Go duration: signed sums of decimals with units ns us ms s m h. Throws Error that
/// quotes `text`. Values beyond 292 years are kForever.
KeepAlive parse_keep_alive(std::string_view text, BareNumber bare_number);

/// The duration of `seconds`, with the rules of parse_keep_alive for negative and large values.
KeepAlive keep_alive_from_seconds(double seconds);

/// "1.234567s", "12.5ms", "2m3.5s": as Go prints a duration, which is what Ollama shows.
std::string format_duration(std::chrono::nanoseconds duration);

}  // namespace dsctl::commands
