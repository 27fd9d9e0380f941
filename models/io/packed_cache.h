// SPDX-License-Identifier: Apache-2.0
// Packed weights kept on disk, so that the next start maps them instead of packing them again. Nothing here is needed
// for a result: whatever goes wrong is a note, and the weights are packed as without a cache.
//
// A copy is found by a key, any text that says everything its bytes depend on. Its file,
// <hash of the key>.packed, all numbers little-endian:
//   0       magic "nibblepk", version (u64), check (two u64), size of the file, size of the head (u64 each)
//   48      head: key, about, then the tensors (name, offset, bytes); texts as u64 length and bytes; u64 count in front
//   ...     tensors, each at a multiple of 64, the first at a multiple of 4096
// `check` is a hash of the head and of bytes taken from all over the data: a file that lost parts of what was written
// is found out without reading it all.
//
// Copies are written beside their place under a lock and renamed when they are whole and on the disk, so a process that
// dies, or several that write the same one, never leave a partial copy to be found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/io/content_hash.h"
#include "tensor/buffer.h"
#include "tensor/parallel.h"

namespace nibble::models {

struct PackedTensor {
  std::string name;
  std::span<const std::byte> data;
};

/// A copy, mapped read-only; what find() gives lives as long as this.
class PackedCopy {
 public:
  /// The tensor's bytes, 64-byte aligned; empty when there is none of that name.
  std::span<const std::byte> find(std::string_view name) const;
  const std::string& path() const { return file_.path(); }

 private:
  friend class PackedCache;
  MappedFile file_;
  std::map<std::string, std::span<const std::byte>, std::less<>> tensors_;
};

class PackedCache {
 public:
  using Note = std::function<void(const std::string&)>;

  /// Goes into every key's file name: raise it when the packed layout, or what packing or quantising makes of the same
  /// numbers, changes.
  static constexpr uint64_t version = 1;

  /// `folder` is made when something is stored. `note` is told what went wrong.
  explicit PackedCache(std::string folder, Note note = {});

  const std::string& folder() const { return folder_; }

  /// A text that is the same for files of the same contents in the same order. Reads them, unless that was done before
  /// and neither their place, size nor times have changed.
  std::string content_key(std::span<const MappedFile* const> files, ThreadPool& pool) const;
  /// nullopt when there is no copy, or none that can be used (with a note).
  std::optional<PackedCopy> find(std::string_view key) const;
  /// `about` is for people. Returns whether there is such a copy now; else there is a note.
  bool store(std::string_view key, std::string_view about, std::span<const PackedTensor> tensors) const;

  struct Listed {
    std::string path, about;  ///< about is empty when the file is not a copy that this version can use
    uint64_t bytes = 0;
  };
  std::vector<Listed> list() const;
  /// Removes all copies and what else this class wrote into the folder, but for what is being written just now; returns
  /// the bytes freed.
  uint64_t clear() const;

 private:
  std::string copy_path(std::string_view key) const;
  void note(const std::string& text) const;
  std::string folder_;
  Note note_;
};

/// $XDG_CACHE_HOME/nibble/packed, else ~/.cache/nibble/packed. Throws Error when neither variable is set.
std::string default_packed_cache();

}  // namespace nibble::models
