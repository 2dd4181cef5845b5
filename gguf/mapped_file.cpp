#include "gguf/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "gguf/error.h"

namespace dsctl::gguf {
namespace {

/// Closes the descriptor: a mapping lives on without it.
struct Descriptor {
  int fd = -1;
  explicit Descriptor(int fd_in) : fd(fd_in) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) {
  throw Error(path.string() + ": " + what);
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  // O_NONBLOCK: a named pipe must be refused below, not waited for.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) fail(path, std::string("can't be opened: ") + std::strerror(errno));
  struct stat status {};
  if (::fstat(file.fd, &status) != 0) {
    fail(path, std::string("can't be examined: ") + std::strerror(errno));
  }
  if (S_ISDIR(status.st_mode)) fail(path, "is a directory, expected a file: name the file in it");
  if (!S_ISREG(status.st_mode)) fail(path, "is no regular file, so it can't be mapped");
  if (status.st_size == 0) return;
  const auto size_bytes = static_cast<size_t>(status.st_size);
  void* start = ::mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, file.fd, 0);
  if (start == MAP_FAILED) {
    fail(path, "can't map its " + std::to_string(size_bytes) + " bytes: " + std::strerror(errno));
  }
  bytes_ = {static_cast<const std::byte*>(start), size_bytes};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace dsctl::gguf
