#include "registry/sources/git_lfs.h"

#include <algorithm>
#include <filesystem>

#include "registry/error.h"
#include "registry/sources/git_tree.h"
#include "registry/sources/lfs_batch.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/remote_url.h"
#include "registry/sources/variants.h"
#include "registry/url.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxConfigBytes = 64 << 10;

/// The value of lfs.url in the text of a .lfsconfig; empty when there is none.
std::string configured_lfs_url(std::string_view text) {
  const auto trim = [](std::string_view line) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) return std::string_view();
    return line.substr(begin, line.find_last_not_of(" \t\r") + 1 - begin);
  };
  bool in_lfs = false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.starts_with('[')) {
      in_lfs = line == "[lfs]";
      continue;
    }
    const size_t equals = line.find('=');
    if (!in_lfs || equals == std::string_view::npos || trim(line.substr(0, equals)) != "url") {
      continue;
    }
    std::string_view value = trim(line.substr(equals + 1));
    if (value.size() >= 2 && value.starts_with('"') && value.ends_with('"')) {
      value = value.substr(1, value.size() - 2);
    }
    return std::string(value);
  }
  return "";
}

/// A remote on this machine has the objects in its own store.
fs::path local_object(const fs::path& repository, const Digest& oid) {
  const std::string hex = oid.hex();
  const fs::path below = fs::path("lfs/objects") / hex.substr(0, 2) / hex.substr(2, 2) / hex;
  for (const fs::path& dir : {repository, repository / ".git"}) {
    std::error_code error;
    if (fs::is_regular_file(dir / below, error)) return dir / below;
  }
  return {};
}

/// The remote without user info: what the requests of the LFS server go to.
std::string without_user_info(const Url& url) {
  return url.origin() + url.path;
}

/// The LFS server of a repository. What the repository itself says is followed only to a public
/// place, or to its own host: a clone must not make this machine ask its neighbours.
std::string find_lfs_url(const GitTree& tree, const Url& remote) {
  for (const GitEntry& entry : tree.entries()) {
    if (entry.path != ".lfsconfig") continue;
    const std::string configured = configured_lfs_url(tree.read(entry, kMaxConfigBytes));
    if (configured.empty()) break;
    const std::optional<Url> url = Url::parse(configured);
    if (!url || (url->scheme != "https" && url->scheme != "http")) {
      throw Error(".lfsconfig: lfs.url \"" + printable_text(configured) +
                  "\", expected http or https");
    }
    if (url->host != remote.host && is_private_host(url->host)) {
      throw Error(".lfsconfig: lfs.url points to the private address " + url->host + "; refused");
    }
    return without_user_info(*url);
  }
  return remote.scheme == "file" ? "" : lfs_url_of(without_user_info(remote));
}

/// A git server that has answered.
struct Remote {
  std::string url;  // after redirects
  bool needs_credentials = false;
};

/// Asks a git server for its list of branches, as git does first. This is done by our own client,
/// which follows redirects, knows timeouts, and says what is wrong.
Remote probe(const Url& url, const std::optional<Credentials>& credentials, const HttpOptions& http,
             std::stop_token stop) {
  constexpr std::string_view kTail = "/info/refs?service=git-upload-pack";
  const std::string base = without_user_info(url);
  HttpClient client(http);
  HttpRequest request;
  request.url = base + std::string(kTail);
  Remote remote;
  HttpResponse response = client.send(request, stop);
  if (response.status == 401 && credentials) {
    request.headers = {basic_authorization(*credentials)};
    remote.needs_credentials = true;
    response = client.send(request, stop);
  }
  if (response.status == 401 || response.status == 403) {
    throw Error(base + (credentials ? ": user and password were refused"
                                    : ": not found, or it is private: put user and password into "
                                      "the URL or ~/.netrc"));
  }
  if (response.status == 404) throw Error(base + ": there is no such git repository");
  if (response.status != 200) {
    throw Error(base + ": status " + std::to_string(response.status) + ", expected a git server");
  }
  const auto type = response.header("content-type");
  if (type != "application/x-git-upload-pack-advertisement") {
    throw Error(base + ": is a web page, not a git repository (it answers with \"" +
                printable_text(type.value_or("")) + "\")");
  }
  remote.url = response.url;
  if (!remote.url.ends_with(kTail)) {
    throw Error(base + ": redirects to " + printable_url(remote.url));
  }
  remote.url.resize(remote.url.size() - kTail.size());
  // Credentials are for the host that the user named.
  const std::optional<Url> parsed = Url::parse(remote.url);
  if (remote.needs_credentials && (!parsed || parsed->origin() != url.origin())) {
    throw Error(base + ": redirects to " + printable_url(remote.url) +
                ", and wants credentials; name that URL");
  }
  return remote;
}

class GitLfs final : public Source {
 public:
  explicit GitLfs(const HttpOptions& http) : http_(http) {}

  Resolved resolve(const RemoteRef& ref, std::stop_token stop) override {
    const std::optional<Url> remote = Url::parse(ref.repo);
    if (!remote) throw Error(printable_text(ref.repo) + ": is no URL");
    const std::optional<Credentials> credentials =
        remote->scheme == "file" ? std::nullopt : find_credentials(*remote);
    Remote server{ref.repo};
    if (remote->scheme != "file") server = probe(*remote, credentials, http_, stop);
    const auto tree = std::make_shared<GitTree>(
        server.url, ref.revision, server.needs_credentials ? credentials : std::nullopt, stop);
    Resolved resolved;
    resolved.ref = ref;
    resolved.revision = tree->commit();
    const std::string lfs_url = find_lfs_url(*tree, *remote);
    std::shared_ptr<LfsClient> client;
    if (!lfs_url.empty()) {
      const std::optional<Url> lfs = Url::parse(lfs_url);
      client = std::make_shared<LfsClient>(
          lfs_url, tree->ref_name(),
          lfs->host == remote->host ? credentials : find_credentials(*lfs), http_);
    }
    const fs::path local = remote->scheme == "file" ? fs::path(percent_decoded(remote->path)) : "";
    for (const GitEntry& entry : tree->entries())
      resolved.files.push_back(make_file(tree, entry, client, local, stop));
    GroupedFiles grouped = group_files(resolved.files);
    resolved.variants = std::move(grouped.variants);
    resolved.projector_idxs = std::move(grouped.projector_idxs);
    return resolved;
  }

 private:
  static RemoteFile make_file(const std::shared_ptr<GitTree>& tree, const GitEntry& entry,
                              const std::shared_ptr<LfsClient>& client, const fs::path& local,
                              std::stop_token stop) {
    RemoteFile file;
    file.path = entry.path;
    file.size_bytes = entry.size_bytes;
    if (entry.size_bytes < static_cast<int64_t>(LfsPointer::kMaxBytes)) {
      const std::string content = tree->read(entry, LfsPointer::kMaxBytes);
      if (LfsPointer::is_pointer(content)) {
        LfsPointer pointer;
        try {
          pointer = LfsPointer::parse(content);
        } catch (const Error& error) {
          throw Error(entry.path + ": " + error.what());
        }
        make_large(file, pointer, client, local, std::move(stop));
        return file;
      }
    }
    file.git_sha1 = entry.sha1;
    file.write_to = [tree, entry](const fs::path& target) { tree->write(entry, target); };
    return file;
  }

  static void make_large(RemoteFile& file, const LfsPointer& pointer,
                         const std::shared_ptr<LfsClient>& client, const fs::path& local,
                         std::stop_token stop) {
    file.size_bytes = pointer.size_bytes;
    file.sha256 = pointer.oid;
    if (!local.empty()) file.local_copy = local_object(local, pointer.oid);
    if (client) {
      client->add(pointer);
      file.locate = [client, pointer, stop] { return client->locate(pointer, stop); };
    } else {
      file.locate = [path = file.path, local]() -> DownloadUrl {
        throw Error(path + ": its content is not in " + (local / "lfs/objects").string() +
                    "; run `git lfs fetch --all` there");
      };
    }
  }

  HttpOptions http_;
};

}  // namespace

std::unique_ptr<Source> make_git_lfs(const HttpOptions& http) {
  return std::make_unique<GitLfs>(http);
}

}  // namespace dsctl::registry
