#include "gguf/foreign_file.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstring>

#include "gguf/printable.h"

namespace dsctl::gguf {
namespace {

bool starts_with_ignoring_case(std::string_view text, std::string_view lower_prefix) {
  if (text.size() < lower_prefix.size()) return false;
  return std::equal(lower_prefix.begin(), lower_prefix.end(), text.begin(), [](char a, char b) {
    return a == static_cast<char>(std::tolower(static_cast<unsigned char>(b)));
  });
}

bool is_safetensors(std::string_view text, size_t file_size) {
  if (text.size() < 9) return false;
  uint64_t header_size = 0;
  std::memcpy(&header_size, text.data(), sizeof(header_size));
  return header_size <= file_size - 8 && header_size >= 2 && text[8] == '{';
}

bool is_text(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 || byte == '\n' || byte == '\r' || byte == '\t';
  });
}

struct Magic {
  std::string_view bytes;
  std::string_view meaning;
};

constexpr std::string_view kConvert = "convert it to GGUF first";
constexpr std::array<Magic, 11> kMagics{{
    {"PK\x03\x04",
     "is a zip archive (or a PyTorch checkpoint), not a GGUF file: unpack or convert"},
    {"\x1f\x8b", "is gzip-compressed: unpack it first"},
    {"\x28\xb5\x2f\xfd", "is zstd-compressed: unpack it first"},
    {"\xfd"
     "7zXZ",
     "is xz-compressed: unpack it first"},
    {"BZh", "is bzip2-compressed: unpack it first"},
    {"\x80\x02", "is a Python pickle (a PyTorch checkpoint), not a GGUF file: convert it"},
    {"lmgg", "is a model in the old GGML format (before GGUF): get or make a GGUF of it"},
    {"fmgg", "is a model in the old GGMF format (before GGUF): get or make a GGUF of it"},
    {"tjgg", "is a model in the old GGJT format (before GGUF): get or make a GGUF of it"},
    {"algg", "is an adapter in the old GGLA format (before GGUF): get or make a GGUF of it"},
    {"\x7f"
     "ELF",
     "is a program, not a model"},
}};

/// True for the first line of a Git-LFS pointer, of today or of its first days.
bool is_pointer(std::string_view text) {
  return text.starts_with("version https://git-lfs") || text.starts_with("version https://hawser");
}

std::string describe_text(std::string_view text) {
  std::string_view body = text;
  while (!body.empty() && std::isspace(static_cast<unsigned char>(body.front()))) {
    body.remove_prefix(1);
  }
  if (starts_with_ignoring_case(body, "<!doctype html") ||
      starts_with_ignoring_case(body, "<html") || starts_with_ignoring_case(body, "<head")) {
    return "is an HTML page, not a GGUF file: the download got a web page (a login, an error or a "
           "file view); fetch the file itself again";
  }
  if (starts_with_ignoring_case(body, "<?xml")) {
    return "is an XML document, not a GGUF file: the download got an error answer; fetch it again";
  }
  const size_t line_end = std::min(body.find('\n'), body.size());
  const std::string start = printable(body.substr(0, std::min<size_t>(line_end, 80)));
  if (!body.empty() && (body.front() == '{' || body.front() == '[')) {
    return "is a JSON text, not a GGUF file: the download may have got an error answer; it starts "
           "with: " +
           start;
  }
  return "is a text file, not a GGUF file; it starts with: " + start;
}

}  // namespace

std::string describe_foreign_file(std::span<const std::byte> bytes) {
  if (bytes.empty()) return "is empty: the download has not started or failed; fetch it again";
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()),
                              std::min<size_t>(bytes.size(), 512));
  if (is_pointer(head)) {
    return "is a Git-LFS pointer, not the model itself: run `git lfs pull` in its repository or "
           "download the file";
  }
  if (std::all_of(head.begin(), head.end(), [](char c) { return c == '\0'; })) {
    return "starts with zeros where a GGUF file has its magic: the download is incomplete; fetch "
           "it again";
  }
  for (const Magic& magic : kMagics) {
    if (head.starts_with(magic.bytes)) return std::string(magic.meaning);
  }
  if (is_safetensors(head, bytes.size())) {
    return "is a safetensors file, not a GGUF file: " + std::string(kConvert);
  }
  if (is_text(head)) return describe_text(head);
  return "is no GGUF file: it starts with '" + printable(head.substr(0, 4)) + "', expected 'GGUF'";
}

std::optional<LfsPointer> parse_lfs_pointer(std::string_view text) {
  constexpr size_t kMaxBytes = 1024;
  constexpr std::string_view kOid = "oid sha256:";
  constexpr std::string_view kSize = "size ";
  if (text.size() >= kMaxBytes || !is_pointer(text)) return std::nullopt;
  LfsPointer pointer;
  bool has_size = false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.starts_with(kOid)) pointer.sha256 = line.substr(kOid.size());
    if (!line.starts_with(kSize)) continue;
    const char* const line_end = line.data() + line.size();
    const auto number = std::from_chars(line.data() + kSize.size(), line_end, pointer.size_bytes);
    has_size = number.ec == std::errc() && number.ptr == line_end && pointer.size_bytes >= 0;
  }
  const bool has_digest = pointer.sha256.size() == 64 &&
                          pointer.sha256.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!has_digest || !has_size) return std::nullopt;
  return pointer;
}

}  // namespace dsctl::gguf
