#include "gguf/foreign_file.h"

#include <string>

#include "gguf/gguf_file.h"
#include "gguf/printable.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

std::string description(std::string_view text) {
  return describe_foreign_file(std::as_bytes(std::span(text)));
}

TEST_CASE("describe_foreign_file says what a wrong download is") {
  const auto check = [](std::string_view text, const std::string& expected) {
    const std::string message = description(text);
    INFO(message);
    CHECK(message.find(expected) != std::string::npos);
  };
  using namespace std::string_view_literals;
  check(
      "version https://git-lfs.github.com/spec/v1\n"
      "oid sha256:4665cf41e0ac9a1f07af2a9aa8fe8f2ff86e1bf7a4da8a9a1d9d0d6ba64fbb6d\nsize 91\n",
      "is a Git-LFS pointer");
  check("<!DOCTYPE html><html><body>404</body></html>", "is an HTML page");
  check("\n  <HTML lang=en>", "is an HTML page");
  check("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "is an XML document");
  check("{\"error\":\"Repository not found\"}", "it starts with: {\"error\":\"Repository");
  check("Entry not found", "is a text file, not a GGUF file; it starts with: Entry not found");
  check("PK\x03\x04\x14\0\0\0"sv, "zip archive");
  check("\x1f\x8b\x08\0"sv, "gzip");
  check("\x28\xb5\x2f\xfd\x04"sv, "zstd");
  check("\x80\x02\x8a\x0a"sv, "pickle");
  check("tjgg\x03\0\0\0"sv, "GGJT");
  check("\x02\0\0\0\0\0\0\0{}"sv, "safetensors");
  check(
      "\x7f"
      "ELF\x02",
      "is a program");
  check(std::string_view("\0\0\0\0\0\0\0\0", 8), "starts with zeros");
  check("\x01\x02\x03\x1b[31m", "starts with '\\x01\\x02\\x03\\x1b'");
  check("", "is empty");
}

TEST_CASE("describe_foreign_file does not take every small number for safetensors") {
  using namespace std::string_view_literals;
  CHECK(description("\xff\xff\xff\0\0\0\0\0{}"sv).find("safetensors") == std::string::npos);
  CHECK(description("\x02\0\0\0\0\0\0\0[]"sv).find("safetensors") == std::string::npos);
}

TEST_CASE("GgufFile names a foreign file in its error") {
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  tests::write_text(path, "version https://git-lfs.github.com/spec/v1\n");
  const std::string message = tests::error_of([&] { GgufFile::open(path); });
  CHECK(message.starts_with(path.string() + ": is a Git-LFS pointer"));
}

TEST_CASE("printable keeps text and escapes what a terminal would obey") {
  CHECK(printable("plain") == "plain");
  CHECK(printable("\xe4\xbd\xa0\xe5\xa5\xbd") == "\xe4\xbd\xa0\xe5\xa5\xbd");
  CHECK(printable("a\nb\x1b[0m\x7f") == "a\\x0ab\\x1b[0m\\x7f");
  CHECK(printable("\xff\xc3") == "\\xff\\xc3");
  CHECK(printable("\xc2\x9b") == "\\xc2\\x9b");           // a C1 code: CSI in one character
  CHECK(printable("\xc0\xaf") == "\\xc0\\xaf");           // overlong
  CHECK(printable("\xed\xa0\x80") == "\\xed\\xa0\\x80");  // a surrogate
  CHECK(printable(std::string(100, 'a'), 10) == std::string(10, 'a') + "...");
}

}  // namespace
}  // namespace dsctl::gguf
