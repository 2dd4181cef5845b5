// What the files of filters share.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "templates/jinja/callable.h"

namespace dsctl::templates::jinja {

struct NamedFilter {
  std::string_view name;
  FilterBody body;
};

/// The filters over lists and dicts: join, map, select, sort, ...
std::span<const NamedFilter> sequence_filters();

/// Python's int(text, base) and float(text); nothing where they raise ValueError.
std::optional<Int> parse_int(std::string_view text, Int base);
std::optional<double> parse_float(std::string_view text);

}  // namespace dsctl::templates::jinja
