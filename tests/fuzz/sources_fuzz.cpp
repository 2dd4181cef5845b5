// What servers and users say of files elsewhere: lists, batches, pointers, challenges, names,
// patterns. The first byte chooses the parser, so that one corpus serves all.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "registry/error.h"
#include "registry/sources/auth_challenge.h"
#include "registry/sources/credentials.h"
#include "registry/sources/glob.h"
#include "registry/sources/huggingface.h"
#include "registry/sources/lfs_batch.h"
#include "registry/sources/lfs_pointer.h"
#include "registry/sources/modelscope.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/signed_url.h"
#include "registry/sources/variants.h"

namespace {

using namespace dsctl::registry;  // NOLINT: a program of its own

void require(bool holds) {
  if (!holds) std::abort();
}

/// What every list of a server must come out as: names that stay inside, sizes that add up.
void check_files(const std::vector<RemoteFile>& files) {
  for (const RemoteFile& file : files) {
    require(checked_remote_path(file.path, "again") == file.path);
    require(file.size_bytes >= 0 && file.size_bytes <= kMaxRemoteFileBytes);
    const std::filesystem::path joined =
        (std::filesystem::path("/root") / file.path).lexically_normal();
    require(joined.string().starts_with("/root/"));
  }
  const GroupedFiles grouped = group_files(files);
  for (const RemoteVariant& variant : grouped.variants) {
    require(!variant.file_idxs.empty() && !variant.label.empty());
    for (const size_t file_idx : variant.file_idxs)
      require(file_idx < files.size());
    find_variant(grouped.variants, files, variant.label);
  }
  choose_projector(grouped.projector_idxs, files);
}

void check_ref(std::string_view text) {
  static constexpr std::string_view kSources[] = {"auto", "hf", "modelscope", "ollama", "git"};
  const std::string_view source = kSources[text.empty() ? 0 : static_cast<uint8_t>(text[0]) % 5];
  const RemoteRef ref = RemoteRef::parse(text, source);
  require(!ref.repo.empty() && !ref.endpoint.empty());
  const ModelName name = ref.model_name(ref.selector);
  for (const auto& part : name.relative_path())
    require(part != ".." && part != "." && !part.is_absolute());
  if (!ref.path.empty()) require(checked_remote_path(ref.path, "again") == ref.path);
  require(!ref.display().empty());
}

void check_pointer(std::string_view text) {
  const LfsPointer pointer = LfsPointer::parse(text);
  require(LfsPointer::is_pointer(text) && pointer.size_bytes >= 0);
}

void check_glob(std::string_view text) {
  const size_t cut = std::min(text.find('\n'), text.size());
  const std::string_view path = text.substr(std::min(cut + 1, text.size()));
  const LfsFilter include(text.substr(0, cut), "");
  const LfsFilter exclude("", text.substr(0, cut));
  if (!include.is_empty()) require(include.wants(path) != exclude.wants(path));
}

void check_headers(std::string_view text) {
  if (const auto challenge = AuthChallenge::parse(text)) {
    const std::string url = challenge->token_url(text.substr(0, 32), 7);
    require(url.find('\n') == std::string::npos && url.find(' ') == std::string::npos);
  }
  if (const auto query = next_page_query(text)) {
    require(query->find('\n') == std::string::npos && query->find(' ') == std::string::npos);
  }
  signed_url_expiry(text);
  parse_netrc(text, "host");
}

void check_batch(std::string_view text) {
  for (const LfsAnswer& answer : parse_lfs_batch(text, "batch")) {
    require(answer.error_code != 0 || answer.url.starts_with("http"));
    for (const std::string& line : answer.headers)
      require(line.find('\n') == std::string::npos && line.find('\r') == std::string::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0] % 9) {
      case 0:
        check_files(parse_hf_tree(text, "tree"));
        break;
      case 1:
        check_files(parse_modelscope_files(text, "files"));
        break;
      case 2:
        check_batch(text);
        break;
      case 3:
        check_pointer(text);
        break;
      case 4:
        check_headers(text);
        break;
      case 5:
        check_ref(text);
        break;
      case 6:
        check_glob(text);
        break;
      case 7:
        parse_hf_model_info(text, "info");
        break;
      case 8:
        SigningKey::parse(text);
        break;
    }
  } catch (const Error&) {
    // refused with a message: what is expected of broken input
  }
  return 0;
}
