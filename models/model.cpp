// SPDX-License-Identifier: Apache-2.0
// Model::load: file -> architecture, config, tokenizer and packed weights.
#include <exception>
#include <map>
#include <new>
#include <optional>

#include "models/catalog.h"
#include "models/config.h"
#include "models/decoder.h"
#include "models/io/checkpoint.h"
#include "models/io/metadata.h"
#include "models/io/packed_cache.h"
#include "quant/format.h"
#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::models {

namespace {

/// GGUF files of other things than models.
void check_is_model(const Metadata& metadata) {
  const std::string type =
      metadata.source() == Metadata::Source::gguf ? metadata.get_string("general.type", "model") : "model";
  for (const char* other : {"adapter", "imatrix", "mmproj"})
    NIBBLE_CHECK(type != other, metadata.file(), ": key 'general.type': expected a model, found '", type, "'");
}

/// "": whatever it is.
const Arch& wanted_arch(const Metadata& metadata, const std::string& wanted) {
  const Arch& found = arch_of(metadata);
  if (wanted.empty()) return found;
  const Arch& arch = find_arch(wanted);
  NIBBLE_CHECK(&arch == &found || arch.base == found.name, metadata.file(), ": ", architecture_key(metadata),
               ": expected ", arch.name, ", found '", metadata.need_string(architecture_key(metadata)), "'");
  return arch;
}

/// The rows of the embedding matrix, under any of its names.
int embedding_rows(const Checkpoint& checkpoint, const Arch& arch) {
  for (const Name& name : arch.names) {
    if (name.name != "embedding") continue;
    std::string_view paths = name.paths;
    while (!paths.empty()) {
      const size_t bar = paths.find('|');
      if (const StoredTensor* tensor = checkpoint.tensor(std::string(paths.substr(0, bar)) + ".weight")) {
        const int64_t rows = tensor->shape[0];
        NIBBLE_CHECK(rows <= max_vocab, checkpoint.where(*tensor), ": expected at most ", max_vocab, " rows, found ",
                     rows);
        return static_cast<int>(rows);
      }
      paths.remove_prefix(bar == std::string_view::npos ? paths.size() : bar + 1);
    }
  }
  fail(checkpoint.path(), ": no token embedding tensor");
}

void check_vocabulary(const Checkpoint& checkpoint, const Config& config, const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) return;
  // folders pad the matrix to a round number of rows
  const bool padded = checkpoint.folder() != nullptr && tokenizer->vocab() < config.vocab;
  NIBBLE_CHECK(padded || tokenizer->vocab() == config.vocab, checkpoint.path(), ": the vocabulary has ",
               tokenizer->vocab(), " tokens, the embedding matrix ", config.vocab, " rows");
}

std::shared_ptr<const Tokenizer> load_tokenizer(const Checkpoint& checkpoint) {
  if (const Gguf* gguf = checkpoint.gguf()) return Tokenizer::from_gguf(*gguf);
  return Tokenizer::load_folder(checkpoint.path()).tokenizer;
}

/// Sizes that speed is judged by, and the format that most weights of the blocks are in: the file's, or that of
/// `quant`.
void measure(Model& model, const Checkpoint& checkpoint, const std::string& quant) {
  std::map<std::string_view, int64_t> elements;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    model.parameters += static_cast<uint64_t>(tensor.shape.elements());
    if (quant.empty() && tensor.shape.rank() == 2) elements[tensor.type_name()] += tensor.shape.elements();
  }
  model.bytes_per_token = model.weights.packed_bytes();
  if (model.weights.find("output", -1) != nullptr)
    model.bytes_per_token -= bytes(model.weights.find("embedding", -1)->desc);
  for (const Name& name : model.arch->names)
    for (int layer = 0; layer < model.config.layers; ++layer) {
      const Tensor* tensor = model.weights.find(name.name, layer);
      if (tensor == nullptr || tensor->desc.dtype != DType::packed) continue;
      const Experts& e = model.config.experts;
      const auto all = static_cast<uint64_t>(tensor->desc.shape.elements());
      if (const auto count = static_cast<uint64_t>(model.weights.experts(name.name, layer)); count > 0) {
        model.bytes_per_token -= bytes(tensor->desc) / count * (count - static_cast<uint64_t>(e.chosen));
        model.macs_per_token += all / count * static_cast<uint64_t>(e.chosen);
      } else {
        model.macs_per_token += all;
      }
      if (!quant.empty()) elements[tensor->desc.format->name] += tensor->desc.shape.elements();
    }
  int64_t most = 0;
  for (const auto& [name, count] : elements)
    if (count > most) {
      most = count;
      model.format = name;
    }
}

/// What a plugin's definition throws becomes an Error that names it.
template <class Call>
auto run_definition(const Arch& arch, const std::string& path, const Call& call) {
  try {
    return call();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    fail(path, ": architecture '", arch.name, "' threw: ", error.what());
  } catch (...) {
    fail(path, ": architecture '", arch.name, "' threw something that is no std::exception");
  }
}

std::string file_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

}  // namespace

bool has_tokenizer(const std::string& path) {
  const Checkpoint checkpoint = Checkpoint::open(path);
  if (const Gguf* gguf = checkpoint.gguf()) return gguf->find("tokenizer.ggml.tokens") != nullptr;
  return Tokenizer::folder_has_one(checkpoint.path());
}

std::shared_ptr<const Model> Model::load(const std::string& path, const LoadOptions& options) {
  const QuantizeRule quantize = options.floats ? QuantizeRule::floats() : QuantizeRule(options.quant);
  Checkpoint opened = Checkpoint::open(path);
  for (const std::string& assignment : options.set) opened.metadata().set(assignment);
  const Checkpoint& checkpoint = opened;
  const Metadata& metadata = checkpoint.metadata();
  check_is_model(metadata);
  auto model = std::make_shared<Model>();
  model->path = path;
  model->arch = &wanted_arch(metadata, options.arch);
  model->name = metadata.get_string("general.name", file_name(checkpoint.path()));
  const HfFolder* folder = checkpoint.folder();
  model->chat_template =
      folder != nullptr ? folder->chat_template() : metadata.get_string("tokenizer.chat_template", "");
  model->file_bytes = checkpoint.file_bytes();
  model->config = run_definition(*model->arch, path, [&] { return model->arch->config(metadata); });
  if (model->config.vocab == 0) model->config.vocab = embedding_rows(checkpoint, *model->arch);
  if (options.need_tokenizer) model->tokenizer = load_tokenizer(checkpoint);
  metadata.check_set_keys();
  check_vocabulary(checkpoint, model->config, model->tokenizer.get());
  ThreadPool pool(options.threads > 0 ? options.threads : default_threads());
  std::optional<PackedCache> cache;
  if (!options.packed_cache.empty()) cache.emplace(options.packed_cache, options.note);
  model->weights = run_definition(*model->arch, path, [&] {
    return Weights::load(checkpoint, *model->arch, model->config, pool, options.progress, quantize,
                         cache ? &*cache : nullptr);
  });
  measure(*model, checkpoint, options.quant);
  return model;
}

}  // namespace nibble::models
