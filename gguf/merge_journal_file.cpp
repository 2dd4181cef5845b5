#include "gguf/merge_journal_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "gguf/error.h"
#include "gguf/new_file.h"

namespace dsctl::gguf {
namespace {

constexpr size_t kMaxJournalBytes = size_t{256} << 20;

}  // namespace

MergeJournalFile::MergeJournalFile(const std::filesystem::path& out)
    : path_(merge_journal_path(out)) {
  while (true) {
    struct stat status {};
    was_there_ = ::lstat(path_.c_str(), &status) == 0;
    file_.emplace(path_, O_RDWR | O_CREAT | O_NOFOLLOW);
    if (::flock(file_->fd(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      throw Error(out.string() + ": another dsctl is merging to it right now");
    }
    if (::lstat(path_.c_str(), &status) == 0 && status.st_ino == file_->status().st_ino) return;
    file_.reset();  // the process that held it has just finished and removed it
  }
}

std::optional<MergeJournal> MergeJournalFile::read() {
  auto journal = read(*file_);
  position_ = journal ? journal->valid_bytes : 0;
  return journal;
}

std::optional<MergeJournal> MergeJournalFile::read(const DataFile& file) {
  const auto size_bytes = static_cast<size_t>(file.status().st_size);
  if (size_bytes > kMaxJournalBytes) {
    throw Error(file.path().string() + ": has " + std::to_string(size_bytes) + " bytes, at most " +
                std::to_string(kMaxJournalBytes) + " are a journal");
  }
  std::string text(size_bytes, '\0');
  size_t n_read = 0;
  while (n_read < text.size()) {
    const ssize_t n =
        ::pread(file.fd(), text.data() + n_read, text.size() - n_read, static_cast<off_t>(n_read));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) file.fail("can't be read");
    if (n == 0) break;
    n_read += static_cast<size_t>(n);
  }
  text.resize(n_read);
  try {
    return parse_merge_journal(text);
  } catch (const Error& error) {
    throw Error(file.path().string() + ": " + error.what());
  }
}

void MergeJournalFile::append(const std::string& line) {
  if (::ftruncate(file_->fd(), static_cast<off_t>(position_)) != 0) {
    file_->fail("can't be written");
  }
  file_->write_at(static_cast<int64_t>(position_), line);
  if (::fsync(file_->fd()) != 0) file_->fail("can't be synced");
  position_ += line.size();
}

void MergeJournalFile::remove() {
  ::unlink(path_.c_str());
  sync_directory(path_.parent_path());
}

}  // namespace dsctl::gguf
