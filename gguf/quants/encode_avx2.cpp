#include "gguf/quants/encode_formats.h"

namespace dsctl::gguf {

RowsEncoder encoder_avx2(DType dtype) {
  return encoder_of(dtype);
}

}  // namespace dsctl::gguf
