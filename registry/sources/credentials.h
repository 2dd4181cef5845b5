// Credentials for git and LFS servers: from the URL, the environment, or ~/.netrc.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "registry/sources/remote_url.h"

namespace dsctl::registry {

struct Credentials {
  std::string user;
  std::string password;
};

/// What to say to `url`'s host when it asks: its own user info, else DSCTL_GIT_USERNAME and
/// DSCTL_GIT_PASSWORD, else HF_TOKEN and MODELSCOPE_API_TOKEN for those hubs' hosts, else the entry
/// of NETRC or ~/.netrc. Nothing when none of them knows it.
std::optional<Credentials> find_credentials(const Url& url);

/// The entry for `host` in the text of a netrc file, or its "default".
std::optional<Credentials> parse_netrc(std::string_view text, std::string_view host);

/// "Authorization: Basic ...".
std::string basic_authorization(const Credentials& credentials);

std::string base64_encode(std::string_view bytes);
/// Nothing when `text` is no base64 (standard alphabet, padded).
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace dsctl::registry
