#include "registry/sources/lfs_pointer.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "registry/error.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/source.h"

namespace dsctl::registry {
namespace {

constexpr std::string_view kVersions[] = {"https://git-lfs.github.com/spec/v1",
                                          "https://hawser.github.com/spec/v1"};
constexpr std::string_view kBegins[] = {"version https://git-lfs", "version https://hawser"};

[[noreturn]] void fail(const std::string& why) {
  throw Error("git-lfs pointer: " + why);
}

/// Cuts the first line off `rest`.
std::string_view take_line(std::string_view& rest) {
  const size_t end = rest.find('\n');
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return line;
}

bool is_key(std::string_view key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-';
  });
}

Digest parse_oid(std::string_view value) {
  const std::optional<Digest> digest =
      value.starts_with("sha256:") ? Digest::parse(value) : std::nullopt;
  if (!digest || digest->to_string() != value) {
    fail("oid \"" + printable_text(value) + "\", expected sha256: and 64 lower-case hex digits");
  }
  return *digest;
}

int64_t parse_size(std::string_view value) {
  int64_t size = -1;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), size);
  if (error != std::errc() || end != value.data() + value.size() || size < 0 ||
      size > kMaxRemoteFileBytes) {
    fail("size \"" + printable_text(value) + "\" is no size of a file");
  }
  return size;
}

}  // namespace

bool LfsPointer::is_pointer(std::string_view content) {
  return content.size() < kMaxBytes &&
         std::any_of(std::begin(kBegins), std::end(kBegins),
                     [&](std::string_view begin) { return content.starts_with(begin); });
}

LfsPointer LfsPointer::parse(std::string_view content) {
  if (content.size() >= kMaxBytes) {
    fail(std::to_string(content.size()) + " bytes, expected fewer than 1024");
  }
  std::string_view rest = content;
  const std::string_view version = take_line(rest);
  if (!version.starts_with("version ") || std::find(std::begin(kVersions), std::end(kVersions),
                                                    version.substr(8)) == std::end(kVersions)) {
    fail("first line \"" + printable_text(version) + "\", expected \"version " +
         std::string(kVersions[0]) + "\"");
  }
  std::optional<Digest> oid;
  std::optional<int64_t> size;
  std::string_view last_key;
  while (!rest.empty()) {
    const std::string_view line = take_line(rest);
    const size_t space = line.find(' ');
    const std::string_view key = line.substr(0, space);
    if (space == std::string_view::npos || !is_key(key)) {
      fail("line \"" + printable_text(line) + "\", expected \"key value\"");
    }
    if (key <= last_key) fail("key " + std::string(key) + " is twice there or out of order");
    last_key = key;
    if (key == "oid") oid = parse_oid(line.substr(space + 1));
    if (key == "size") size = parse_size(line.substr(space + 1));
  }
  if (!oid) fail("oid is missing");
  if (!size) fail("size is missing");
  return {*oid, *size};
}

}  // namespace dsctl::registry
