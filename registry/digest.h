// Digest: the SHA-256 that names a blob, and the ways to compute one.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace dsctl::registry {

/// A SHA-256 value.
struct Digest {
  std::array<uint8_t, 32> bytes{};

  /// Reads "sha256:<64 hex>" or "sha256-<64 hex>"; nothing when `text` is anything else.
  static std::optional<Digest> parse(std::string_view text);
  /// The digest of `content`.
  static Digest of(std::string_view content);

  std::string hex() const;        // 64 lower-case digits
  std::string short_hex() const;  // the first 12: Ollama's ID
  std::string to_string() const;  // "sha256:<hex>", as manifests write it
  std::string file_name() const;  // "sha256-<hex>", as blobs are called

  auto operator<=>(const Digest&) const = default;
};

/// Computes one digest over data that arrives in pieces. OpenSSL picks the processor's SHA
/// instructions where there are any.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  void update(std::span<const std::byte> data);
  /// The digest of everything so far; the hasher starts anew.
  Digest finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace dsctl::registry
