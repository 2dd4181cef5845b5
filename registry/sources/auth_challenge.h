// What a container registry answers to a request without a token, and how Ollama's key signs the
// request for one.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dsctl::registry {

/// A header `WWW-Authenticate: Bearer realm="...",service="...",scope="..."`.
struct AuthChallenge {
  std::string realm;
  std::string service;
  std::string scope;

  /// Nothing when the header asks for something else than a bearer token, or is malformed.
  static std::optional<AuthChallenge> parse(std::string_view header);

  /// Where to ask for the token: the realm with nonce, scope, service and ts (Unix time) in its
  /// query, keys sorted.
  std::string token_url(std::string_view nonce, int64_t unix_time) const;
};

/// An Ed25519 key as `ssh-keygen` writes it, without passphrase: ~/.ollama/id_ed25519.
struct SigningKey {
  std::array<uint8_t, 32> seed{};
  std::string public_blob;  // "ssh-ed25519" and the key, as authorized_keys has it in base64

  /// Throws Error saying what is wrong with the file.
  static SigningKey parse(std::string_view pem);

  /// Ollama's Authorization value for a GET of `url`: "<base64 public key>:<base64 signature>".
  std::string authorize(std::string_view url) const;
};

/// 16 random bytes, base64url without padding.
std::string random_nonce();

}  // namespace dsctl::registry
