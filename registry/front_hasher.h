// FrontHasher: hashes files while they arrive, off the network's thread. SHA-256 runs strictly in
// file order, so it follows the front (the end of what has arrived without a gap), reading back
// what was just written while it is still in memory. Blocks taken over from an earlier run are
// compared with their CRC-32C on the way.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "registry/digest.h"

namespace dsctl::registry {

class FrontHasher {
 public:
  struct File {
    int fd = -1;  // stays open until the file is removed
    std::filesystem::path path;
    int64_t size_bytes = 0;
    int64_t block_bytes = 0;
  };

  struct Result {
    size_t id = 0;
    std::optional<Digest> digest;     // everything is hashed, and synced to disk
    std::optional<size_t> bad_block;  // its bytes are not those that arrived; the front stops there
    std::exception_ptr error;         // reading failed
  };

  /// `wake` is called, from any thread, when there is a result.
  FrontHasher(int n_threads, std::function<void()> wake);
  ~FrontHasher();
  FrontHasher(const FrontHasher&) = delete;
  FrontHasher& operator=(const FrontHasher&) = delete;

  /// Starts on a file of which nothing is there yet. `crcs[b]`, where given, is what block b must
  /// have; empty: nothing is compared.
  void add(size_t id, File file, std::vector<std::optional<uint32_t>> crcs);
  /// Everything before `front_bytes` may be read: a multiple of the block, or the size.
  void advance(size_t id, int64_t front_bytes);
  /// The bad block reported last has arrived anew, and the next `n_blocks` - 1 with it: goes on,
  /// without comparing these again.
  void repaired(size_t id, int64_t front_bytes, size_t n_blocks);
  /// Forgets the file; returns when nobody reads it any more.
  void remove(size_t id);
  std::vector<Result> take_results();

 private:
  struct Job;
  struct Step;
  void work();
  Job* next_job();
  void run(Job& job, std::vector<std::byte>& buffer, std::unique_lock<std::mutex>& lock);

  std::function<void()> wake_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::map<size_t, Job> jobs_;
  std::vector<Result> results_;
  std::vector<std::jthread> threads_;
};

}  // namespace dsctl::registry
