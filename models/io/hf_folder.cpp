// SPDX-License-Identifier: Apache-2.0
#include "models/io/hf_folder.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "models/io/json_text.h"
#include "models/io/quantized.h"
#include "models/io/safetensors.h"
#include "models/io/split_mxfp4.h"
#include "tensor/check.h"

namespace nibble::models {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t max_config_bytes = 16 << 20, max_index_bytes = 64 << 20;
constexpr const char* index_name = "model.safetensors.index.json";

bool inside(const fs::path& file, const fs::path& folder) {
  const auto [end, ignored] = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
  return end == folder.end();
}

bool plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

}  // namespace

HfFolder::HfFolder(const std::string& path) : path_(path) {
  while (path_.size() > 1 && path_.ends_with('/')) path_.pop_back();
}

/// The path of a file, "" when there is none. A hub cache's snapshots link to the blobs beside them; other links out of
/// the folder are refused.
std::string HfFolder::file_path(const std::string& name) const {
  NIBBLE_CHECK(plain_name(name), path_, ": expected the name of a file in this folder, found '", printable(name), "'");
  const fs::path file = fs::path(path_) / name;
  std::error_code error;
  if (!fs::exists(file, error)) return "";
  const fs::path real = fs::canonical(file, error), folder = fs::canonical(path_, error);
  NIBBLE_CHECK(!error, file.string(), ": ", error.message());
  const fs::path blobs = folder.parent_path().parent_path() / "blobs";
  const bool cached = folder.parent_path().filename() == "snapshots" && inside(real, blobs);
  NIBBLE_CHECK(inside(real, folder) || cached, file.string(), ": is a link that leaves the folder");
  return file.string();
}

std::optional<std::string> HfFolder::text(const std::string& name, uint64_t limit) const {
  const std::string file = file_path(name);
  if (file.empty()) return std::nullopt;
  const MappedFile mapped(file);
  NIBBLE_CHECK(mapped.bytes().size() <= limit, file, ": expected at most ", limit, " bytes, found ",
               mapped.bytes().size());
  return std::string(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
}

std::optional<nlohmann::json> HfFolder::json(const std::string& name, uint64_t limit) const {
  const std::optional<std::string> content = text(name, limit);
  if (!content) return std::nullopt;
  nlohmann::json value = parse_json(*content, path_ + "/" + name);
  NIBBLE_CHECK(value.is_object(), path_, "/", name, ": expected an object, found ", value.type_name());
  return value;
}

/// model.safetensors, or the only .safetensors file that there is.
std::string HfFolder::only_weights() const {
  if (std::string file = file_path("model.safetensors"); !file.empty()) return file;
  std::set<std::string> safe, pickled;
  std::error_code error;
  for (fs::directory_iterator at(path_, error), end; at != end; at.increment(error)) {
    const std::string name = at->path().filename().string(), ending = at->path().extension().string();
    if (ending == ".safetensors") safe.insert(name);
    if (ending == ".bin" || ending == ".pt" || ending == ".pth") pickled.insert(name);
  }
  if (safe.size() == 1) return file_path(*safe.begin());
  NIBBLE_CHECK(safe.empty(), path_, ": expected model.safetensors or ", index_name, ", found ", safe.size(),
               " other .safetensors files");
  NIBBLE_CHECK(pickled.empty(), path_, ": ", printable(*pickled.begin()),
               " is a pickle, which can run any program, so it is not read: "
               "save the model again with transformers' save_pretrained, or convert it to GGUF");
  fail(path_, ": no weights: expected model.safetensors or ", index_name);
}

void HfFolder::open_shards() {
  const std::optional<nlohmann::json> index = json(index_name, max_index_bytes);
  std::map<std::string, size_t> shards;  // file name -> index
  if (!index) {
    files_.emplace_back(only_weights());
  } else {
    const auto map = index->find("weight_map");
    NIBBLE_CHECK(map != index->end() && map->is_object(), path_, "/", index_name,
                 ": key 'weight_map': expected an object");
    for (const auto& [tensor, shard] : map->items()) {
      NIBBLE_CHECK(shard.is_string() && plain_name(shard.get<std::string>()), path_, "/", index_name, ": tensor '",
                   printable(tensor), "': expected the name of a file in this folder, found ",
                   printable(shard.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
      shards.emplace(shard.get<std::string>(), 0);
    }
    for (auto& [name, number] : shards) {
      const std::string file = file_path(name);
      NIBBLE_CHECK(!file.empty(), path_, ": the shard ", printable(name), " that ", index_name, " names is missing");
      number = files_.size();
      files_.emplace_back(file);
    }
  }
  for (size_t i = 0; i < files_.size(); ++i)
    for (StoredTensor& tensor : read_safetensors(files_[i], i)) tensors_.push_back(std::move(tensor));
  std::sort(tensors_.begin(), tensors_.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  for (size_t i = 1; i < tensors_.size(); ++i)
    NIBBLE_CHECK(tensors_[i - 1].name != tensors_[i].name, file(tensors_[i]).path(), ": tensor '",
                 printable(tensors_[i].name), "' is also in ", file(tensors_[i - 1]).path());
  if (!index) return;
  for (const auto& [name, shard] : index->at("weight_map").items()) {
    const StoredTensor* found = exact(name);
    NIBBLE_CHECK(found != nullptr && found->file == shards.at(shard.get<std::string>()), path_, "/", index_name,
                 ": tensor '", printable(name), "' is not in ", printable(shard.get<std::string>()));
  }
}

HfFolder HfFolder::open(const std::string& path) {
  HfFolder folder(path);
  const bool adapter = folder.file_path("config.json").empty() && !folder.file_path("adapter_config.json").empty();
  NIBBLE_CHECK(!adapter, folder.path_,
               ": an adapter (adapter_config.json), not a model: merge it into its base model first");
  NIBBLE_CHECK(!folder.file_path("config.json").empty(), folder.path_, ": not a model folder: it has no config.json");
  folder.open_shards();
  join_split_mxfp4(folder.tensors_, folder.path_);
  folder.tensors_ = join_quantized(folder, folder.metadata());
  return folder;
}

const StoredTensor* HfFolder::exact(std::string_view name) const {
  const auto it = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const StoredTensor& tensor, std::string_view n) { return tensor.name < n; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

const StoredTensor* HfFolder::tensor(std::string_view name) const {
  if (const StoredTensor* found = exact(name)) return found;
  const std::string whole(name);
  for (const char* wrapper : {"language_model.", "model.language_model."})
    if (const StoredTensor* found = exact(wrapper + whole)) return found;
  for (const std::string_view base : {"model.", "transformer."}) {
    if (!name.starts_with(base)) continue;
    const std::string rest(name.substr(base.size()));
    for (const char* wrapper : {"model.language_model.", ""})
      if (const StoredTensor* found = exact(wrapper + rest)) return found;
  }
  return nullptr;
}

uint64_t HfFolder::file_bytes() const {
  uint64_t sum = 0;
  for (const MappedFile& file : files_) sum += file.bytes().size();
  return sum;
}

Metadata HfFolder::metadata() const {
  std::optional<nlohmann::json> config = json("config.json", max_config_bytes);
  NIBBLE_CHECK(config, path_, ": not a model folder: it has no config.json");
  if (const auto text = config->find("text_config"); text != config->end() && text->is_object()) {
    const nlohmann::json inner = *text;
    for (const auto& [key, value] : inner.items())
      if (!value.is_null()) (*config)[key] = value;
  }
  if (!config->contains("quantization_config"))
    if (const auto quantization = json("quantize_config.json", max_config_bytes))
      (*config)["quantization_config"] = *quantization;
  if (const auto generation = json("generation_config.json", max_config_bytes))
    (*config)["generation_config"] = *generation;
  return Metadata(Metadata::Source::hugging_face, path_ + "/config.json", "", std::move(*config));
}

std::string HfFolder::chat_template() const {
  constexpr uint64_t limit = 4 << 20;
  if (std::optional<std::string> own = text("chat_template.jinja", limit)) return *own;
  const std::optional<nlohmann::json> config = json("tokenizer_config.json", limit);
  if (!config) return "";
  const auto found = config->find("chat_template");
  if (found == config->end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  // several, by name
  if (found->is_array())
    for (const nlohmann::json& entry : *found)
      if (entry.is_object() && entry.contains("name") && entry["name"] == "default" && entry.contains("template") &&
          entry["template"].is_string())
        return entry["template"].get<std::string>();
  fail(path_, "/tokenizer_config.json: key 'chat_template': expected a text, or a list with one named default");
}

}  // namespace nibble::models
