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

MappedFile MappedFile::of_prefix(std::filesystem::path path, std::span<const std::byte> prefix,
                                 int64_t size_bytes) {
  MappedFile file;
  file.path_ = std::move(path);
  if (size_bytes < static_cast<int64_t>(prefix.size())) {
    fail(file.path_, "has " + std::to_string(size_bytes) + " bytes, but " +
                         std::to_string(prefix.size()) + " of it were given");
  }
  if (size_bytes == 0) return file;
  const auto size = static_cast<size_t>(size_bytes);
  // Only readable memory is not counted against the system's limit, however large.
  void* start =
      ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) {
    fail(file.path_, "can't map its " + std::to_string(size) + " bytes: " + std::strerror(errno));
  }
  file.bytes_ = {static_cast<const std::byte*>(start), size};
  if (prefix.empty()) return file;
  void* written = ::mmap(start, prefix.size(), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (written == MAP_FAILED) fail(file.path_, std::string("no memory: ") + std::strerror(errno));
  std::memcpy(written, prefix.data(), prefix.size());
  return file;
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
