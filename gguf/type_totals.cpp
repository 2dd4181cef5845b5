#include "gguf/type_totals.h"

#include <algorithm>
#include <map>

namespace dsctl::gguf {

std::vector<TypeTotal> type_totals(const GgufFile& file) {
  std::map<DType, TypeTotal> by_type;
  for (const TensorInfo& tensor : file.tensors()) {
    TypeTotal& total = by_type[tensor.dtype];
    total.dtype = tensor.dtype;
    ++total.n_tensors;
    total.size_bytes += tensor.size_bytes;
  }
  std::vector<TypeTotal> totals;
  totals.reserve(by_type.size());
  for (const auto& [dtype, total] : by_type)
    totals.push_back(total);
  std::stable_sort(totals.begin(), totals.end(), [](const TypeTotal& a, const TypeTotal& b) {
    return a.size_bytes > b.size_bytes;
  });
  return totals;
}

}  // namespace dsctl::gguf
