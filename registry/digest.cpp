#include "registry/digest.h"

#include <openssl/evp.h>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::optional<Digest> Digest::parse(std::string_view text) {
  constexpr std::string_view kPrefix = "sha256";
  if (text.size() != kPrefix.size() + 1 + 64 || !text.starts_with(kPrefix)) return std::nullopt;
  const char separator = text[kPrefix.size()];
  if (separator != ':' && separator != '-') return std::nullopt;
  text.remove_prefix(kPrefix.size() + 1);
  Digest digest;
  for (size_t i = 0; i < digest.bytes.size(); ++i) {
    const int high = hex_value(text[2 * i]);
    const int low = hex_value(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    digest.bytes[i] = static_cast<uint8_t>(high * 16 + low);
  }
  return digest;
}

Digest Digest::of(std::string_view content) {
  Hasher hasher;
  hasher.update(std::as_bytes(std::span(content)));
  return hasher.finish();
}

std::string Digest::hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(64);
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string Digest::short_hex() const {
  return hex().substr(0, 12);
}

std::string Digest::to_string() const {
  return "sha256:" + hex();
}

std::string Digest::file_name() const {
  return "sha256-" + hex();
}

struct Hasher::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  Context() { start(); }
  ~Context() { EVP_MD_CTX_free(evp); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  void start() {
    if (!evp || EVP_DigestInit_ex(evp, EVP_sha256(), nullptr) != 1) {
      throw Error("sha256: the crypto library can't start a digest");
    }
  }
};

Hasher::Hasher() : context_(std::make_unique<Context>()) {}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(std::span<const std::byte> data) {
  if (EVP_DigestUpdate(context_->evp, data.data(), data.size()) != 1) {
    throw Error("sha256: the crypto library can't digest data");
  }
}

Digest Hasher::finish() {
  Digest digest;
  unsigned int size = 0;
  if (EVP_DigestFinal_ex(context_->evp, digest.bytes.data(), &size) != 1 ||
      size != digest.bytes.size()) {
    throw Error("sha256: the crypto library can't finish a digest");
  }
  context_->start();
  return digest;
}

}  // namespace dsctl::registry
