// The Hugging Face Hub: its API's answers, and the Source that asks it. Works with mirrors, which
// have the same paths.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "registry/sources/source.h"

namespace dsctl::registry {

/// The answer of /api/models/{id}.
struct HfModelInfo {
  std::string commit;  // 40 hex digits
  bool is_gated = false;
  bool is_disabled = false;
};

/// Reads an answer; `what` names it in errors. Throws Error.
HfModelInfo parse_hf_model_info(std::string_view json, const std::string& what);

/// Reads one page of /api/models/{id}/tree/{rev}: its files, without `locate`. Throws Error.
std::vector<RemoteFile> parse_hf_tree(std::string_view json, const std::string& what);

/// The query of the next page from a header `Link: <url>; rel="next"`, or nothing.
std::optional<std::string> next_page_query(std::string_view link_header);

/// The user's token: HF_TOKEN, else the file that HF_TOKEN_PATH, HF_HOME or the default names.
/// Empty when there is none.
std::string hf_token();

std::unique_ptr<Source> make_hugging_face(const HttpOptions& http);

}  // namespace dsctl::registry
