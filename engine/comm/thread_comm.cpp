#include "engine/comm/thread_comm.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <exception>
#include <thread>

#include "engine/error.h"

namespace dsctl::engine {
namespace {

/// Polls before a waiting rank sleeps. An exchange between ranks that run side by side is over in
/// a microsecond or two, sleeping and waking costs tens.
constexpr int kSpins = 2000;

/// The Error that an abort raises in the ranks that did not cause it.
class Aborted : public Error {
  using Error::Error;
};

}  // namespace

struct ThreadGroup::Shared {
  struct Posted {
    const void* data = nullptr;
    size_t n_bytes = 0;
    size_t n_whole_bytes = 0;  // all_gather: what this rank expects of all together
  };

  explicit Shared(int n_ranks) : posted(static_cast<size_t>(n_ranks)) {}

  std::vector<Posted> posted;  // (n_ranks) what each rank brought to the operation under way
  std::atomic<uint32_t> n_arrived{0};
  std::atomic<uint32_t> generation{0};  // grows when a barrier opens and when the group is aborted
  std::atomic<bool> aborted{false};
  std::mutex mutex;
  std::string reason;  // guarded by mutex

  void check() {
    if (!aborted.load(std::memory_order_acquire)) return;
    const std::lock_guard lock(mutex);
    throw Aborted(reason);
  }

  void abort(const std::string& why) {
    {
      const std::lock_guard lock(mutex);
      if (aborted.load(std::memory_order_relaxed)) return;
      reason = why;
      aborted.store(true, std::memory_order_release);
    }
    generation.fetch_add(1, std::memory_order_acq_rel);
    generation.notify_all();
  }

  /// The generation is read before the abort flag: an abort raises the flag first, so whoever read
  /// the generation after its increment sees the flag, whoever read it before is woken by it.
  void barrier() {
    const uint32_t before = generation.load(std::memory_order_acquire);
    check();
    const auto n_ranks = static_cast<uint32_t>(posted.size());
    if (n_arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == n_ranks) {
      n_arrived.store(0, std::memory_order_relaxed);
      generation.fetch_add(1, std::memory_order_acq_rel);
      generation.notify_all();
    } else {
      for (int spin = 0; spin < kSpins; ++spin) {
        if (generation.load(std::memory_order_acquire) != before) break;
      }
      while (generation.load(std::memory_order_acquire) == before)
        generation.wait(before);
    }
    check();
  }
};

class ThreadGroup::End final : public Communicator {
 public:
  End(Shared* shared, int rank) : shared_(*shared), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(shared_.posted.size()); }

  /// Each rank adds up one slice of all the buffers and writes the sums into all of them, so that
  /// every sum is computed once.
  void all_reduce(std::span<float> values) override {
    if (size() == 1) return;
    post(values.data(), values.size_bytes());
    require(std::all_of(shared_.posted.begin(), shared_.posted.end(),
                        [&](const auto& other) { return other.n_bytes == values.size_bytes(); }),
            "all_reduce: the ranks' buffers differ in size");
    const size_t n_ranks = shared_.posted.size();
    const size_t begin = values.size() * static_cast<size_t>(rank_) / n_ranks;
    const size_t end = values.size() * (static_cast<size_t>(rank_) + 1) / n_ranks;
    for (size_t i = begin; i < end; ++i) {
      float sum = buffer(0)[i];
      for (size_t other = 1; other < n_ranks; ++other)
        sum += buffer(other)[i];
      for (size_t other = 0; other < n_ranks; ++other)
        buffer(other)[i] = sum;
    }
    shared_.barrier();
  }

  void all_gather(std::span<const float> part, std::span<float> all) override {
    post(part.data(), part.size_bytes(), all.size_bytes());
    size_t n_bytes = 0;
    for (const auto& other : shared_.posted)
      n_bytes += other.n_bytes;
    // Every rank judges every rank's expectation: a rank that went on alone would read a buffer
    // whose owner has left with an error.
    require(std::all_of(shared_.posted.begin(), shared_.posted.end(),
                        [&](const auto& other) { return other.n_whole_bytes == n_bytes; }),
            "all_gather: the ranks' parts are not as long as the whole");
    auto* out = reinterpret_cast<std::byte*>(all.data());
    for (const auto& other : shared_.posted) {
      if (other.n_bytes > 0 && other.data != out) std::memcpy(out, other.data, other.n_bytes);
      out += other.n_bytes;
    }
    shared_.barrier();
  }

  void broadcast(std::span<std::byte> bytes, int root) override {
    assert(root >= 0 && root < size());
    if (size() == 1) return;
    post(bytes.data(), bytes.size());
    const auto& source = shared_.posted[static_cast<size_t>(root)];
    require(std::all_of(shared_.posted.begin(), shared_.posted.end(),
                        [&](const auto& other) { return other.n_bytes == source.n_bytes; }),
            "broadcast: the ranks' buffers differ in size");
    if (rank_ != root && !bytes.empty()) std::memcpy(bytes.data(), source.data, bytes.size());
    shared_.barrier();
  }

  void barrier() override { shared_.barrier(); }

 private:
  /// Shows this rank's buffer to the others and waits for theirs.
  void post(const void* data, size_t n_bytes, size_t n_whole_bytes = 0) {
    shared_.check();  // an aborted group's entries are no longer written: somebody may be reading
    shared_.posted[static_cast<size_t>(rank_)] = {
        .data = data, .n_bytes = n_bytes, .n_whole_bytes = n_whole_bytes};
    shared_.barrier();
  }

  /// Ranks that disagree must not leave the others waiting.
  void require(bool agreed, const char* message) {
    if (agreed) return;
    shared_.abort(message);
    throw Error(message);
  }

  float* buffer(size_t rank) const {
    return static_cast<float*>(const_cast<void*>(shared_.posted[rank].data));
  }

  Shared& shared_;
  int rank_;
};

ThreadGroup::ThreadGroup(int n_ranks) : shared_(std::make_unique<Shared>(n_ranks)) {
  assert(n_ranks >= 1);
  for (int rank = 0; rank < n_ranks; ++rank) {
    ends_.push_back(std::make_unique<End>(shared_.get(), rank));
  }
}

ThreadGroup::~ThreadGroup() = default;

Communicator& ThreadGroup::rank(int rank) {
  return *ends_.at(static_cast<size_t>(rank));
}

void ThreadGroup::abort(const std::string& reason) {
  shared_->abort(reason);
}

bool ThreadGroup::aborted() const {
  return shared_->aborted.load(std::memory_order_acquire);
}

void ThreadGroup::reset() {
  const std::lock_guard lock(shared_->mutex);
  shared_->n_arrived.store(0, std::memory_order_relaxed);
  shared_->reason.clear();
  shared_->aborted.store(false, std::memory_order_release);
}

void run_ranks(ThreadGroup& group, const std::function<void(Communicator&)>& work) {
  std::mutex mutex;
  std::exception_ptr cause;   // what a rank threw itself
  std::exception_ptr echoed;  // what an abort from elsewhere raised
  const auto run = [&](int rank) {
    try {
      work(group.rank(rank));
    } catch (const Aborted&) {
      const std::lock_guard lock(mutex);
      if (!echoed) echoed = std::current_exception();
    } catch (const std::exception& error) {
      {
        const std::lock_guard lock(mutex);
        if (!cause) cause = std::current_exception();
      }
      group.abort("rank " + std::to_string(rank) + ": " + error.what());
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int rank = 1; rank < group.size(); ++rank)
      threads.emplace_back(run, rank);
    run(0);
  }
  if (cause) std::rethrow_exception(cause);
  if (echoed) std::rethrow_exception(echoed);
}

}  // namespace dsctl::engine
