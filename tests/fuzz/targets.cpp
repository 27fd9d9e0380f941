// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/targets.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>

#include "models/arch.h"
#include "models/decoder.h"
#include "models/imatrix.h"
#include "models/io/checkpoint.h"
#include "models/io/gguf.h"
#include "models/io/hf_folder.h"
#include "models/io/logits_file.h"
#include "models/io/safetensors.h"
#include "models/text/chat_template.h"
#include "models/text/tokenizer.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"

namespace nibble::fuzz {

namespace {

using namespace models;

const test::TempDir& folder() {
  static const test::TempDir dir;
  static const bool made = [] {
    for (const char* name : {"index", "config", "text", "quantized"}) std::filesystem::create_directory(dir / name);
    return true;
  }();
  NIBBLE_CHECK(made, dir.path(), ": folders cannot be made");
  return dir;
}

/// The bytes as a file of that name.
std::string file_of(std::string_view name, std::string_view bytes) {
  const std::string path = folder() / name;
  test::write_file(path, bytes);
  return path;
}

template <class Body>
void guarded(const Body& body) {
  try {
    body();
  } catch (const Error&) {
  }
}

/// A folder's shard with one tensor "a" of two f32.
constexpr std::string_view one_tensor = std::string_view(
    "\x3b\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}     \0\0\0\0\0\0\0\0",
    8 + 59 + 8);

void use(const Tokenizer& tokenizer, std::string_view more) {
  const std::string text = " Hello, w\xc3\xb6rld! 12345\n\t<s> \xff" + std::string(more.substr(0, 64));
  const std::vector<int32_t> tokens = tokenizer.encode(text);
  (void)tokenizer.decode(tokens, true);
  (void)tokenizer.encode(text, {.add_bos = false, .parse_special = false});
}

/// As run does, but for the tokenizer.
void load(const std::string& path) {
  LoadOptions options;
  options.threads = 1;
  options.need_tokenizer = false;
  (void)Model::load(path, options);
}

/// Bytes of a tensor "F16", "2,3"; 0 for what is none, or large.
size_t stored_bytes(std::string_view type, const std::string& shape) {
  const size_t digits = type.find_first_of("12346789");
  size_t size = digits == std::string_view::npos || type[digits] == '8' ? 1
                : type[digits] == '1'                                   ? 2
                : type[digits] == '3'                                   ? 4
                                                                        : 8;
  std::istringstream sizes(shape);
  for (std::string number; std::getline(sizes, number, ',');) {
    const unsigned long long count = std::strtoull(number.c_str(), nullptr, 10);
    if (count > 4096) return 0;
    size *= count;
    if (size > 1 << 18) return 0;
  }
  return size;
}

/// A BPE vocabulary of one letter.
constexpr std::string_view one_letter =
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}, \"added_tokens\": [{\"id\": 1, "
    "\"content\": \"<s>\", \"special\": true}]}";

}  // namespace

void gguf(std::string_view bytes) {
  guarded([&] {
    const std::string path = file_of("a.gguf", bytes);
    const Gguf file = Gguf::open(path);
    guarded([&] { use(*Tokenizer::from_gguf(file), bytes); });
    load(path);
  });
}

/// The input is a text and data: what config.json says, in one line; a line "name dtype shape count" for each tensor,
/// shape "2,3" or "-"; an empty line; then `count` bytes of each tensor, which are repeated to its size. So what is
/// mutated are names, types, shapes and values, not the offsets that would have to follow them.
void quantized(std::string_view bytes) {
  guarded([&] {
    const size_t end = bytes.find("\n\n");
    std::istringstream lines(std::string(bytes.substr(0, end)));
    std::string data(end == std::string_view::npos ? "" : bytes.substr(end + 2)), config, line, header, all;
    std::getline(lines, config);
    for (size_t at = 0; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string name, type, shape;
      size_t count = 0;
      words >> name >> type >> shape >> count;
      if (shape == "-") shape.clear();
      const std::string part = data.substr(std::min(at, data.size()), std::min<size_t>(count, 4096));
      at += part.size();
      const size_t begin = all.size(), size = stored_bytes(type, shape);
      for (size_t i = 0; i < size; ++i) all += part.empty() ? '\0' : part[i % part.size()];
      header += message(header.empty() ? "" : ",", "\"", name, "\":{\"dtype\":\"", type, "\",\"shape\":[", shape,
                        "],\"data_offsets\":[", begin, ",", all.size(), "]}");
    }
    header = "{" + header + "}";
    const uint64_t size = header.size();
    file_of("quantized/config.json", config);
    file_of("quantized/model.safetensors",
            std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + all);
    load(folder() / "quantized");
  });
}

void safetensors(std::string_view bytes) {
  guarded([&] { (void)read_safetensors(MappedFile(file_of("a.safetensors", bytes)), 0); });
}

void index(std::string_view bytes) {
  guarded([&] {
    file_of("index/config.json", "{\"model_type\": \"llama\"}");
    file_of("index/a.safetensors", one_tensor);
    file_of("index/model.safetensors.index.json", bytes);
    (void)HfFolder::open(folder() / "index").tensors();
  });
}

void config(std::string_view bytes) {
  guarded([&] {
    file_of("config/model.safetensors", one_tensor);
    file_of("config/config.json", bytes);
    const Checkpoint file = Checkpoint::open(folder() / "config");
    (void)find_arch(file.metadata().need_string("model_type")).config(file.metadata());
  });
}

void tokenizer_json(std::string_view bytes) {
  guarded([&] { use(*Tokenizer::load(file_of("tokenizer.json", bytes)), bytes); });
}

void tokenizer_model(std::string_view bytes) {
  guarded([&] { use(*Tokenizer::load(file_of("tokenizer.model", bytes)), bytes); });
}

void tokenizer_config(std::string_view bytes) {
  guarded([&] {
    file_of("text/config.json", "{\"model_type\": \"llama\"}");
    file_of("text/model.safetensors", one_tensor);
    file_of("text/tokenizer.json", one_letter);
    file_of("text/tokenizer_config.json", bytes);
    guarded([&] { use(*Tokenizer::load_folder(folder() / "text").tokenizer, bytes); });
    (void)ChatTemplate::parse(HfFolder::open(folder() / "text").chat_template());
  });
}

void jinja(std::string_view bytes) {
  guarded([&] {
    const ChatTemplate chat = ChatTemplate::parse(bytes);
    const ChatRequest request{.messages = {{"system", "s"}, {"user", "Hello"}, {"assistant", "Hi"}, {"user", "2 + 2?"}},
                              .bos = "<s>",
                              .eos = "</s>",
                              .tools = "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]"};
    jinja::RenderOptions bounds;
    bounds.max_steps = 20000;
    bounds.max_output_bytes = 1 << 16;
    (void)chat.render(request, bounds);
  });
}

void imatrix(std::string_view bytes) {
  guarded([&] { (void)Imatrix::read(file_of("imatrix", bytes)); });
}

void logits(std::string_view bytes) {
  guarded([&] {
    const LogitsFile file(file_of("logits", bytes));
    float sum = 0;
    for (int chunk = 0; chunk < file.shape().chunks; ++chunk) {
      sum += static_cast<float>(file.tokens(chunk).back());
      for (int i = 0; i < file.shape().scored(); ++i) sum += file.row(chunk, i)[file.shape().vocab - 1];
    }
    if (sum == 0) file.release(0);
  });
}

}  // namespace nibble::fuzz
