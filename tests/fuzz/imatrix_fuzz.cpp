// ImportanceMatrix on arbitrary bytes, in both forms: it throws Error or its entries are whole.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "gguf/error.h"
#include "gguf/imatrix.h"

namespace {

using dsctl::gguf::ImportanceMatrix;

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const ImportanceMatrix& matrix) {
  for (const auto& entry : matrix.entries) {
    require(matrix.find(entry.name) == &entry);
    require(entry.n_cols > 0 && entry.n_matrices() > 0);
    require(static_cast<int64_t>(entry.sums.size()) == entry.n_cols * entry.n_matrices());
    for (const float value : dsctl::gguf::mean_squares(entry))
      require(value >= 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    check(ImportanceMatrix::parse_legacy(std::as_bytes(std::span(data, size)), "fuzz"));
  } catch (const dsctl::gguf::Error&) {
  }
  const int fd = ::memfd_create("fuzz", MFD_CLOEXEC);
  require(fd >= 0 && ::write(fd, data, size) == static_cast<ssize_t>(size));
  try {
    check(ImportanceMatrix::read("/proc/self/fd/" + std::to_string(fd)));
  } catch (const dsctl::gguf::Error& error) {
    require(error.what()[0] != '\0');
  }
  ::close(fd);
  return 0;
}
