// SPDX-License-Identifier: Apache-2.0
// A copy of a quantised golden folder of tests/data/checkpoints, with something changed.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tensor/check.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/load_model.h"

namespace nibble::test {

/// A copy of a golden folder, to be broken.
struct Copy {
  TempDir dir;
  std::string path = dir / "model";

  explicit Copy(const std::string& name) {
    std::filesystem::copy(NIBBLE_TEST_DATA "/checkpoints/" + name, path, std::filesystem::copy_options::recursive);
  }
  const Copy& config(const std::function<void(nlohmann::json&)>& change) const {
    nlohmann::json value = nlohmann::json::parse(read_file(path + "/config.json"));
    change(value["quantization_config"]);
    write_file(path + "/config.json", value.dump());
    return *this;
  }
  /// Changes the header, then the data (by the header's new offsets).
  const Copy& weights(const std::function<void(nlohmann::json& header, std::string& data)>& change) const {
    const std::string file = read_file(path + "/model.safetensors");
    uint64_t size = 0;
    std::memcpy(&size, file.data(), 8);
    nlohmann::json header = nlohmann::json::parse(file.substr(8, size));
    std::string data = file.substr(8 + size);
    change(header, data);
    std::string text = header.dump();
    size = text.size();
    write_file(path + "/model.safetensors", std::string(reinterpret_cast<const char*>(&size), 8) + text + data);
    return *this;
  }
  /// Changes one tensor's entry and bytes; the offsets of all follow.
  const Copy& tensor(const std::string& name,
                     const std::function<void(nlohmann::json& entry, std::string& bytes)>& change) const {
    return weights([&](nlohmann::json& header, std::string& data) {
      std::string all;
      for (auto& [key, entry] : header.items()) {
        if (key == "__metadata__") continue;
        const size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
        std::string bytes = data.substr(begin, end - begin);
        if (key == name) change(entry, bytes);
        entry["data_offsets"] = {all.size(), all.size() + bytes.size()};
        all += bytes;
      }
      data = all;
    });
  }
  /// As `rows` rows of the first dimension that it has.
  const Copy& cut(const std::string& name, size_t rows) const {
    return tensor(name, [&](nlohmann::json& entry, std::string& bytes) {
      bytes.resize(bytes.size() / entry["shape"][0].get<size_t>() * rows);
      entry["shape"][0] = rows;
    });
  }
  /// With other values, as many bytes of them as there are.
  const Copy& bytes(const std::string& name, size_t at, const std::string& values) const {
    return tensor(name, [&](nlohmann::json&, std::string& all) { all.replace(at, values.size(), values); });
  }
  const Copy& rename(const std::string& from, const std::string& to) const {
    return weights([&](nlohmann::json& header, std::string&) {
      header[to] = header[from];
      header.erase(from);
    });
  }
  void refused(const std::vector<std::string>& mentions, int line = __builtin_LINE()) const {
    SCOPED_TRACE(message("line ", line));
    try {
      load_model(path);
      ADD_FAILURE() << "taken";
    } catch (const Error& error) {
      const std::string what = error.what();
      for (const std::string& text : mentions)
        EXPECT_NE(what.find(text), std::string::npos) << what << "\nlacks " << text;
    }
  }
};

}  // namespace nibble::test
