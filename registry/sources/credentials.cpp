#include "registry/sources/credentials.h"

#include <openssl/evp.h>

#include <algorithm>
#include <filesystem>

#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/sources/huggingface.h"

namespace dsctl::registry {
namespace {

constexpr size_t kMaxNetrcBytes = 1 << 20;

/// The next word of a netrc file; empty at the end.
std::string take_word(std::string_view& rest) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  while (!rest.empty() && (is_space(rest.front()) || rest.front() == '#')) {
    const bool comment = rest.front() == '#';
    rest.remove_prefix(comment ? std::min(rest.find('\n'), rest.size()) : 1);
  }
  std::string word;
  if (rest.starts_with('"')) {
    size_t i = 1;
    for (; i < rest.size() && rest[i] != '"'; ++i) {
      if (rest[i] == '\\' && i + 1 < rest.size()) ++i;
      word += rest[i];
    }
    rest.remove_prefix(std::min(i + 1, rest.size()));
    return word;
  }
  while (!rest.empty() && !is_space(rest.front())) {
    word += rest.front();
    rest.remove_prefix(1);
  }
  return word;
}

bool ends_with_host(const std::string& host, std::string_view domain) {
  return host == domain || (host.size() > domain.size() && host.ends_with(domain) &&
                            host[host.size() - domain.size() - 1] == '.');
}

}  // namespace

std::optional<Credentials> parse_netrc(std::string_view text, std::string_view host) {
  std::optional<Credentials> found;
  Credentials current;
  bool matches = false;
  bool is_default = false;
  const auto end_entry = [&] {
    if (matches || (is_default && !found)) found = current;
    const bool done = matches;
    matches = is_default = false;
    current = {};
    return done;
  };
  while (!text.empty()) {
    const std::string word = take_word(text);
    if (word == "machine" || word == "default") {
      if (end_entry()) return found;
      is_default = word == "default";
      matches = !is_default && take_word(text) == host;
    } else if (word == "login") {
      current.user = take_word(text);
    } else if (word == "password") {
      current.password = take_word(text);
    } else if (word == "account") {
      take_word(text);
    } else if (word == "macdef") {
      const size_t end = text.find("\n\n");  // a macro ends with an empty line
      text.remove_prefix(end == std::string_view::npos ? text.size() : end);
    }
  }
  end_entry();
  return found;
}

std::optional<Credentials> find_credentials(const Url& url) {
  if (!url.user.empty()) return Credentials{url.user, url.password};
  const std::string password = environment_value("DSCTL_GIT_PASSWORD");
  if (!password.empty()) {
    const std::string user = environment_value("DSCTL_GIT_USERNAME");
    return Credentials{user.empty() ? "git" : user, password};
  }
  if (ends_with_host(url.host, "huggingface.co") || url.host == "hf.co") {
    if (const std::string token = hf_token(); !token.empty()) return Credentials{"hf_user", token};
  }
  if (ends_with_host(url.host, "modelscope.cn") || ends_with_host(url.host, "modelscope.ai")) {
    const std::string token = environment_value("MODELSCOPE_API_TOKEN");
    if (!token.empty()) return Credentials{"oauth2", token};
  }
  std::filesystem::path path = environment_value("NETRC");
  const std::string home = environment_value("HOME");
  if (path.empty() && !home.empty()) path = std::filesystem::path(home) / ".netrc";
  if (path.empty()) return std::nullopt;
  const std::optional<std::string> text = read_small_file(path, kMaxNetrcBytes);
  return text ? parse_netrc(*text, url.host) : std::nullopt;
}

std::string base64_encode(std::string_view bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int length = ::EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                       reinterpret_cast<const unsigned char*>(bytes.data()),
                                       static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(length));
  return text;
}

std::optional<std::string> base64_decode(std::string_view text) {
  if (text.size() % 4 != 0 || text.size() > (1u << 24)) return std::nullopt;
  const bool fits = std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/' || c == '=';
  });
  if (!fits) return std::nullopt;
  std::string bytes(text.size() / 4 * 3 + 1, '\0');
  const int length = ::EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                       reinterpret_cast<const unsigned char*>(text.data()),
                                       static_cast<int>(text.size()));
  if (length < 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  bytes.resize(static_cast<size_t>(length) - padding);
  return bytes;
}

std::string basic_authorization(const Credentials& credentials) {
  return "Authorization: Basic " + base64_encode(credentials.user + ":" + credentials.password);
}

}  // namespace dsctl::registry
