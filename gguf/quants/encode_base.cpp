#include "gguf/quants/encode_formats.h"

namespace dsctl::gguf {

RowsEncoder encoder_base(DType dtype) {
  return encoder_of(dtype);
}

}  // namespace dsctl::gguf
