// The fork in the road for batch-1 decode, measured: a CUDA graph of GEMV kernels, with and without
// programmatic dependent launch, against one persistent kernel whose producer warp streams the next
// operation's weights while a grid barrier waits. Weights: Q4_K values in 16x256 tiles (T16), in
// the order of the int8 tensor-core fragments; shapes: the four products of each layer of an 8B
// model. Prints CSV with the device's name; random data, never zeros; every variant is checked
// against a float64 sum on the host before it is timed.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

#define CHECK_CUDA(call)                                                                    \
  do {                                                                                      \
    const cudaError_t status_ = (call);                                                     \
    if (status_ != cudaSuccess) {                                                           \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(status_)); \
      std::exit(1);                                                                         \
    }                                                                                       \
  } while (0)

/// 16 rows x 256 columns of Q4_K: quants in fragment order, then {d, dmin, 96 scale bits} per row.
struct Tile {
  uint4 quants[4][32];
  uint4 scales[16];
};
static_assert(sizeof(Tile) == 2304, "a tile is 16 Q4_K blocks, no byte added");

/// One product y(rows) = W(rows, k) x(k).
struct Product {
  const Tile* weights;
  int n_panels;  // rows / 16
  int n_tiles;   // k / 256
  float* y;
};

constexpr int kMaxK = 28672;
constexpr int kWarps = 8;       // consumer warps of a block
constexpr int kStageTiles = 8;  // tiles of one ring stage: one a consumer warp
constexpr int kStages = 9;      // 9 x 18 KB of weights in flight per multiprocessor
constexpr int kMaxProducts = 256;

struct Fragment {
  uint4 quants[4];
  uint4 scales[2];
};

__device__ __forceinline__ uint4 load_streaming(const uint4* address) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3},[%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(address));
  return value;
}

__device__ __forceinline__ Fragment load_global(const Tile* tile, int lane) {
  const int row = lane >> 2;
  Fragment fragment;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    fragment.quants[i] = load_streaming(&tile->quants[i][lane]);
  fragment.scales[0] = load_streaming(&tile->scales[row]);
  fragment.scales[1] = load_streaming(&tile->scales[row + 8]);
  return fragment;
}

__device__ __forceinline__ Fragment load_shared(const Tile* tile, int lane) {
  const int row = lane >> 2;
  Fragment fragment;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    fragment.quants[i] = tile->quants[i][lane];
  fragment.scales[0] = tile->scales[row];
  fragment.scales[1] = tile->scales[row + 8];
  return fragment;
}

__device__ __forceinline__ void mma_u8s8(int c[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                         uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// Adds one tile's product to the two row sums of this lane. Column s of B holds the activations of
/// sub-block s only, so that after eight products C[row][s] is that sub-block's integer dot
/// product. `xq`: 256 int8 of this tile; `xf`: per two sub-blocks {scale a, scale b, scale*sum a,
/// scale*sum b}.
__device__ __forceinline__ void accumulate(const Fragment& fragment, int lane, const uint32_t* xq,
                                           const float4* xf, float& y0, float& y1) {
  const int group = lane >> 2;
  const int pair = lane & 3;
  const uint32_t b0 = xq[group * 8 + pair];
  const uint32_t b1 = xq[group * 8 + 4 + pair];
  const float4 f = xf[pair];
  int c[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool even = group == 2 * i;
    const bool odd = group == 2 * i + 1;
    const uint4 q = fragment.quants[i];
    mma_u8s8(c, q.x & 0x0f0f0f0fu, q.y & 0x0f0f0f0fu, q.z & 0x0f0f0f0fu, q.w & 0x0f0f0f0fu,
             even ? b0 : 0u, even ? b1 : 0u);
    // The high nibble stays where it is: a factor of 16, taken out with the scale.
    mma_u8s8(c, q.x & 0xf0f0f0f0u, q.y & 0xf0f0f0f0u, q.z & 0xf0f0f0f0u, q.w & 0xf0f0f0f0u,
             odd ? b0 : 0u, odd ? b1 : 0u);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const uint4 s = fragment.scales[r];
    const float2 d = __half22float2(*reinterpret_cast<const __half2*>(&s.x));
    const uint32_t low = pair <= 1 ? s.y : pair == 2 ? s.z : s.w;
    const uint32_t high = pair == 0 ? s.y : pair == 1 ? s.z : s.w;
    const uint32_t bits = __funnelshift_r(low, high, (24 * pair) & 31);
    const float m = static_cast<float>(bits & 63) * f.x * static_cast<float>(c[2 * r]) +
                    static_cast<float>((bits >> 12) & 63) * f.y * (1.0f / 16) *
                        static_cast<float>(c[2 * r + 1]);
    const float n =
        static_cast<float>((bits >> 6) & 63) * f.z + static_cast<float>((bits >> 18) & 63) * f.w;
    const float value = d.x * m - d.y * n;
    if (r == 0) {
      y0 += value;
    } else {
      y1 += value;
    }
  }
}

__device__ __forceinline__ void reduce_quad(float& y0, float& y1) {
  y0 += __shfl_xor_sync(~0u, y0, 1);
  y0 += __shfl_xor_sync(~0u, y0, 2);
  y1 += __shfl_xor_sync(~0u, y1, 1);
  y1 += __shfl_xor_sync(~0u, y1, 2);
}

/// Variant 1 and 2: one block a panel (or a grid-stride loop), eight warps split K.
template <bool kDependentLaunch>
__global__ void __launch_bounds__(kWarps * 32)
    gemv_kernel(Product product, const uint32_t* __restrict__ xq, const float4* __restrict__ xf) {
  __shared__ float partial[kWarps][16];
  const int warp = threadIdx.x >> 5;
  const int lane = threadIdx.x & 31;
  if (kDependentLaunch) asm volatile("griddepcontrol.launch_dependents;");
  bool waited = false;
  for (int panel = blockIdx.x; panel < product.n_panels; panel += gridDim.x) {
    const Tile* tiles = product.weights + static_cast<size_t>(panel) * product.n_tiles;
    float y0 = 0;
    float y1 = 0;
    Fragment now;
    if (warp < product.n_tiles) now = load_global(tiles + warp, lane);
    if (kDependentLaunch && !waited) {
      asm volatile("griddepcontrol.wait;" ::: "memory");
      waited = true;
    }
    for (int k = warp; k < product.n_tiles; k += kWarps) {
      Fragment next;
      const bool more = k + kWarps < product.n_tiles;
      if (more) next = load_global(tiles + k + kWarps, lane);
      accumulate(now, lane, xq + k * 64, xf + k * 4, y0, y1);
      if (more) now = next;
    }
    reduce_quad(y0, y1);
    if ((lane & 3) == 0) {
      partial[warp][lane >> 2] = y0;
      partial[warp][8 + (lane >> 2)] = y1;
    }
    __syncthreads();
    if (threadIdx.x < 16) {
      float sum = 0;
      for (int i = 0; i < kWarps; ++i)
        sum += partial[i][threadIdx.x];
      product.y[panel * 16 + threadIdx.x] = sum;
    }
    __syncthreads();
  }
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(count));
}

__device__ __forceinline__ void barrier_expect(uint64_t* barrier, uint32_t size_bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(size_bytes)
      : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

__device__ __forceinline__ void copy_bulk(void* to, const void* from, uint32_t size_bytes,
                                          uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(size_bytes), "r"(shared_address(barrier))
      : "memory");
}

struct Ring {
  Tile stages[kStages][kStageTiles];
  uint32_t xq[kMaxK / 4];
  float4 xf[kMaxK / 64];
  float partial[2][kWarps][16];
  uint64_t full[kStages];
  uint64_t empty[kStages];
};

struct Chain {
  Product products[kMaxProducts];
  int n_products;
};

__device__ __forceinline__ void consumers_sync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kWarps * 32) : "memory");
}

/// Variant 3: the whole chain in one launch. Warp 8 copies weights into a ring of shared memory and
/// never waits for anything but room; warps 0-7 wait at a grid barrier between products, fetch the
/// activations and eat the ring. `arrived` counts blocks, one counter a product, never reset:
/// `epoch` launches came before. Without kBarrier the products don't wait for one another: no real
/// model can run so, it is the ceiling for any better barrier.
template <bool kBarrier>
__global__ void __launch_bounds__((kWarps + 1) * 32, 1)
    chain_kernel(const Chain* __restrict__ chain, const uint32_t* xq, const float4* xf,
                 unsigned* arrived, unsigned epoch) {
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  Ring& ring = *reinterpret_cast<Ring*>(shared_bytes);
  const int warp = threadIdx.x >> 5;
  const int lane = threadIdx.x & 31;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(&ring.full[i], 1);
      barrier_init(&ring.empty[i], kWarps);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  const int n_products = chain->n_products;
  int stage = 0;
  uint32_t phase = 0;
  const auto advance = [&] {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  };
  if (warp == kWarps) {
    if (lane != 0) return;
    for (int i = 0; i < n_products; ++i) {
      const Product product = chain->products[i];
      for (int panel = blockIdx.x; panel < product.n_panels; panel += gridDim.x) {
        const Tile* tiles = product.weights + static_cast<size_t>(panel) * product.n_tiles;
        for (int k = 0; k < product.n_tiles; k += kStageTiles) {
          const int n = min(kStageTiles, product.n_tiles - k);
          const uint32_t size_bytes = static_cast<uint32_t>(n * sizeof(Tile));
          barrier_wait(&ring.empty[stage], phase ^ 1);
          barrier_expect(&ring.full[stage], size_bytes);
          copy_bulk(ring.stages[stage], tiles + k, size_bytes, &ring.full[stage]);
          advance();
        }
      }
    }
    return;
  }
  int side = 0;
  for (int i = 0; i < n_products; ++i) {
    const Product product = chain->products[i];
    if (kBarrier && i > 0) {
      if (threadIdx.x == 0) {
        const unsigned target = (epoch + 1) * gridDim.x;
        unsigned seen;
        do {
          asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                       : "=r"(seen)
                       : "l"(&arrived[i - 1])
                       : "memory");
        } while (static_cast<int>(seen - target) < 0);
      }
      consumers_sync();
    }
    // What the last product wrote lies in L2: plain loads could find a stale line in L1.
    const int n_words = product.n_tiles * 16;  // of 16 bytes
    for (int w = threadIdx.x; w < n_words; w += kWarps * 32) {
      reinterpret_cast<uint4*>(ring.xq)[w] = __ldcg(reinterpret_cast<const uint4*>(xq) + w);
    }
    for (int w = threadIdx.x; w < product.n_tiles * 4; w += kWarps * 32) {
      ring.xf[w] = __ldcg(xf + w);
    }
    consumers_sync();
    for (int panel = blockIdx.x; panel < product.n_panels; panel += gridDim.x) {
      float y0 = 0;
      float y1 = 0;
      for (int k = 0; k < product.n_tiles; k += kStageTiles) {
        barrier_wait(&ring.full[stage], phase);
        if (k + warp < product.n_tiles) {
          const Fragment fragment = load_shared(&ring.stages[stage][warp], lane);
          __syncwarp();
          if (lane == 0) barrier_arrive(&ring.empty[stage]);
          accumulate(fragment, lane, ring.xq + (k + warp) * 64, ring.xf + (k + warp) * 4, y0, y1);
        } else if (lane == 0) {
          barrier_arrive(&ring.empty[stage]);
        }
        advance();
      }
      reduce_quad(y0, y1);
      if ((lane & 3) == 0) {
        ring.partial[side][warp][lane >> 2] = y0;
        ring.partial[side][warp][8 + (lane >> 2)] = y1;
      }
      consumers_sync();
      if (threadIdx.x < 16) {
        float sum = 0;
        for (int w = 0; w < kWarps; ++w)
          sum += ring.partial[side][w][threadIdx.x];
        product.y[panel * 16 + threadIdx.x] = sum;
      }
      side ^= 1;  // two sides: the next panel's sums may be written while these are read
    }
    consumers_sync();
    if (threadIdx.x == 0) {
      __threadfence();
      asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(&arrived[i]) : "memory");
    }
  }
}

__global__ void fill_random_kernel(uint32_t* words, size_t n_words, uint64_t seed) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < n_words;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    uint64_t z = (i + 1) * 0x9E3779B97F4A7C15ull + seed;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    words[i] = static_cast<uint32_t>(z >> 16);
  }
}

/// Random bits make wild halves; this gives every row a sane d and dmin.
__global__ void set_scales_kernel(Tile* tiles, size_t n_tiles) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < n_tiles * 16;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    const __half2 d = __floats2half2_rn(1e-3f * (1 + (i % 7) * 0.1f), 5e-3f * (1 + (i % 5) * 0.1f));
    tiles[i / 16].scales[i % 16].x = *reinterpret_cast<const uint32_t*>(&d);
  }
}

__global__ void read_kernel(const uint4* words, uint32_t* out, size_t n_words) {
  uint32_t sum = 0;
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < n_words;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    const uint4 value = load_streaming(words + i);
    sum += value.x ^ value.y ^ value.z ^ value.w;
  }
  if (sum == 0x12345) *out = sum;
}

struct Shape {
  const char* name;
  int n_rows;
  int k;
};

constexpr Shape kLayer[] = {
    {"qkv", 6144, 4096}, {"o", 4096, 4096}, {"gate_up", 28672, 4096}, {"down", 4096, 14336}};
constexpr int kLayers = 32;

class Bench {
 public:
  Bench() {
    CHECK_CUDA(cudaGetDeviceProperties(&properties_, 0));
    CHECK_CUDA(cudaStreamCreate(&stream_));
    size_t n_tiles = 0;
    for (const Shape& shape : kLayer)
      n_tiles += tiles_of(shape);
    n_tiles_ = n_tiles * kLayers;
    CHECK_CUDA(cudaMalloc(&weights_, n_tiles_ * sizeof(Tile)));
    fill_random_kernel<<<2112, 256>>>(reinterpret_cast<uint32_t*>(weights_),
                                      n_tiles_ * sizeof(Tile) / 4, 7);
    set_scales_kernel<<<2112, 256>>>(weights_, n_tiles_);
    CHECK_CUDA(cudaMalloc(&xq_, kMaxK));
    CHECK_CUDA(cudaMalloc(&xf_, kMaxK / 64 * sizeof(float4)));
    CHECK_CUDA(cudaMalloc(&arrived_, kMaxProducts * sizeof(unsigned)));
    CHECK_CUDA(cudaMemset(arrived_, 0, kMaxProducts * sizeof(unsigned)));
    fill_random_kernel<<<8, 256>>>(xq_, kMaxK / 4, 3);
    set_activation_scales();
    make_chain();
    for (const auto kernel : {chain_kernel<true>, chain_kernel<false>}) {
      CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(sizeof(Ring))));
    }
  }

  void run() {
    const double read_gb_s = measure_read();
    report("plain_read", 0, read_gb_s, read_gb_s);
    check("graph", [&] { launch_products<false>(0); });
    check("persistent", [&] { launch_chain<true>(); });
    const size_t size_bytes = n_tiles_ * sizeof(Tile);
    for (const int cap : {0, 2, 4, 8}) {
      const double plain_ms = time_graph([&] { launch_products<false>(cap); });
      report(cap == 0 ? "graph" : "graph_capped", plain_ms, size_bytes / plain_ms / 1e6, read_gb_s);
      const double dependent_ms = time_graph([&] { launch_products<true>(cap); });
      report(cap == 0 ? "graph_pdl" : "graph_pdl_capped", dependent_ms,
             size_bytes / dependent_ms / 1e6, read_gb_s);
    }
    const double chain_ms = time_events([&] { launch_chain<true>(); });
    report("persistent", chain_ms, size_bytes / chain_ms / 1e6, read_gb_s);
    const double free_ms = time_events([&] { launch_chain<false>(); });
    report("persistent_no_barrier", free_ms, size_bytes / free_ms / 1e6, read_gb_s);
    check("persistent_after", [&] { launch_chain<true>(); });
  }

 private:
  static size_t tiles_of(const Shape& shape) {
    return static_cast<size_t>(shape.n_rows / 16) * (shape.k / 256);
  }

  void report(const char* variant, double ms, double gb_s, double read_gb_s) const {
    std::printf("\"%s\",%s,%.4f,%.0f,%.1f\n", properties_.name, variant, ms, gb_s,
                100 * gb_s / read_gb_s);
  }

  void set_activation_scales() {
    std::vector<int8_t> x(kMaxK);
    CHECK_CUDA(cudaMemcpy(x.data(), xq_, kMaxK, cudaMemcpyDeviceToHost));
    std::vector<float> scales(kMaxK / 32 * 2);
    for (int block = 0; block < kMaxK / 32; ++block) {
      int sum = 0;
      for (int i = 0; i < 32; ++i)
        sum += x[block * 32 + i];
      const float scale = activation_scale(block);
      scales[block / 2 * 4 + block % 2] = scale;
      scales[block / 2 * 4 + 2 + block % 2] = scale * static_cast<float>(sum);
    }
    CHECK_CUDA(
        cudaMemcpy(xf_, scales.data(), scales.size() * sizeof(float), cudaMemcpyHostToDevice));
  }

  static float activation_scale(int block) { return 0.01f * static_cast<float>(1 + block % 3); }

  void make_chain() {
    size_t offset = 0;
    size_t n_outputs = 0;
    for (const Shape& shape : kLayer)
      n_outputs += static_cast<size_t>(shape.n_rows);
    CHECK_CUDA(cudaMalloc(&y_, n_outputs * kLayers * sizeof(float)));
    n_outputs_ = n_outputs * kLayers;
    float* y = y_;
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const Shape& shape : kLayer) {
        chain_.products[chain_.n_products++] = {weights_ + offset, shape.n_rows / 16, shape.k / 256,
                                                y};
        offset += tiles_of(shape);
        y += shape.n_rows;
      }
    }
    CHECK_CUDA(cudaMalloc(&device_chain_, sizeof(Chain)));
    CHECK_CUDA(cudaMemcpy(device_chain_, &chain_, sizeof(Chain), cudaMemcpyHostToDevice));
  }

  template <bool kDependentLaunch>
  void launch_products(int cap) {
    for (int i = 0; i < chain_.n_products; ++i) {
      const Product& product = chain_.products[i];
      const int grid = cap > 0 ? std::min(product.n_panels, cap * properties_.multiProcessorCount)
                               : product.n_panels;
      cudaLaunchConfig_t config = {};
      config.gridDim = dim3(static_cast<unsigned>(grid));
      config.blockDim = dim3(kWarps * 32);
      config.stream = stream_;
      cudaLaunchAttribute attribute;
      attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attribute.val.programmaticStreamSerializationAllowed = 1;
      config.attrs = &attribute;
      config.numAttrs = kDependentLaunch ? 1 : 0;
      CHECK_CUDA(cudaLaunchKernelEx(&config, gemv_kernel<kDependentLaunch>, product,
                                    static_cast<const uint32_t*>(xq_),
                                    static_cast<const float4*>(xf_)));
    }
  }

  template <bool kBarrier>
  void launch_chain() {
    const int grid = properties_.multiProcessorCount;
    chain_kernel<kBarrier><<<grid, (kWarps + 1) * 32, sizeof(Ring), stream_>>>(
        device_chain_, xq_, xf_, arrived_, epoch_++);
    CHECK_CUDA(cudaGetLastError());
  }

  template <typename Launch>
  double time_events(const Launch& launch) {
    cudaEvent_t begin;
    cudaEvent_t end;
    CHECK_CUDA(cudaEventCreate(&begin));
    CHECK_CUDA(cudaEventCreate(&end));
    std::vector<float> times;
    for (int i = 0; i < 33; ++i) {
      CHECK_CUDA(cudaEventRecord(begin, stream_));
      launch();
      CHECK_CUDA(cudaEventRecord(end, stream_));
      CHECK_CUDA(cudaEventSynchronize(end));
      float ms = 0;
      CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end));
      if (i >= 3) times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

  template <typename Launch>
  double time_graph(const Launch& launch) {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    CHECK_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    launch();
    CHECK_CUDA(cudaStreamEndCapture(stream_, &graph));
    CHECK_CUDA(cudaGraphInstantiate(&executable, graph, 0));
    const double ms = time_events([&] { CHECK_CUDA(cudaGraphLaunch(executable, stream_)); });
    CHECK_CUDA(cudaGraphExecDestroy(executable));
    CHECK_CUDA(cudaGraphDestroy(graph));
    return ms;
  }

  double measure_read() {
    const size_t n_words = n_tiles_ * sizeof(Tile) / sizeof(uint4);
    double best = 0;
    for (const int blocks_per_sm : {4, 8, 16}) {
      const double ms = time_events([&] {
        read_kernel<<<blocks_per_sm * properties_.multiProcessorCount, 512, 0, stream_>>>(
            reinterpret_cast<const uint4*>(weights_), arrived_ + kMaxProducts - 1, n_words);
      });
      best = std::max(best, n_words * sizeof(uint4) / ms / 1e6);
    }
    return best;
  }

  /// Runs a variant over poisoned outputs and compares every 97th row of the chain with float64
  /// sums.
  template <typename Launch>
  void check(const char* variant, const Launch& launch) {
    CHECK_CUDA(cudaMemsetAsync(y_, 0xff, n_outputs_ * sizeof(float), stream_));
    launch();
    CHECK_CUDA(cudaStreamSynchronize(stream_));
    std::vector<float> y(n_outputs_);
    CHECK_CUDA(cudaMemcpy(y.data(), y_, n_outputs_ * sizeof(float), cudaMemcpyDeviceToHost));
    std::vector<int8_t> x(kMaxK);
    CHECK_CUDA(cudaMemcpy(x.data(), xq_, kMaxK, cudaMemcpyDeviceToHost));
    double error = 0;
    double norm = 0;
    size_t first = 0;
    for (int i = 0; i < chain_.n_products; ++i) {
      const Product& product = chain_.products[i];
      for (int row = i % 97; row < product.n_panels * 16; row += 97 * 8) {
        const double expected = reference(product, row, x);
        const double difference = expected - y[first + static_cast<size_t>(row)];
        error += difference * difference;
        norm += expected * expected;
      }
      first += static_cast<size_t>(product.n_panels) * 16;
    }
    const double relative = std::sqrt(error / norm);
    std::fprintf(stderr, "%s: relative error %.2e\n", variant, relative);
    if (!(relative < 1e-5)) {
      std::fprintf(stderr, "%s: wrong result\n", variant);
      std::exit(1);
    }
    for (const float value : y) {
      if (!std::isfinite(value)) {
        std::fprintf(stderr, "%s: an output was not written\n", variant);
        std::exit(1);
      }
    }
  }

  double reference(const Product& product, int row, const std::vector<int8_t>& x) const {
    std::vector<Tile> tiles(static_cast<size_t>(product.n_tiles));
    CHECK_CUDA(cudaMemcpy(tiles.data(),
                          product.weights + static_cast<size_t>(row / 16) * product.n_tiles,
                          tiles.size() * sizeof(Tile), cudaMemcpyDeviceToHost));
    const int r = row % 16;
    double sum = 0;
    for (int k = 0; k < product.n_tiles; ++k) {
      const Tile& tile = tiles[static_cast<size_t>(k)];
      const uint4 s = tile.scales[r];
      const __half2 d = *reinterpret_cast<const __half2*>(&s.x);
      const uint32_t words[4] = {s.y, s.z, s.w, 0};
      for (int block = 0; block < 8; ++block) {
        const int bit = 24 * (block / 2);
        const uint64_t pair = words[bit / 32] | static_cast<uint64_t>(words[bit / 32 + 1]) << 32;
        const auto bits = static_cast<uint32_t>(pair >> (bit % 32)) >> (12 * (block % 2));
        int dot = 0;
        int x_sum = 0;
        for (int i = 0; i < 32; ++i) {
          const int word = (r / 8) + 2 * (i / 16);
          const uint4& quad = tile.quants[block / 2][(r % 8) * 4 + i % 16 / 4];
          const uint32_t v = reinterpret_cast<const uint32_t*>(&quad)[word];
          const int q = static_cast<int>(v >> (8 * (i % 4) + 4 * (block % 2))) & 15;
          const int value = x[static_cast<size_t>(k * 256 + block * 32 + i)];
          dot += q * value;
          x_sum += value;
        }
        const double scale = activation_scale(k * 8 + block);
        sum += static_cast<double>(__low2float(d)) * (bits & 63) * scale * dot -
               static_cast<double>(__high2float(d)) * ((bits >> 6) & 63) * scale * x_sum;
      }
    }
    return sum;
  }

  cudaDeviceProp properties_{};
  cudaStream_t stream_ = nullptr;
  Tile* weights_ = nullptr;
  size_t n_tiles_ = 0;
  uint32_t* xq_ = nullptr;
  float4* xf_ = nullptr;
  float* y_ = nullptr;
  size_t n_outputs_ = 0;
  unsigned* arrived_ = nullptr;
  unsigned epoch_ = 0;
  Chain chain_{};
  Chain* device_chain_ = nullptr;
};

}  // namespace

int main() {
  std::printf("device,variant,ms,gb_s,percent_of_read\n");
  Bench bench;
  bench.run();
  return 0;
}
