#include "commands/remote_headers.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>

#include "commands/error.h"
#include "gguf/shard_parser.h"
#include "gguf/split.h"
#include "registry/sources/variants.h"

namespace dsctl::commands {
namespace {

using registry::HttpClient;
using registry::HttpRequest;
using registry::HttpResponse;
using registry::RemoteFile;

// The first read has most headers of later shards; a vocabulary takes the second or third.
constexpr int64_t kFirstRead = 512 << 10;
constexpr int64_t kMaxHeader = 256 << 20;

/// "bytes 0-99/1234" taken apart.
struct ContentRange {
  int64_t begin = 0;
  int64_t total = -1;  // -1: "*"
};

std::optional<ContentRange> parse_content_range(std::string_view text) {
  constexpr std::string_view kUnit = "bytes ";
  if (!text.starts_with(kUnit)) return std::nullopt;
  text.remove_prefix(kUnit.size());
  ContentRange range;
  int64_t end = 0;
  const char* last = text.data() + text.size();
  auto parsed = std::from_chars(text.data(), last, range.begin);
  if (parsed.ec != std::errc() || parsed.ptr == last || *parsed.ptr != '-') return std::nullopt;
  parsed = std::from_chars(parsed.ptr + 1, last, end);
  if (parsed.ec != std::errc() || parsed.ptr == last || *parsed.ptr != '/') return std::nullopt;
  if (std::string_view(parsed.ptr + 1, last) == "*") return range;
  parsed = std::from_chars(parsed.ptr + 1, last, range.total);
  if (parsed.ec != std::errc() || parsed.ptr != last || range.total < 0) return std::nullopt;
  return range;
}

/// One remote file whose first bytes are gathered.
class HeaderReader {
 public:
  HeaderReader(const RemoteFile& file, HttpClient& client, std::stop_token stop)
      : file_(file), client_(client), stop_(std::move(stop)) {
    partial_.path = file.path;
    partial_.size_bytes = file.size_bytes;
  }

  gguf::PartialFile read() {
    int64_t wanted = kFirstRead;
    while (true) {
      if (partial_.size_bytes >= 0) wanted = std::min(wanted, partial_.size_bytes);
      if (wanted > kMaxHeader) {
        throw Error(file_.path + ": its header needs more than " +
                    std::to_string(kMaxHeader >> 20) + " MiB, which no model has");
      }
      extend(wanted);
      if (partial_.size_bytes < 0) {
        throw Error(file_.path + ": the server does not say how large the file is");
      }
      const auto have = static_cast<int64_t>(partial_.prefix.size());
      const int64_t needed =
          gguf::header_bytes_needed(partial_.path, partial_.prefix, partial_.size_bytes);
      if (needed <= have) return std::move(partial_);
      if (have >= partial_.size_bytes) throw Error(file_.path + ": is cut short");
      wanted = std::max(needed, 4 * have);
    }
  }

 private:
  void extend(int64_t wanted) {
    const auto have = static_cast<int64_t>(partial_.prefix.size());
    if (wanted <= have) return;
    if (!file_.local_copy.empty()) return extend_locally(wanted);
    const registry::DownloadUrl url = file_.locate();
    HttpRequest request;
    request.url = url.url;
    request.headers = url.headers;
    request.range = {have, wanted - 1};
    request.max_body_bytes = static_cast<size_t>(wanted);
    const HttpResponse response = client_.send(request, stop_);
    const std::string where = file_.path + ": " + registry::printable_url(response.url);
    if (response.status == 206) return append(response, have, wanted, where);
    // A server without ranges sends everything; what is more than wanted was cut.
    if (response.status != 200) {
      throw Error(where + ": answered " + std::to_string(response.status) +
                  " to a request for the first bytes");
    }
    const auto length = response.header("content-length");
    int64_t size = -1;
    if (length) std::from_chars(length->data(), length->data() + length->size(), size);
    set_size(size, where);
    set_prefix(response.body);
  }

  void append(const HttpResponse& response, int64_t have, int64_t wanted,
              const std::string& where) {
    const auto header = response.header("content-range");
    const auto range = header ? parse_content_range(*header) : std::nullopt;
    if (!range || range->begin != have) {
      throw Error(where + ": asked for bytes from " + std::to_string(have) + ", got \"" +
                  std::string(header.value_or("no content-range")) + "\"");
    }
    set_size(range->total, where);
    if (response.body.empty()) throw Error(where + ": sent no bytes");
    const std::string_view body =
        std::string_view(response.body).substr(0, static_cast<size_t>(wanted - have));
    const auto bytes = std::as_bytes(std::span(body));
    partial_.prefix.insert(partial_.prefix.end(), bytes.begin(), bytes.end());
  }

  void extend_locally(int64_t wanted) {
    std::ifstream in(file_.local_copy, std::ios::binary);
    std::string bytes(static_cast<size_t>(wanted), '\0');
    in.read(bytes.data(), wanted);
    bytes.resize(static_cast<size_t>(in.gcount()));
    if (bytes.empty()) throw Error(file_.local_copy.string() + ": can't be read");
    set_prefix(bytes);
  }

  void set_size(int64_t size, const std::string& where) {
    if (size < 0) return;
    if (partial_.size_bytes >= 0 && partial_.size_bytes != size) {
      throw Error(where + ": has " + std::to_string(size) + " bytes, expected " +
                  std::to_string(partial_.size_bytes));
    }
    if (size > registry::kMaxRemoteFileBytes) {
      throw Error(where + ": claims " + std::to_string(size) + " bytes");
    }
    partial_.size_bytes = size;
  }

  void set_prefix(std::string_view body) {
    const auto bytes = std::as_bytes(std::span(body));
    partial_.prefix.assign(bytes.begin(), bytes.end());
  }

  const RemoteFile& file_;
  HttpClient& client_;
  std::stop_token stop_;
  gguf::PartialFile partial_;
};

std::string labels_of(const registry::Resolved& resolved) {
  std::string labels;
  for (const registry::RemoteVariant& variant : resolved.variants)
    labels += (labels.empty() ? "" : ", ") + variant.label;
  return labels;
}

const registry::RemoteVariant& choose_variant(const registry::Resolved& resolved) {
  const auto& variants = resolved.variants;
  const std::string where = resolved.ref.display();
  if (variants.empty()) throw Error(where + ": has no GGUF model among its files");
  std::optional<size_t> chosen;
  if (!resolved.ref.selector.empty()) {
    chosen = registry::find_variant(variants, resolved.files, resolved.ref.selector);
    if (!chosen) {
      throw Error(where + ": has no \"" + resolved.ref.selector + "\", but " + labels_of(resolved));
    }
  } else if (variants.size() == 1) {
    chosen = 0;
  } else if (resolved.ref.is_ollama_style) {
    chosen = registry::find_variant(variants, resolved.files, "Q4_K_M");
  }
  if (!chosen) {
    throw Error(where + ": has " + std::to_string(variants.size()) + " models, name one: " + where +
                ":QUANT with " + labels_of(resolved));
  }
  if (!variants[*chosen].problem.empty()) {
    throw Error(where + ": " + variants[*chosen].label + ": " + variants[*chosen].problem);
  }
  return variants[*chosen];
}

/// The files of a model of an Ollama registry: layers stand where the manifest has them.
std::vector<RemoteFile> weights_of(const registry::Resolved& resolved) {
  std::vector<RemoteFile> files;
  for (const registry::Layer& layer : resolved.manifest->layers_of(registry::media_type::kModel)) {
    for (const RemoteFile& file : resolved.files) {
      if (file.sha256 == layer.digest) {
        files.push_back(file);
        break;
      }
    }
  }
  if (files.empty()) throw Error(resolved.ref.display() + ": has no weights in GGUF form");
  return files;
}

/// The shards of a model at a plain URL; the query, where there is one, is the same for all.
std::vector<RemoteFile> files_at_url(const std::string& url) {
  const size_t end = std::min(url.find_first_of("?#"), url.size());
  const size_t slash = url.rfind('/', end - 1) + 1;
  std::vector<std::string> names{url.substr(slash, end - slash)};
  if (auto shard = gguf::parse_shard_name(names[0])) {
    names.clear();
    for (shard->shard_idx = 0; shard->shard_idx < shard->n_shards; ++shard->shard_idx)
      names.push_back(gguf::shard_file_name(*shard));
  }
  std::vector<RemoteFile> files;
  for (const std::string& name : names) {
    RemoteFile& file = files.emplace_back();
    file.path = name;
    file.locate = [address = url.substr(0, slash) + name + url.substr(end)] {
      return registry::DownloadUrl{address, {}, 0};
    };
  }
  return files;
}

}  // namespace

bool is_file_url(std::string_view text) {
  if (!text.starts_with("http://") && !text.starts_with("https://")) return false;
  const std::string_view path = text.substr(0, text.find_first_of("?#"));
  return path.ends_with(".gguf") && path.find("/resolve/") == std::string_view::npos &&
         path.find("/blob/") == std::string_view::npos;
}

std::vector<gguf::PartialFile> read_headers(std::span<const RemoteFile> files,
                                            const registry::HttpOptions& http,
                                            const HeaderProgress& progress, std::stop_token stop) {
  HttpClient client(http);
  std::vector<gguf::PartialFile> headers;
  for (const RemoteFile& file : files) {
    if (progress) {
      progress("reading headers", static_cast<int64_t>(headers.size()),
               static_cast<int64_t>(files.size()));
    }
    headers.push_back(HeaderReader(file, client, stop).read());
  }
  return headers;
}

gguf::GgufFile fetch_headers(std::span<const RemoteFile> files, const registry::HttpOptions& http,
                             const HeaderProgress& progress, std::stop_token stop) {
  return gguf::GgufFile::open_headers(read_headers(files, http, progress, std::move(stop)));
}

RemoteModel open_remote_model(const std::string& text, const std::string& source,
                              const std::string& revision, const registry::HttpOptions& http,
                              const HeaderProgress& progress, std::stop_token stop) {
  if (is_file_url(text)) {
    return {
        registry::printable_url(text), fetch_headers(files_at_url(text), http, progress, stop), {}};
  }
  registry::RemoteRef ref = registry::RemoteRef::parse(text, source);
  if (!revision.empty()) ref.revision = revision;
  registry::Resolved resolved = registry::make_source(ref, http)->resolve(ref, stop);
  if (resolved.manifest) {
    return {resolved.ref.display(), fetch_headers(weights_of(resolved), http, progress, stop), {}};
  }
  if (!ref.path.empty()) {
    std::erase_if(resolved.files, [&](const RemoteFile& file) {
      return file.path != ref.path && !file.path.starts_with(ref.path + "/");
    });
    resolved.variants = registry::group_files(resolved.files).variants;
  }
  const registry::RemoteVariant& variant = choose_variant(resolved);
  std::vector<RemoteFile> files;
  for (const size_t file_idx : variant.file_idxs)
    files.push_back(resolved.files[file_idx]);
  RemoteModel model{
      resolved.ref.display() + ":" + variant.label, fetch_headers(files, http, progress, stop), {}};
  for (const registry::RemoteVariant& other : resolved.variants) {
    if (other.problem.empty() && other.label != variant.label)
      model.others.push_back({other.label, other.size_bytes});
  }
  return model;
}

}  // namespace dsctl::commands
