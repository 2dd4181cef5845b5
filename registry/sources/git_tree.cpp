#include "registry/sources/git_tree.h"

#include <fcntl.h>
#include <git2.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/source.h"
#include "registry/url.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

template <auto kFree>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using RepositoryPtr = std::unique_ptr<git_repository, Deleter<git_repository_free>>;
using RemotePtr = std::unique_ptr<git_remote, Deleter<git_remote_free>>;
using ObjectPtr = std::unique_ptr<git_object, Deleter<git_object_free>>;
using CommitPtr = std::unique_ptr<git_commit, Deleter<git_commit_free>>;
using TreePtr = std::unique_ptr<git_tree, Deleter<git_tree_free>>;
using BlobPtr = std::unique_ptr<git_blob, Deleter<git_blob_free>>;
using OdbPtr = std::unique_ptr<git_odb, Deleter<git_odb_free>>;

// A hostile remote could send objects without end; a repository of pointers is small.
constexpr size_t kMaxFetchedBytes = size_t{4} << 30;

void start_library() {
  static std::once_flag once;
  std::call_once(once, [] { ::git_libgit2_init(); });
}

fs::path make_temporary_dir() {
  std::string pattern = (fs::temp_directory_path() / "dsctl-git-XXXXXX").string();
  if (!::mkdtemp(pattern.data())) throw_errno(pattern, "can't create the directory");
  return pattern;
}

/// State that libgit2's callbacks see.
struct Session {
  std::string url;  // printable
  const std::optional<Credentials>& credentials;
  std::stop_token stop;
  bool is_refused = false;
  bool is_too_large = false;
};

/// Credentials go with every request (see `fetch`): a server that still asks has refused them.
int refuse_credentials(git_credential**, const char*, const char*, unsigned, void* payload) {
  static_cast<Session*>(payload)->is_refused = true;
  return GIT_EUSER;
}

int on_transfer(const git_indexer_progress* progress, void* payload) {
  auto& session = *static_cast<Session*>(payload);
  session.is_too_large = progress->received_bytes > kMaxFetchedBytes;
  return session.is_too_large || session.stop.stop_requested() ? GIT_EUSER : 0;
}

int on_text(const char*, int, void* payload) {
  return static_cast<Session*>(payload)->stop.stop_requested() ? GIT_EUSER : 0;
}

git_remote_callbacks callbacks_of(Session& session) {
  git_remote_callbacks callbacks = GIT_REMOTE_CALLBACKS_INIT;
  callbacks.credentials = refuse_credentials;
  callbacks.transfer_progress = on_transfer;
  callbacks.sideband_progress = on_text;
  callbacks.payload = &session;
  return callbacks;
}

void check(int code, const Session& session) {
  if (code >= 0) return;
  if (session.stop.stop_requested()) throw Error(session.url + ": interrupted");
  if (session.is_too_large) {
    throw Error(session.url + ": its history without the large files has more than 4 GiB; refused");
  }
  if (session.is_refused) {
    throw Error(session.url + (session.credentials
                                   ? ": user and password were refused"
                                   : ": not found, or it is private: put user and password into "
                                     "the URL or ~/.netrc"));
  }
  const git_error* error = ::git_error_last();
  throw Error(session.url + ": " + (error ? printable_text(error->message) : "git failed"));
}

/// What of the remote to fetch: a branch or tag of this name, its default branch, or everything
/// when a commit is wanted.
struct Wanted {
  std::vector<std::string> refspecs;
  std::string ref_name;  // empty: a commit
};

bool is_commit(const std::string& text) {
  return text.size() == 40 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::string choose_ref(const std::vector<std::string>& names, const std::string& head_target,
                       const std::string& revision) {
  const auto has = [&](const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (!revision.empty()) {
    for (const char* prefix : {"refs/heads/", "refs/tags/", "refs/", ""}) {
      if (has(prefix + revision)) return prefix + revision;
    }
    return "";
  }
  // Some servers' HEAD points to a branch that isn't there.
  if (has(head_target)) return head_target;
  for (const char* name : {"refs/heads/main", "refs/heads/master"}) {
    if (has(name)) return name;
  }
  const auto first = std::find_if(names.begin(), names.end(), [](const std::string& name) {
    return name.starts_with("refs/heads/");
  });
  return first == names.end() ? "" : *first;
}

Wanted list_remote(git_remote* remote, const std::string& revision, const Session& session) {
  const git_remote_head** heads = nullptr;
  size_t n_heads = 0;
  check(::git_remote_ls(&heads, &n_heads, remote), session);
  std::vector<std::string> names;
  std::string head_target;
  for (size_t i = 0; i < n_heads; ++i) {
    const std::string name = heads[i]->name;
    if (name == "HEAD" && heads[i]->symref_target) head_target = heads[i]->symref_target;
    if (!name.ends_with("^{}")) names.push_back(name);
  }
  if (n_heads == 0) throw Error(session.url + ": the repository is empty");
  Wanted wanted;
  wanted.ref_name = choose_ref(names, head_target, revision);
  if (!wanted.ref_name.empty()) {
    wanted.refspecs = {"+" + wanted.ref_name + ":refs/dsctl/wanted"};
  } else if (is_commit(revision)) {
    wanted.refspecs = {"+refs/heads/*:refs/dsctl/heads/*", "+refs/tags/*:refs/dsctl/tags/*"};
  } else {
    throw Error(session.url + ": has no revision \"" + printable_text(revision) + "\"");
  }
  return wanted;
}

Wanted fetch(git_repository* repository, const std::string& url, const std::string& revision,
             Session& session) {
  git_remote* raw = nullptr;
  check(::git_remote_create_anonymous(&raw, repository, url.c_str()), session);
  const RemotePtr remote(raw);
  const git_remote_callbacks callbacks = callbacks_of(session);
  git_proxy_options proxy = GIT_PROXY_OPTIONS_INIT;
  proxy.type = GIT_PROXY_AUTO;
  // The caller has followed redirects and knows whether credentials are needed. They are not left
  // to libgit2's answer to a 401: version 1.5 loses its place in the stream when that answer's body
  // comes in a packet of its own.
  std::string authorization = session.credentials ? basic_authorization(*session.credentials) : "";
  char* header = authorization.data();
  git_remote_connect_options connect = GIT_REMOTE_CONNECT_OPTIONS_INIT;
  connect.callbacks = callbacks;
  connect.proxy_opts = proxy;
  connect.follow_redirects = GIT_REMOTE_REDIRECT_NONE;
  if (session.credentials) connect.custom_headers = {&header, 1};
  check(::git_remote_connect_ext(remote.get(), GIT_DIRECTION_FETCH, &connect), session);
  const Wanted wanted = list_remote(remote.get(), revision, session);
  ::git_remote_disconnect(remote.get());
  git_fetch_options options = GIT_FETCH_OPTIONS_INIT;
  options.callbacks = callbacks;
  options.proxy_opts = proxy;
  options.download_tags = GIT_REMOTE_DOWNLOAD_TAGS_NONE;
  options.update_fetchhead = 0;
  options.follow_redirects = connect.follow_redirects;
  options.custom_headers = connect.custom_headers;
#if LIBGIT2_VER_MAJOR > 1 || (LIBGIT2_VER_MAJOR == 1 && LIBGIT2_VER_MINOR >= 7)
  // The history is of no use. A local remote can't be shallow.
  if (!wanted.ref_name.empty() && !url.starts_with("file:")) options.depth = 1;
#endif
  std::vector<std::string> refspecs = wanted.refspecs;
  std::vector<char*> pointers;
  for (std::string& refspec : refspecs)
    pointers.push_back(refspec.data());
  const git_strarray list{pointers.data(), pointers.size()};
  check(::git_remote_fetch(remote.get(), &list, &options, nullptr), session);
  return wanted;
}

/// Gathers the files of a tree; libgit2 walks it.
struct TreeWalk {
  git_repository* repository = nullptr;
  git_odb* odb = nullptr;
  std::string url;
  std::vector<GitEntry> entries;
  std::string problem;  // exceptions must not pass through libgit2
};

int on_entry(const char* root, const git_tree_entry* entry, void* payload) {
  auto& walk = *static_cast<TreeWalk*>(payload);
  // Links are not followed, and what another repository holds is not here.
  const git_filemode_t mode = ::git_tree_entry_filemode(entry);
  if (mode != GIT_FILEMODE_BLOB && mode != GIT_FILEMODE_BLOB_EXECUTABLE) return 0;
  try {
    GitEntry file;
    file.path = checked_remote_path(std::string(root) + ::git_tree_entry_name(entry), walk.url);
    const git_oid* oid = ::git_tree_entry_id(entry);
    file.sha1.resize(GIT_OID_HEXSZ);
    ::git_oid_fmt(file.sha1.data(), oid);
    size_t size = 0;
    git_object_t type = GIT_OBJECT_ANY;
    if (::git_odb_read_header(&size, &type, walk.odb, oid) != 0 || type != GIT_OBJECT_BLOB) {
      throw Error(walk.url + ": " + file.path + ": its content was not sent");
    }
    file.size_bytes = static_cast<int64_t>(size);
    if (walk.entries.size() >= kMaxRemoteFiles) {
      throw Error(walk.url + ": has more than " + std::to_string(kMaxRemoteFiles) + " files");
    }
    walk.entries.push_back(std::move(file));
    return 0;
  } catch (const std::exception& error) {
    walk.problem = error.what();
    return GIT_EUSER;
  }
}

}  // namespace

struct GitTree::Repository {
  fs::path dir;
  RepositoryPtr git;

  Repository() : dir(make_temporary_dir()) {}
  ~Repository() {
    git.reset();
    std::error_code ignored;
    fs::remove_all(dir, ignored);
  }
  BlobPtr find(const GitEntry& entry) const {
    git_oid oid;
    git_blob* blob = nullptr;
    if (::git_oid_fromstr(&oid, entry.sha1.c_str()) != 0 ||
        ::git_blob_lookup(&blob, git.get(), &oid) != 0) {
      throw Error(entry.path + ": its content is missing");
    }
    return BlobPtr(blob);
  }
};

GitTree::GitTree(const std::string& url, const std::string& revision,
                 const std::optional<Credentials>& credentials, std::stop_token stop) {
  start_library();
  Session session{url.starts_with("file:") ? url : printable_url(url), credentials, stop};
  repository_ = std::make_unique<Repository>();
  git_repository* raw = nullptr;
  check(::git_repository_init(&raw, repository_->dir.c_str(), /*is_bare=*/1), session);
  repository_->git.reset(raw);
  const Wanted wanted = fetch(raw, url, revision, session);
  ref_name_ = wanted.ref_name;

  git_object* object = nullptr;
  const std::string spec = ref_name_.empty() ? revision : "refs/dsctl/wanted";
  if (::git_revparse_single(&object, raw, spec.c_str()) != 0) {
    throw Error(session.url + ": has no revision \"" + printable_text(revision) + "\"");
  }
  const ObjectPtr found(object);
  git_object* peeled = nullptr;
  check(::git_object_peel(&peeled, found.get(), GIT_OBJECT_COMMIT), session);
  const CommitPtr commit(reinterpret_cast<git_commit*>(peeled));
  commit_.resize(GIT_OID_HEXSZ);
  ::git_oid_fmt(commit_.data(), ::git_commit_id(commit.get()));
  git_tree* tree_raw = nullptr;
  check(::git_commit_tree(&tree_raw, commit.get()), session);
  const TreePtr tree(tree_raw);
  git_odb* odb_raw = nullptr;
  check(::git_repository_odb(&odb_raw, raw), session);
  const OdbPtr odb(odb_raw);
  TreeWalk walk{raw, odb.get(), session.url, {}, {}};
  const int code = ::git_tree_walk(tree.get(), GIT_TREEWALK_PRE, on_entry, &walk);
  if (!walk.problem.empty()) throw Error(walk.problem);
  check(code, session);
  entries_ = std::move(walk.entries);
}

GitTree::~GitTree() = default;

std::string GitTree::read(const GitEntry& entry, int64_t max_bytes) const {
  if (entry.size_bytes > max_bytes) {
    throw Error(entry.path + ": " + std::to_string(entry.size_bytes) + " bytes, expected at most " +
                std::to_string(max_bytes));
  }
  const BlobPtr blob = repository_->find(entry);
  return {static_cast<const char*>(::git_blob_rawcontent(blob.get())),
          static_cast<size_t>(::git_blob_rawsize(blob.get()))};
}

void GitTree::write(const GitEntry& entry, const fs::path& target) const {
  const BlobPtr blob = repository_->find(entry);
  const FileDescriptor file = open_file(target, O_WRONLY | O_CREAT | O_TRUNC);
  write_all(file.get(),
            {static_cast<const char*>(::git_blob_rawcontent(blob.get())),
             static_cast<size_t>(::git_blob_rawsize(blob.get()))},
            target);
  sync_file(file.get(), target);
}

}  // namespace dsctl::registry
