// The store's lock: flock(2) on a file that says who holds it.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "registry/blob_store.h"
#include "registry/error.h"
#include "registry/file_io.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

std::string holder_of(const fs::path& lock_path) {
  const std::string text = read_small_file(lock_path, 4096).value_or("");
  return text.empty() ? "another process" : text;
}

}  // namespace

StoreLock::StoreLock(const fs::path& root, std::string_view operation, int64_t timeout_ms,
                     const std::function<void(std::string_view)>& waiting) {
  using std::chrono::steady_clock;
  const fs::path dir = root / ".dsctl";
  create_directories_synced(dir);
  const fs::path path = dir / "lock";
  FileDescriptor file = open_file(path, O_RDWR | O_CREAT, 0666);
  const auto start = steady_clock::now();
  bool told = false;
  while (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) throw_errno(path, "can't lock");
    const auto waited = steady_clock::now() - start;
    if (waited >= std::chrono::milliseconds(timeout_ms)) {
      throw Error("the model store " + root.string() + " is locked by " + holder_of(path) +
                  "; waited " + std::to_string(timeout_ms / 1000) + " s for it");
    }
    if (!told && waited >= std::chrono::seconds(1) && waiting) {
      told = true;
      waiting("waiting for " + holder_of(path) + ", which holds the lock of " + root.string());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (::ftruncate(file.get(), 0) != 0) throw_errno(path, "can't write");
  write_all(file.get(),
            "process " + std::to_string(::getpid()) + " (" + std::string(operation) + ")", path);
  fd_ = file.release();
}

StoreLock::~StoreLock() {
  // The name goes first, so that nobody reads it who finds the lock free. Failure changes nothing.
  if (::ftruncate(fd_, 0) != 0) errno = 0;
  ::close(fd_);
}

}  // namespace dsctl::registry
