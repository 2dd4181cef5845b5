#include "registry/sources/auth_challenge.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <map>
#include <memory>

#include "registry/digest.h"
#include "registry/error.h"
#include "registry/model_name.h"
#include "registry/sources/credentials.h"
#include "registry/sources/remote_url.h"
#include "registry/url.h"

namespace dsctl::registry {
namespace {

constexpr size_t kMaxHeaderBytes = 8192;

void skip_spaces(std::string_view& rest) {
  while (!rest.empty() && (rest.front() == ' ' || rest.front() == '\t'))
    rest.remove_prefix(1);
}

/// name="value" or name=value; false when there is none.
bool take_parameter(std::string_view& rest, std::string& name, std::string& value) {
  skip_spaces(rest);
  const size_t equals = rest.find('=');
  if (equals == std::string_view::npos || equals == 0) return false;
  name.assign(rest.substr(0, equals));
  rest.remove_prefix(equals + 1);
  value.clear();
  if (!rest.starts_with('"')) {
    const size_t end = std::min(rest.find_first_of(", "), rest.size());
    value.assign(rest.substr(0, end));
    rest.remove_prefix(end);
    return true;
  }
  size_t i = 1;
  for (; i < rest.size() && rest[i] != '"'; ++i) {
    if (rest[i] == '\\' && i + 1 < rest.size()) ++i;
    value += rest[i];
  }
  if (i >= rest.size()) return false;
  rest.remove_prefix(i + 1);
  return true;
}

/// Reads the length-prefixed strings of the OpenSSH format.
class SshReader {
 public:
  explicit SshReader(std::string_view bytes) : rest_(bytes) {}

  uint32_t number() {
    const std::string_view bytes = take(4);
    uint32_t value = 0;
    for (const char c : bytes)
      value = value << 8 | static_cast<uint8_t>(c);
    return value;
  }
  std::string_view text() { return take(number()); }
  std::string_view take(size_t n) {
    if (n > rest_.size()) throw Error("is cut short");
    const std::string_view bytes = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return bytes;
  }

 private:
  std::string_view rest_;
};

SigningKey read_key(std::string_view bytes) {
  constexpr std::string_view kMagic("openssh-key-v1\0", 15);
  SshReader file(bytes);
  if (file.take(kMagic.size()) != kMagic) throw Error("is no OpenSSH key");
  const std::string_view cipher = file.text();
  file.text();  // how the passphrase would be used
  file.text();
  if (cipher != "none") throw Error("is protected by a passphrase");
  if (file.number() != 1) throw Error("holds more than one key");
  SigningKey key;
  key.public_blob = file.text();
  SshReader secret(file.text());
  secret.number();  // the same random number twice
  secret.number();
  if (secret.text() != "ssh-ed25519") throw Error("is no ed25519 key");
  secret.text();
  const std::string_view pair = secret.text();  // seed and public key
  if (pair.size() != 64) throw Error("holds a key of a wrong size");
  std::copy_n(pair.begin(), key.seed.size(), key.seed.begin());
  return key;
}

}  // namespace

std::optional<AuthChallenge> AuthChallenge::parse(std::string_view header) {
  if (header.size() > kMaxHeaderBytes || !starts_with_ignoring_case(header, "bearer ")) {
    return std::nullopt;
  }
  std::string_view rest = header.substr(7);
  AuthChallenge challenge;
  std::string name;
  std::string value;
  while (take_parameter(rest, name, value)) {
    if (name == "realm") challenge.realm = value;
    if (name == "service") challenge.service = value;
    if (name == "scope") challenge.scope = value;
    skip_spaces(rest);
    if (!rest.starts_with(',')) break;
    rest.remove_prefix(1);
  }
  const std::optional<Url> realm = Url::parse(challenge.realm);
  if (!realm || (realm->scheme != "https" && realm->scheme != "http")) return std::nullopt;
  return challenge;
}

std::string AuthChallenge::token_url(std::string_view nonce, int64_t unix_time) const {
  const std::optional<Url> url = Url::parse(realm);
  std::string query = "nonce=" + percent_encode(nonce);
  // Every scope is a parameter of its own.
  for (std::string_view rest = scope; !rest.empty();) {
    const size_t end = std::min(rest.find(' '), rest.size());
    if (end > 0) query += "&scope=" + percent_encode(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  query += "&service=" + percent_encode(service) + "&ts=" + std::to_string(unix_time);
  return url->origin() + url->path + "?" + query;
}

SigningKey SigningKey::parse(std::string_view pem) {
  constexpr std::string_view kBegin = "-----BEGIN OPENSSH PRIVATE KEY-----";
  constexpr std::string_view kEnd = "-----END OPENSSH PRIVATE KEY-----";
  const size_t begin = pem.find(kBegin);
  const size_t end = pem.find(kEnd);
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) {
    throw Error("is no OpenSSH private key");
  }
  std::string text;
  for (const char c : pem.substr(begin + kBegin.size(), end - begin - kBegin.size())) {
    if (c != '\n' && c != '\r') text += c;
  }
  const std::optional<std::string> bytes = base64_decode(text);
  if (!bytes) throw Error("is no OpenSSH private key");
  return read_key(*bytes);
}

std::string SigningKey::authorize(std::string_view url) const {
  const std::string empty_hash = base64_encode(Digest::of("").hex());
  const std::string message = "GET," + std::string(url) + "," + empty_hash;
  const std::unique_ptr<EVP_PKEY, decltype(&::EVP_PKEY_free)> key(
      ::EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size()),
      &::EVP_PKEY_free);
  const std::unique_ptr<EVP_MD_CTX, decltype(&::EVP_MD_CTX_free)> context(::EVP_MD_CTX_new(),
                                                                          &::EVP_MD_CTX_free);
  std::string signature(64, '\0');
  size_t size = signature.size();
  if (!key || !context ||
      ::EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
      ::EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                       reinterpret_cast<const unsigned char*>(message.data()),
                       message.size()) != 1) {
    throw Error("can't sign with the ed25519 key");
  }
  return base64_encode(public_blob) + ":" + base64_encode(signature);
}

std::string random_nonce() {
  std::array<unsigned char, 16> bytes{};
  if (::RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    throw Error("the system gives no random numbers");
  }
  std::string text = base64_encode({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  text.resize(text.find_last_not_of('=') + 1);
  std::replace(text.begin(), text.end(), '+', '-');
  std::replace(text.begin(), text.end(), '/', '_');
  return text;
}

}  // namespace dsctl::registry
