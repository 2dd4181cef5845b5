// Strings as Python sees them, sequences of code points, on top of UTF-8 bytes: what the string
// methods, slices and repr of templates need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::templates::jinja {

/// One code point and how many bytes it takes.
struct CodePoint {
  uint32_t code;
  size_t size_bytes;
};

/// The code point at byte `pos`. A byte that is no valid UTF-8 counts as one code point of its own,
/// 0xDC00 + byte (as Python's surrogateescape does), and append_code writes that byte back.
CodePoint decode(std::string_view text, size_t pos);
void append_code(std::string& out, uint32_t code);
std::vector<uint32_t> decode_all(std::string_view text);

bool is_ascii(std::string_view text);
/// Number of code points.
size_t code_length(std::string_view text);
/// Byte offset of code point `index`, or the size when there are fewer.
size_t byte_offset(std::string_view text, size_t index);

bool is_space(uint32_t code);
bool is_alpha(uint32_t code);
bool is_decimal(uint32_t code);
bool is_digit(uint32_t code);
bool is_numeric(uint32_t code);
bool is_alnum(uint32_t code);
bool is_lower(uint32_t code);
bool is_upper(uint32_t code);
bool is_title(uint32_t code);
bool is_cased(uint32_t code);
bool is_printable(uint32_t code);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
/// str.title: every run of letters with a capital first.
std::string to_title(std::string_view text);
/// str.capitalize: a capital first, the rest lower.
std::string capitalize(std::string_view text);
std::string swap_case(std::string_view text);

std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
/// Strips any of the code points of `chars`.
std::string_view strip_left(std::string_view text, std::string_view chars);
std::string_view strip_right(std::string_view text, std::string_view chars);

/// Where `wanted` starts, at or after byte `from`, or npos; takes linear time for any strings,
/// which std::string::find doesn't promise.
size_t find_text(std::string_view text, std::string_view wanted, size_t from);

/// str.splitlines: every line break of Unicode ends a line.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

}  // namespace dsctl::templates::jinja
