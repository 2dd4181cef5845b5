// Rope with the write of keys and values, and paged attention. CPU twins: engine/cpu/rope.cpp,
// engine/cpu/attention.cpp.
#include "engine/cuda/kernels.h"
#include "engine/cuda/reduce.cuh"

namespace dsctl::engine::cuda {
namespace {

// Elements of the KV pages.

struct KvF32 {
  using Element = float;
  __device__ __forceinline__ static void store(Element* to, float value) { *to = value; }
  __device__ __forceinline__ static float4 load4(const Element* from) {
    return *reinterpret_cast<const float4*>(from);
  }
};

struct KvF16 {
  using Element = uint16_t;
  __device__ __forceinline__ static void store(Element* to, float value) { *to = half_bits(value); }
  __device__ __forceinline__ static float4 load4(const Element* from) {
    const uint2 bits = *reinterpret_cast<const uint2*>(from);
    return make_float4(half_value(bits.x & 0xffffu), half_value(bits.x >> 16),
                       half_value(bits.y & 0xffffu), half_value(bits.y >> 16));
  }
};

struct KvBF16 {
  using Element = uint16_t;
  __device__ __forceinline__ static void store(Element* to, float value) {
    *to = gguf::float_to_bfloat(value);
  }
  __device__ __forceinline__ static float4 load4(const Element* from) {
    const uint2 bits = *reinterpret_cast<const uint2*>(from);
    return make_float4(
        gguf::float_from_bits(bits.x << 16), gguf::float_from_bits(bits.x & 0xffff0000u),
        gguf::float_from_bits(bits.y << 16), gguf::float_from_bits(bits.y & 0xffff0000u));
  }
};

/// First element of a key or value.
__device__ __forceinline__ int64_t kv_element(const DeviceKvPages& kv, int64_t block, int offset,
                                              int kv_head) {
  return ((block * kv.n_kv_heads + kv_head) * kv.block_size + offset) * kv.head_dim;
}

constexpr int kRopeWarps = 8;

/// A thread is a position and a pair.
__global__ void rope_table_kernel(const double* frequencies, int n_pairs, double magnitude,
                                  int64_t n_values, float* cos_sin) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n_values) return;
  const double angle = static_cast<double>(i / n_pairs) * frequencies[i % n_pairs];
  cos_sin[2 * i] = static_cast<float>(cos(angle) * magnitude);
  cos_sin[2 * i + 1] = static_cast<float>(sin(angle) * magnitude);
}

/// A warp is a head of q, k or v of one token; it works in shared memory.
template <typename Kv>
__global__ void __launch_bounds__(32 * kRopeWarps) rope_kernel(RopeStoreDeviceArgs args) {
  __shared__ float heads[kRopeWarps][kMaxHeadDim];
  allow_next_kernel();
  wait_for_previous_kernel();
  const DeviceKvPages& kv = args.kv;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int head = static_cast<int>(blockIdx.x) * kRopeWarps + warp;
  const int token = static_cast<int>(blockIdx.y);
  const int n_heads = args.n_heads + 2 * kv.n_kv_heads;
  if (head >= n_heads) return;
  float* values = args.qkv + token * args.qkv_stride + static_cast<int64_t>(head) * kv.head_dim;
  float* own = heads[warp];
  const bool is_q = head < args.n_heads;
  const bool is_v = head >= args.n_heads + kv.n_kv_heads;

  float sum = 0.0f;
  for (int i = lane; i < kv.head_dim; i += 32) {
    own[i] = values[i];
    sum = fmaf(own[i], own[i], sum);
  }
  const float* norm = is_v ? nullptr : is_q ? args.q_norm : args.k_norm;
  if (norm != nullptr) {
    const float mean = warp_sum(sum) / static_cast<float>(kv.head_dim);
    const float factor = 1.0f / sqrtf(mean + args.eps);
    for (int i = lane; i < kv.head_dim; i += 32)
      own[i] = own[i] * factor * norm[i];
  }
  __syncwarp();
  if (!is_v) {
    const int n_pairs = args.n_dims / 2;
    const float* cos_sin = args.cos_sin + static_cast<int64_t>(args.positions[token]) * args.n_dims;
    for (int i = lane; i < n_pairs; i += 32) {
      const int first = args.style == RopeStyle::kNorm ? 2 * i : i;
      const int second = args.style == RopeStyle::kNorm ? 2 * i + 1 : i + n_pairs;
      const float a = own[first];
      const float b = own[second];
      const float cosine = cos_sin[2 * i];
      const float sine = cos_sin[2 * i + 1];
      own[first] = a * cosine - b * sine;
      own[second] = a * sine + b * cosine;
    }
    __syncwarp();
    for (int i = lane; i < kv.head_dim; i += 32)
      values[i] = own[i];
  }
  if (is_q) return;
  const int slot = args.slot_mapping[token];
  const int kv_head = head - args.n_heads - (is_v ? kv.n_kv_heads : 0);
  auto* page = reinterpret_cast<typename Kv::Element*>(is_v ? kv.v : kv.k);
  page += kv_element(kv, slot / kv.block_size, slot % kv.block_size, kv_head);
  for (int i = lane; i < kv.head_dim; i += 32)
    Kv::store(page + i, own[i]);
}

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kHeads = 8;  // query heads of one block, all of one KV head

/// The keys of one split that one token sees: [begin, end) within the split, empty when none.
struct KeyRange {
  int begin = 0;
  int end = 0;
};

__device__ __forceinline__ KeyRange visible_keys(int position, int window, int split) {
  const int first = window > 0 ? max(0, position - window + 1) : 0;
  const int split_begin = split * kSplitKeys;
  KeyRange range;
  range.begin = max(first - split_begin, 0);
  range.end = min(position + 1 - split_begin, kSplitKeys);
  return range;
}

/// A block is a split of the keys of one token, for up to 8 heads of one KV head: scores (four
/// lanes a key), their softmax within the split (a warp a head), the weighted sum of the values
/// (each thread four columns of every n-th key). Writes {maximum, sum, output} for each head.
/// Splits that the token does not see write nothing.
template <typename Kv>
__global__ void __launch_bounds__(kThreads) split_kernel(AttentionDeviceArgs args) {
  using Element = typename Kv::Element;
  __shared__ float4 q_chunks[kHeads * kMaxHeadDim / 4];
  __shared__ float scores[kHeads][kSplitKeys];
  __shared__ float4 reduced[kThreads];
  __shared__ int64_t key_elements[kSplitKeys];
  allow_next_kernel();
  wait_for_previous_kernel();
  const DeviceKvPages& kv = args.kv;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int lane = thread % 32;
  const int split = static_cast<int>(blockIdx.x);
  const int token = static_cast<int>(blockIdx.z);
  const int group = args.n_heads / kv.n_kv_heads;
  const int n_parts = (group + kHeads - 1) / kHeads;
  const int kv_head = static_cast<int>(blockIdx.y) / n_parts;
  const int first_head = kv_head * group + static_cast<int>(blockIdx.y) % n_parts * kHeads;
  const int n_heads = min(kHeads, (kv_head + 1) * group - first_head);
  const KeyRange keys = visible_keys(args.positions[token], args.window, split);
  if (keys.begin >= keys.end) return;

  const int n_chunks = kv.head_dim / 4;
  const float* q = args.q + token * args.q_stride + static_cast<int64_t>(first_head) * kv.head_dim;
  for (int i = thread; i < n_heads * n_chunks; i += kThreads) {
    q_chunks[i] = make_float4(q[4 * i], q[4 * i + 1], q[4 * i + 2], q[4 * i + 3]);
  }
  const int32_t* table =
      args.block_tables + static_cast<int64_t>(args.seq_of_token[token]) * args.table_stride;
  for (int i = keys.begin + thread; i < keys.end; i += kThreads) {
    const int position = split * kSplitKeys + i;
    key_elements[i] =
        kv_element(kv, table[position / kv.block_size], position % kv.block_size, kv_head);
  }
  __syncthreads();

  const auto* k_pages = reinterpret_cast<const Element*>(kv.k);
  for (int first = 0; first < kSplitKeys; first += kThreads / 4) {
    const int key = first + thread / 4;
    const bool seen = key >= keys.begin && key < keys.end;
    float dots[kHeads] = {};
    if (seen) {
      const Element* k = k_pages + key_elements[key];
      for (int chunk = thread % 4; chunk < n_chunks; chunk += 4) {
        const float4 k4 = Kv::load4(k + 4 * chunk);
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          if (h >= n_heads) break;
          const float4 q4 = q_chunks[h * n_chunks + chunk];
          dots[h] = fmaf(k4.x, q4.x, dots[h]);
          dots[h] = fmaf(k4.y, q4.y, dots[h]);
          dots[h] = fmaf(k4.z, q4.z, dots[h]);
          dots[h] = fmaf(k4.w, q4.w, dots[h]);
        }
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      dots[h] += __shfl_xor_sync(kAllLanes, dots[h], 1);
      dots[h] += __shfl_xor_sync(kAllLanes, dots[h], 2);
      float score = dots[h] * args.scale;
      if (args.softcap > 0.0f) score = args.softcap * tanhf(score / args.softcap);
      if (thread % 4 == 0) scores[h][key] = seen ? score : -INFINITY;
    }
  }
  __syncthreads();

  // (n_tokens, n_heads, n_splits, head_dim + 2)
  const int64_t partial_size = kv.head_dim + 2;
  float* partial =
      args.partial +
      ((static_cast<int64_t>(token) * args.n_heads + first_head) * args.n_splits + split) *
          partial_size;
  const int64_t head_stride = args.n_splits * partial_size;
  static_assert(kWarps == kHeads);
  if (warp < n_heads) {
    float own[kSplitKeys / 32];
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kSplitKeys / 32; ++i) {
      own[i] = scores[warp][i * 32 + lane];
      largest = fmaxf(largest, own[i]);
    }
    largest = warp_max(largest);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kSplitKeys / 32; ++i) {
      own[i] = expf(own[i] - largest);
      sum += own[i];
      scores[warp][i * 32 + lane] = own[i];
    }
    sum = warp_sum(sum);
    if (lane == 0) {
      partial[warp * head_stride] = largest;
      partial[warp * head_stride + 1] = sum;
    }
  }
  __syncthreads();

  // Thread (n-th key, chunk); which keys a thread adds up depends on head_dim alone.
  const int n_key_groups = kThreads / n_chunks;
  const int key_group = thread / n_chunks;
  const int chunk = thread % n_chunks;
  const auto* v_pages = reinterpret_cast<const Element*>(kv.v);
  float4 sums[kHeads];
#pragma unroll
  for (int h = 0; h < kHeads; ++h)
    sums[h] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (key_group < n_key_groups) {
    for (int key = key_group; key < keys.end; key += n_key_groups) {
      if (key < keys.begin) continue;
      const float4 v4 = Kv::load4(v_pages + key_elements[key] + 4 * chunk);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        if (h >= n_heads) break;
        const float weight = scores[h][key];
        sums[h].x = fmaf(weight, v4.x, sums[h].x);
        sums[h].y = fmaf(weight, v4.y, sums[h].y);
        sums[h].z = fmaf(weight, v4.z, sums[h].z);
        sums[h].w = fmaf(weight, v4.w, sums[h].w);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (h >= n_heads) break;
    reduced[thread] = sums[h];
    __syncthreads();
    if (thread < n_chunks) {
      float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      for (int g = 0; g < n_key_groups; ++g) {
        const float4 one = reduced[g * n_chunks + thread];
        total.x += one.x;
        total.y += one.y;
        total.z += one.z;
        total.w += one.w;
      }
      float* out = partial + h * head_stride + 2 + 4 * thread;
      out[0] = total.x;
      out[1] = total.y;
      out[2] = total.z;
      out[3] = total.w;
    }
    __syncthreads();
  }
}

/// A block is a head of one token, a thread one of its columns: the splits in ascending order.
__global__ void __launch_bounds__(kMaxHeadDim) combine_kernel(AttentionDeviceArgs args) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int head_dim = args.kv.head_dim;
  const int head = static_cast<int>(blockIdx.x);
  const int token = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(threadIdx.x);
  if (column >= head_dim) return;
  const int position = args.positions[token];
  const int first = args.window > 0 ? max(0, position - args.window + 1) / kSplitKeys : 0;
  const int last = position / kSplitKeys;
  const float* partial = args.partial + (static_cast<int64_t>(token) * args.n_heads + head) *
                                            args.n_splits * static_cast<int64_t>(head_dim + 2);
  float largest = -INFINITY;
  for (int split = first; split <= last; ++split)
    largest = fmaxf(largest, partial[static_cast<int64_t>(split) * (head_dim + 2)]);
  float sum = 0.0f;
  float value = 0.0f;
  for (int split = first; split <= last; ++split) {
    const float* own = partial + static_cast<int64_t>(split) * (head_dim + 2);
    const float factor = expf(own[0] - largest);
    sum = fmaf(own[1], factor, sum);
    value = fmaf(own[2 + column], factor, value);
  }
  args.out[token * args.out_stride + static_cast<int64_t>(head) * head_dim + column] = value / sum;
}

}  // namespace

void fill_rope_table(Stream& stream, const double* frequencies, int n_pairs, double magnitude,
                     int n_positions, float* cos_sin) {
  const int64_t n_values = static_cast<int64_t>(n_positions) * n_pairs;
  if (n_values == 0) return;  // a rope that turns nothing
  stream.launch("rope_table", rope_table_kernel,
                dim3(static_cast<unsigned>((n_values + kThreads - 1) / kThreads)), kThreads, 0,
                frequencies, n_pairs, magnitude, n_values, cos_sin);
}

void rope_store(Stream& stream, const RopeStoreDeviceArgs& args) {
  const int n_heads = args.n_heads + 2 * args.kv.n_kv_heads;
  const dim3 grid(static_cast<unsigned>((n_heads + kRopeWarps - 1) / kRopeWarps),
                  static_cast<unsigned>(args.n_tokens));
  const auto start = [&](auto kernel) {
    stream.launch("rope_store", kernel, grid, 32 * kRopeWarps, 0, args);
  };
  if (args.kv.dtype == gguf::DType::F32) return start(rope_kernel<KvF32>);
  if (args.kv.dtype == gguf::DType::F16) return start(rope_kernel<KvF16>);
  start(rope_kernel<KvBF16>);
}

void attention(Stream& stream, const AttentionDeviceArgs& args) {
  const int group = args.n_heads / args.kv.n_kv_heads;
  const int n_parts = (group + kHeads - 1) / kHeads;
  const dim3 grid(static_cast<unsigned>(args.n_splits),
                  static_cast<unsigned>(args.kv.n_kv_heads * n_parts),
                  static_cast<unsigned>(args.n_tokens));
  const auto start = [&](auto kernel) {
    stream.launch("attention", kernel, grid, kThreads, 0, args);
  };
  if (args.kv.dtype == gguf::DType::F32) {
    start(split_kernel<KvF32>);
  } else if (args.kv.dtype == gguf::DType::F16) {
    start(split_kernel<KvF16>);
  } else {
    start(split_kernel<KvBF16>);
  }
  stream.launch("attention_combine", combine_kernel,
                dim3(static_cast<unsigned>(args.n_heads), static_cast<unsigned>(args.n_tokens)),
                (args.kv.head_dim + 31) / 32 * 32, 0, args);
}

}  // namespace dsctl::engine::cuda
