#include "registry/digest.h"

#include "tests/support/catch.h"

namespace dsctl::registry {
namespace {

// FIPS 180-4 examples.
constexpr const char* kEmpty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr const char* kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST_CASE("Digest of known texts") {
  CHECK(Digest::of("").hex() == kEmpty);
  CHECK(Digest::of("abc").hex() == kAbc);
  CHECK(Digest::of("abc").to_string() == std::string("sha256:") + kAbc);
  CHECK(Digest::of("abc").file_name() == std::string("sha256-") + kAbc);
  CHECK(Digest::of("abc").short_hex() == "ba7816bf8f01");
}

TEST_CASE("Hasher gives the same digest for any pieces and starts anew") {
  const std::string text(100'000, 'x');
  Hasher hasher;
  for (size_t pos = 0; pos < text.size(); pos += 777) {
    hasher.update(
        std::as_bytes(std::span(text).subspan(pos, std::min<size_t>(777, text.size() - pos))));
  }
  CHECK(hasher.finish() == Digest::of(text));
  CHECK(hasher.finish().hex() == kEmpty);
}

TEST_CASE("Digest reads both spellings and nothing else") {
  const Digest abc = Digest::of("abc");
  CHECK(Digest::parse(abc.to_string()) == abc);
  CHECK(Digest::parse(abc.file_name()) == abc);
  for (const std::string& text :
       {std::string(), std::string("sha256:"), std::string(kAbc), "sha256:" + std::string(63, 'a'),
        "sha256:" + std::string(65, 'a'), "sha256/" + std::string(64, 'a'),
        "sha512:" + std::string(64, 'a'), "sha256:" + std::string(63, 'a') + "g",
        "sha256-" + std::string(64, 'a') + "-partial"}) {
    CAPTURE(text);
    CHECK_FALSE(Digest::parse(text).has_value());
  }
}

}  // namespace
}  // namespace dsctl::registry
