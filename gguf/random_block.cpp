#include "gguf/random_block.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "gguf/quants/all.h"
#include "gguf/quants/encode.h"

namespace dsctl::gguf {

void random_block(DType dtype, float std_dev, std::byte* block, std::mt19937_64& random) {
  const DTypeInfo& info = dtype_info(dtype);
  std::vector<float> values(static_cast<size_t>(info.block_elems));
  if (can_quantize(dtype)) {
    std::normal_distribution<float> normal(0.0f, std_dev);
    for (float& value : values)
      value = normal(random);
    quantize_row(dtype, values.data(), block, info.block_elems);
    return;
  }
  for (;;) {
    for (int i = 0; i < info.block_bytes; ++i)
      block[i] = static_cast<std::byte>(random() & 255);
    if (dtype == DType::F64) {
      const double value = std::normal_distribution<double>()(random);
      std::memcpy(block, &value, sizeof(value));
    } else if (dtype == DType::I32 || dtype == DType::I64) {
      // Small numbers: the last bytes are the high ones.
      std::memset(block + 1, 0, static_cast<size_t>(info.block_bytes - 1));
    } else if (dtype == DType::Q8_K) {
      const float scale = std::uniform_real_distribution<float>(0.01f, 0.1f)(random);
      std::memcpy(block, &scale, sizeof(scale));
    }
    dequantize_row(dtype, block, values.data(), info.block_elems);
    float largest = 0.0f;
    bool finite = true;
    for (const float value : values) {
      finite = finite && std::isfinite(value);
      largest = std::max(largest, std::fabs(value));
    }
    const bool is_integer = dtype == DType::I8 || dtype == DType::I16 || dtype == DType::I32 ||
                            dtype == DType::I64 || dtype == DType::F64;
    if (finite && (is_integer || (largest > 0.05f && largest < 20.0f))) return;
  }
}

}  // namespace dsctl::gguf
