#include "registry/http_headers.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace dsctl::registry {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

/// Takes what stands before `separator` off `text`; all of it when there is none.
std::string_view take_until(std::string_view& text, char separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view head = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return head;
}

/// Reads dates word by word.
struct DateReader {
  std::string_view rest;

  std::string_view word(std::string_view separators) {
    const size_t begin = std::min(rest.find_first_not_of(separators), rest.size());
    rest.remove_prefix(begin);
    const size_t end = std::min(rest.find_first_of(separators), rest.size());
    const std::string_view taken = rest.substr(0, end);
    rest.remove_prefix(end);
    return taken;
  }
};

std::optional<int> month_of(std::string_view name) {
  static constexpr std::array<std::string_view, 12> kNames{
      "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<int>(found - kNames.begin()) + 1;
}

/// Seconds of "hh:mm:ss", or nothing.
std::optional<int64_t> seconds_of_day(std::string_view text) {
  const auto hour = parse_decimal(take_until(text, ':'));
  const auto minute = parse_decimal(take_until(text, ':'));
  const auto second = parse_decimal(text);
  if (!hour || !minute || !second || *hour > 23 || *minute > 59 || *second > 60) {
    return std::nullopt;
  }
  return *hour * 3600 + *minute * 60 + *second;
}

}  // namespace

bool ResponseHead::add_line(std::string_view line) {
  if (line.starts_with("HTTP/")) {
    clear();
    std::string_view rest = line;
    take_until(rest, ' ');
    status_ = static_cast<int>(parse_decimal(rest.substr(0, 3)).value_or(0));
    return true;
  }
  size_bytes_ += line.size();
  if (size_bytes_ > kMaxBytes || headers_.size() >= kMaxHeaders) return false;
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return true;
  std::string name(trim(line.substr(0, colon)));
  std::transform(name.begin(), name.end(), name.begin(), lower);
  headers_.emplace(std::move(name), std::string(trim(line.substr(colon + 1))));
  return true;
}

void ResponseHead::clear() {
  status_ = 0;
  size_bytes_ = 0;
  headers_.clear();
}

std::optional<std::string_view> ResponseHead::find(std::string_view name) const {
  const auto past = headers_.upper_bound(std::string(name));
  if (past == headers_.begin()) return std::nullopt;
  const auto last = std::prev(past);
  if (last->first != name) return std::nullopt;
  return last->second;
}

std::optional<int64_t> parse_decimal(std::string_view text) {
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<ContentRange> parse_content_range(std::string_view text) {
  text = trim(text);
  if (!equals_ignoring_case(take_until(text, ' '), "bytes")) return std::nullopt;
  text = trim(text);
  std::string_view span = take_until(text, '/');
  ContentRange range;
  if (text != "*") {
    const auto total = parse_decimal(text);
    if (!total) return std::nullopt;
    range.total = *total;
  }
  if (span == "*") return range.total < 0 ? std::nullopt : std::optional(range);
  const auto first = parse_decimal(take_until(span, '-'));
  const auto last = parse_decimal(span);
  if (!first || !last || *last < *first || *last == INT64_MAX) return std::nullopt;
  range.begin = *first;
  range.end = *last + 1;
  if (range.total >= 0 && range.end > range.total) return std::nullopt;
  return range;
}

std::optional<int64_t> parse_http_date(std::string_view text) {
  // "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994".
  DateReader reader{trim(text)};
  const bool asctime = reader.rest.find(',') == std::string_view::npos;
  reader.word(" ");
  std::string_view day, month, year, time;
  if (asctime) {
    month = reader.word(" ");
    day = reader.word(" ");
    time = reader.word(" ");
    year = reader.word(" ");
  } else {
    day = reader.word(" -");
    month = reader.word(" -");
    year = reader.word(" -");
    time = reader.word(" ");
  }
  const auto day_number = parse_decimal(day);
  const auto month_number = month_of(month);
  auto year_number = parse_decimal(year);
  const auto seconds = seconds_of_day(time);
  if (!day_number || !month_number || !year_number || !seconds) return std::nullopt;
  if (*day_number < 1 || *day_number > 31 || *year_number > 9999) return std::nullopt;
  if (year.size() == 2) *year_number += *year_number < 70 ? 2000 : 1900;
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(*year_number)),
                                         std::chrono::month(static_cast<unsigned>(*month_number)),
                                         std::chrono::day(static_cast<unsigned>(*day_number))};
  if (!date.ok()) return std::nullopt;
  return int64_t{std::chrono::sys_days(date).time_since_epoch().count()} * 86'400 + *seconds;
}

std::optional<std::chrono::milliseconds> parse_retry_after(std::string_view text, int64_t now) {
  constexpr int64_t kDay = 86'400;  // more is nobody's intent, and can't overflow
  text = trim(text);
  std::optional<int64_t> seconds = parse_decimal(text);
  if (!seconds) {
    const auto date = parse_http_date(text);
    if (!date) return std::nullopt;
    seconds = std::max<int64_t>(0, *date - now);
  }
  return std::chrono::seconds(std::min(*seconds, kDay));
}

std::optional<std::string> parse_link(std::string_view text, std::string_view rel) {
  while (true) {
    const size_t open = text.find('<');
    if (open == std::string_view::npos) return std::nullopt;
    const size_t close = text.find('>', open);
    if (close == std::string_view::npos) return std::nullopt;
    const std::string_view target = text.substr(open + 1, close - open - 1);
    text.remove_prefix(close + 1);
    // Parameters reach to the next link; a comma inside quotes belongs to the value.
    bool quoted = false;
    size_t end = 0;
    while (end < text.size() && (quoted || text[end] != ','))
      quoted ^= text[end++] == '"';
    std::string_view parameters = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    while (!parameters.empty()) {
      std::string_view value = take_until(parameters, ';');
      const std::string_view name = trim(take_until(value, '='));
      value = trim(value);
      if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
        value = value.substr(1, value.size() - 2);
      }
      if (equals_ignoring_case(name, "rel") && equals_ignoring_case(value, rel)) {
        return std::string(target);
      }
    }
  }
}

}  // namespace dsctl::registry
