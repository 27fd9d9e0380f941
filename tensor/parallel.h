// SPDX-License-Identifier: Apache-2.0
// A team of threads for short parallel regions. Entering a region costs about a microsecond while the team is warm;
// waiting threads spin briefly, then park, so idle processes and busy neighbours cost nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace nibble {

class Team;

/// One thread's view of a running region.
struct Worker {
  int index = 0;
  int count = 1;
  Team* team = nullptr;

  /// All workers of the region must call it equally often. Spins, then parks.
  void barrier() const;
};

/// Non-owning reference to a callable; the callable must outlive the call.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& f)  // NOLINT: implicit by design, like std::function
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* o, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(o))(static_cast<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, static_cast<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class ThreadPool {
 public:
  /// threads >= 1, the calling thread included. Throws Error on a bad count.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;
  /// Runs body(worker) once on every worker and returns when all are done. Worker 0 is the caller. One region at a
  /// time; not reentrant. An exception from a body that reaches all workers' end is rethrown here (the first one);
  /// a body that uses barriers must not throw between them.
  void run(FunctionRef<void(const Worker&)> body);
  /// Splits [0, count) into chunks of `chunk` handed out dynamically: body(begin, end, worker).
  void for_each(int64_t count, int64_t chunk, FunctionRef<void(int64_t, int64_t, const Worker&)> body);

 private:
  std::unique_ptr<Team> team_;
};

}  // namespace nibble
