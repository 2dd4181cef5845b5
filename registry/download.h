// Downloader: brings remote files to disk in ranged parallel chunks over kept-alive connections,
// hashed while they arrive, with a journal from which a killed download goes on.
//
// On disk, beside each other: PARTIAL (the bytes, sparse until they arrive) and PARTIAL.journal
// (which blocks have arrived, with their CRC-32C and the file's size, digest and validator, so that
// another file starts anew; chunk_journal.h). The journal's lock makes sure that one process
// fetches a file. A later run believes a block only after reading it back, which it does while it
// hashes what is there, beside the network.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "registry/digest.h"
#include "registry/http.h"

namespace dsctl::registry {

/// Where a file's bytes are now. Signed URLs expire: it is asked for again after 401, 403, 404 and
/// when `expires_at_ms` has passed.
struct DownloadUrl {
  std::string url;
  std::vector<std::string> headers;  // "Name: value", sent to exactly this URL's host
  int64_t expires_at_ms = 0;         // steady clock; 0: not known
};

/// A file that a source offers.
struct RemoteFile {
  std::string path;         // inside the repository, '/'-separated, checked: relative, no ".."
  int64_t size_bytes = -1;  // -1: not known before the first answer
  std::optional<Digest> sha256;
  std::string git_sha1;  // of small files in git, 40 hex digits ("blob SIZE\0content"), or empty
  /// Called on a thread of the download's, one call at a time, again whenever a new one is needed.
  /// Throws Error. Should heed the stop token that download() was given.
  std::function<DownloadUrl()> locate;
  /// The same bytes on this machine, not verified (a git remote's own LFS store); or empty.
  std::filesystem::path local_copy;
  /// Writes the file where the source has it already (a small one in git); else not set.
  std::function<void(const std::filesystem::path& target)> write_to;
};

enum class DownloadEventType {
  kStarted,
  kProgress,
  kRetry,      // something failed and is tried again; `message` says what
  kWaiting,    // another process is fetching the same file; `message` says so
  kVerifying,  // everything is here, the digest is not yet
  kFinished
};

/// What a download tells, on its own thread, at most ten times a second and file.
struct DownloadEvent {
  DownloadEventType type = DownloadEventType::kProgress;
  size_t file_idx = 0;
  int64_t done_bytes = 0;  // on disk and counted, bytes of an earlier run included
  int64_t total_bytes = -1;
  int64_t fetched_bytes = 0;  // over the network in this run, of all files
  std::string message;        // kRetry, kWaiting
};

struct DownloadOptions {
  int jobs = 8;                        // connections at a time, over all files
  int64_t chunk_bytes = 32 << 20;      // most of one request; the journal knows smaller blocks
  int64_t limit_bytes_per_second = 0;  // 0: no limit
  int max_attempts = 10;               // of one chunk without a byte of progress
  HttpOptions http;
  std::function<void(const DownloadEvent&)> on_event;
};

/// One file to bring.
struct DownloadTask {
  RemoteFile file;
  std::filesystem::path partial;
  /// Where the file goes when it is verified, on the same file system: renamed while the lock is
  /// still held, so that of several processes that want the file one fetches and the others find
  /// it. Empty: it stays at `partial` for its owner to rename.
  std::filesystem::path target = {};
};

/// Brings all `tasks`, in their order, each to its partial path (or target), complete, synced and
/// verified (against sha256, or git_sha1, or else the size alone). Returns their SHA-256 digests.
/// What arrived stays, with its journal, when it throws: Error names the file, what was found and
/// expected. After a wrong digest the bytes on disk are compared with the checksums they arrived
/// with, and what differs, or came under another validator, or was there before us, is fetched
/// again; if the digest is wrong still, everything is, once; then it gives up and removes the
/// partial file. An existing partial file without journal (left by git-lfs, curl or
/// huggingface_hub) is taken up as a prefix where a digest will tell whether it is one. A stop
/// request ends it within a second.
std::vector<Digest> download(std::span<const DownloadTask> tasks, const DownloadOptions& options,
                             std::stop_token stop = {});

}  // namespace dsctl::registry
