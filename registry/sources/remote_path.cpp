#include "registry/sources/remote_path.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "registry/error.h"
#include "registry/file_io.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxPathBytes = 2048;
constexpr size_t kMaxPartBytes = 255;

/// Bytes of the UTF-8 character at `text`, or 0 when there is none.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, and what lies beyond U+10FFFF.
  if (first == 0xe0 && byte(1) < 0xa0) return 0;
  if (first == 0xed && byte(1) > 0x9f) return 0;
  if (first == 0xf0 && byte(1) < 0x90) return 0;
  if (first == 0xf4 && byte(1) > 0x8f) return 0;
  return length;
}

bool is_control(char c) {
  return static_cast<uint8_t>(c) < 0x20 || c == 0x7f;
}

bool is_reserved(std::string_view part) {
  std::string lower(part);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return lower == ".git" || lower == ".dsctl";
}

std::string part_complaint(std::string_view part) {
  if (part.empty()) return "has an empty part";
  if (part == "." || part == "..") return "has the part \"" + std::string(part) + "\"";
  if (part.size() > kMaxPartBytes) return "has a part of more than 255 bytes";
  if (is_reserved(part)) return "lies in the reserved folder " + std::string(part);
  return "";
}

std::string path_complaint(std::string_view path) {
  if (path.empty()) return "is empty";
  if (path.size() > kMaxPathBytes)
    return "has more than " + std::to_string(kMaxPathBytes) + " bytes";
  if (path.front() == '/') return "is absolute";
  for (size_t i = 0; i < path.size();) {
    if (is_control(path[i])) return "contains a control character";
    if (path[i] == '\\') return "contains a backslash";
    const size_t length = utf8_length(path.substr(i));
    if (length == 0) return "is no valid UTF-8";
    i += length;
  }
  for (std::string_view rest = path;;) {
    const size_t slash = rest.find('/');
    if (std::string complaint = part_complaint(rest.substr(0, slash)); !complaint.empty()) {
      return complaint;
    }
    if (slash == std::string_view::npos) return "";
    rest.remove_prefix(slash + 1);
  }
}

}  // namespace

std::string printable_text(std::string_view text) {
  constexpr size_t kMaxBytes = 200;
  std::string shown;
  for (size_t i = 0; i < text.size() && shown.size() < kMaxBytes;) {
    const size_t length = is_control(text[i]) ? 0 : utf8_length(text.substr(i));
    shown += length == 0 ? std::string_view("?") : text.substr(i, length);
    i += std::max<size_t>(length, 1);
  }
  if (shown.size() >= kMaxBytes) shown += "...";
  return shown;
}

std::string checked_remote_path(std::string_view path, std::string_view where) {
  if (const std::string complaint = path_complaint(path); !complaint.empty()) {
    throw Error(std::string(where) + ": the file name \"" + printable_text(path) + "\" " +
                complaint + "; refused");
  }
  return std::string(path);
}

fs::path local_path_below(const fs::path& root, const std::string& path) {
  create_directories_synced(root);
  fs::path dir = root;
  std::string_view rest = path;
  for (size_t slash = rest.find('/'); slash != std::string_view::npos; slash = rest.find('/')) {
    dir /= rest.substr(0, slash);
    rest.remove_prefix(slash + 1);
    struct stat status {};
    if (::mkdir(dir.c_str(), 0755) != 0 && errno != EEXIST) {
      throw_errno(dir, "can't create the directory");
    }
    if (::lstat(dir.c_str(), &status) != 0) throw_errno(dir, "can't stat");
    if (S_ISLNK(status.st_mode)) {
      throw Error(dir.string() + ": is a symbolic link; files of a repository are not written " +
                  "through links, remove it or choose another --local-dir");
    }
    if (!S_ISDIR(status.st_mode)) throw Error(dir.string() + ": is no directory");
  }
  return dir / rest;
}

}  // namespace dsctl::registry
