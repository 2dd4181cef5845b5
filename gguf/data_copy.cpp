#include "gguf/data_copy.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "gguf/error.h"

namespace dsctl::gguf {
namespace {

// A piece is what one worker takes: long enough for the disk, short enough that a stop is prompt.
constexpr int64_t kPieceBytes = int64_t{32} << 20;
// Two buffers of this size for each worker bound the memory.
constexpr int64_t kBufferBytes = int64_t{2} << 20;
constexpr int64_t kBlockBytes =
    4096;  // of file systems that share blocks; they refuse a wrong guess
constexpr unsigned kMaxWorkers = 4;
// Fewer bytes are moved sooner than another thread is started.
constexpr int64_t kWorkerBytes = int64_t{4} << 20;
constexpr auto kProgressPause = std::chrono::milliseconds(100);

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) {
  throw Error(path.string() + ": " + what + ": " + std::strerror(errno));
}

[[noreturn]] void fail_end(const CopyPart& part, int64_t position) {
  throw Error(part.in_path->string() + ": ends at byte " + std::to_string(position) +
              " while it is read: something cut it meanwhile");
}

/// Reads `size_bytes` at `offset_bytes`.
void read_at(int fd, int64_t offset_bytes, std::byte* out, int64_t size_bytes,
             const std::filesystem::path& path) {
  while (size_bytes > 0) {
    const ssize_t n = ::pread(fd, out, static_cast<size_t>(size_bytes), offset_bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path, "can't be read at byte " + std::to_string(offset_bytes));
    if (n == 0) {
      throw Error(path.string() + ": ends at byte " + std::to_string(offset_bytes) +
                  " while it is read: something cut it meanwhile");
    }
    out += n;
    offset_bytes += n;
    size_bytes -= n;
  }
}

void write_at(int fd, int64_t offset_bytes, const std::byte* data, int64_t size_bytes,
              const std::filesystem::path& path) {
  while (size_bytes > 0) {
    const ssize_t n = ::pwrite(fd, data, static_cast<size_t>(size_bytes), offset_bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path, "can't be written at byte " + std::to_string(offset_bytes));
    data += n;
    offset_bytes += n;
    size_bytes -= n;
  }
}

CopyPart sub_part(const CopyPart& part, int64_t begin, int64_t size_bytes) {
  CopyPart sub = part;
  sub.in_offset_bytes += begin;
  sub.out_offset_bytes += begin;
  sub.size_bytes = size_bytes;
  return sub;
}

/// True when `error` of a copying call means "not between these files", so that another way may do.
bool is_unsupported(int error) {
  return error == EXDEV || error == EINVAL || error == ENOSYS || error == EOPNOTSUPP ||
         error == ENOTTY || error == EPERM;
}

/// Copies pieces; shared by the workers of one copy, which learn from each other what works.
class Copier {
 public:
  void copy(const CopyPart& piece, std::vector<std::byte>& buffer) {
    const int64_t delta = piece.in_offset_bytes - piece.out_offset_bytes;
    const int64_t head = -piece.in_offset_bytes & (kBlockBytes - 1);
    const int64_t middle = (piece.size_bytes - head) & ~(kBlockBytes - 1);
    if (can_share_ && delta % kBlockBytes == 0 && head < piece.size_bytes && middle > 0 &&
        share(sub_part(piece, head, middle))) {
      move(sub_part(piece, 0, head), buffer);
      move(sub_part(piece, head + middle, piece.size_bytes - head - middle), buffer);
    } else {
      move(piece, buffer);
    }
  }

  CopyCounts counts() const { return {shared_, kernel_, through_}; }

 private:
  bool share(const CopyPart& part) {
    struct file_clone_range range {};
    range.src_fd = part.in_fd;
    range.src_offset = static_cast<uint64_t>(part.in_offset_bytes);
    range.src_length = static_cast<uint64_t>(part.size_bytes);
    range.dest_offset = static_cast<uint64_t>(part.out_offset_bytes);
    if (::ioctl(part.out_fd, FICLONERANGE, &range) == 0) {
      shared_ += part.size_bytes;
      return true;
    }
    if (!is_unsupported(errno)) fail(*part.out_path, "can't share blocks of the shards");
    can_share_ = false;
    return false;
  }

  void move(CopyPart part, std::vector<std::byte>& buffer) {
    while (part.size_bytes > 0 && can_copy_range_) {
      off_t in_offset = part.in_offset_bytes;
      off_t out_offset = part.out_offset_bytes;
      const ssize_t n = ::copy_file_range(part.in_fd, &in_offset, part.out_fd, &out_offset,
                                          static_cast<size_t>(part.size_bytes), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && is_unsupported(errno)) {
        can_copy_range_ = false;
        break;
      }
      if (n < 0) fail(*part.out_path, "can't copy " + part.in_path->filename().string());
      if (n == 0) fail_end(part, part.in_offset_bytes);
      kernel_ += n;
      part = sub_part(part, n, part.size_bytes - n);
    }
    while (part.size_bytes > 0) {
      const int64_t n = std::min(part.size_bytes, kBufferBytes);
      buffer.resize(std::max(buffer.size(), static_cast<size_t>(n)));
      read_at(part.in_fd, part.in_offset_bytes, buffer.data(), n, *part.in_path);
      write_at(part.out_fd, part.out_offset_bytes, buffer.data(), n, *part.out_path);
      through_ += n;
      part = sub_part(part, n, part.size_bytes - n);
    }
  }

  std::atomic<bool> can_share_{true};
  std::atomic<bool> can_copy_range_{true};
  std::atomic<int64_t> shared_{0};
  std::atomic<int64_t> kernel_{0};
  std::atomic<int64_t> through_{0};
};

void compare(const CopyPart& piece, std::vector<std::byte>& buffer) {
  const int64_t step = std::min(kBufferBytes, piece.size_bytes);
  buffer.resize(std::max(buffer.size(), static_cast<size_t>(2 * step)));
  std::byte* in = buffer.data();
  std::byte* out = in + step;
  for (int64_t begin = 0; begin < piece.size_bytes; begin += step) {
    const CopyPart part = sub_part(piece, begin, std::min(step, piece.size_bytes - begin));
    read_at(part.in_fd, part.in_offset_bytes, in, part.size_bytes, *part.in_path);
    read_at(part.out_fd, part.out_offset_bytes, out, part.size_bytes, *part.out_path);
    if (std::memcmp(in, out, static_cast<size_t>(part.size_bytes)) == 0) continue;
    const int64_t at = std::mismatch(in, in + part.size_bytes, out).first - in;
    throw Error(part.out_path->string() + ": byte " + std::to_string(part.out_offset_bytes + at) +
                " differs from byte " + std::to_string(part.in_offset_bytes + at) + " of " +
                part.in_path->string() + ": the disk or the memory of this machine is faulty");
  }
}

/// What the workers of one run share.
struct Run {
  std::vector<CopyPart> pieces;
  std::atomic<size_t> next{0};
  std::atomic<int64_t> done_bytes{0};
  std::atomic<bool> is_stopped{false};
  std::mutex mutex;  // guards the rest
  std::condition_variable wake;
  unsigned n_running = 0;
  std::exception_ptr error;
};

template <typename Work>
void work_off(Run& run, const Work& work) {
  try {
    std::vector<std::byte> buffer;
    while (!run.is_stopped) {
      const size_t idx = run.next++;
      if (idx >= run.pieces.size()) break;
      work(run.pieces[idx], buffer);
      run.done_bytes += run.pieces[idx].size_bytes;
    }
  } catch (...) {
    const std::scoped_lock lock(run.mutex);
    if (!run.error) run.error = std::current_exception();
    run.is_stopped = true;
  }
  const std::scoped_lock lock(run.mutex);
  --run.n_running;
  run.wake.notify_one();
}

/// Does `work` to every piece on this thread.
template <typename Work>
void work_alone(const Run& run, int64_t total, std::string_view what, const Progress& progress,
                const Work& work) {
  std::vector<std::byte> buffer;
  int64_t done = 0;
  auto told = std::chrono::steady_clock::now();
  for (const CopyPart& piece : run.pieces) {
    work(piece, buffer);
    done += piece.size_bytes;
    const auto now = std::chrono::steady_clock::now();
    if (!progress || now - told < kProgressPause) continue;
    told = now;
    progress(what, done, total);
  }
  if (progress) progress(what, total, total);
}

/// Does `work` to every piece of `parts`; of many bytes on a few threads, while this one tells the
/// progress.
template <typename Work>
void for_each_piece(std::span<const CopyPart> parts, std::string_view what,
                    const Progress& progress, const Work& work) {
  Run run;
  int64_t total = 0;
  for (const CopyPart& part : parts) {
    total += part.size_bytes;
    for (int64_t begin = 0; begin < part.size_bytes; begin += kPieceBytes)
      run.pieces.push_back(sub_part(part, begin, std::min(kPieceBytes, part.size_bytes - begin)));
  }
  const auto n_workers = static_cast<unsigned>(std::min(
      {static_cast<size_t>(std::clamp(std::thread::hardware_concurrency(), 1U, kMaxWorkers)),
       run.pieces.size(), static_cast<size_t>(1 + total / kWorkerBytes)}));
  if (n_workers <= 1) return work_alone(run, total, what, progress, work);
  run.n_running = n_workers;
  {
    std::vector<std::jthread> threads;  // an exception below waits for them
    for (unsigned i = 0; i < n_workers; ++i)
      threads.emplace_back([&run, &work] { work_off(run, work); });
    std::unique_lock lock(run.mutex);
    while (run.n_running > 0) {
      run.wake.wait_for(lock, kProgressPause);
      if (!progress || run.n_running == 0) continue;
      lock.unlock();
      try {
        progress(what, run.done_bytes, total);
      } catch (...) {
        run.is_stopped = true;
        throw;
      }
      lock.lock();
    }
  }
  if (run.error) std::rethrow_exception(run.error);
  if (progress) progress(what, total, total);
}

}  // namespace

DataFile::DataFile(std::filesystem::path path, int flags)
    : path_(std::move(path)), fd_(::open(path_.c_str(), flags | O_CLOEXEC, 0666)) {
  if (fd_ < 0) fail("can't be opened");
}

DataFile::~DataFile() {
  if (fd_ >= 0) ::close(fd_);
}

DataFile::DataFile(DataFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

struct stat DataFile::status() const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) fail("can't be examined");
  return status;
}

void DataFile::write_at(int64_t offset_bytes, std::string_view text) const {
  gguf::write_at(fd_, offset_bytes, reinterpret_cast<const std::byte*>(text.data()),
                 static_cast<int64_t>(text.size()), path_);
}

void DataFile::fail(std::string_view what) const {
  gguf::fail(path_, std::string(what));
}

CopyCounts copy_parts(std::span<const CopyPart> parts, std::string_view what,
                      const Progress& progress) {
  Copier copier;
  for_each_piece(parts, what, progress, [&](const CopyPart& piece, std::vector<std::byte>& buffer) {
    copier.copy(piece, buffer);
  });
  return copier.counts();
}

void compare_parts(std::span<const CopyPart> parts, std::string_view what,
                   const Progress& progress) {
  for_each_piece(parts, what, progress, compare);
}

void sync_and_forget(int fd, const std::filesystem::path& path) {
  if (::fdatasync(fd) != 0) fail(path, "can't be synced");
  // Only advice: a file system without it reads from its cache.
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

}  // namespace dsctl::gguf
