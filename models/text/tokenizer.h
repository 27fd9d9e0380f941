// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::models {

class Gguf;
struct TextFolder;

struct TextRange {
  size_t begin, end;  ///< bytes [begin, end)
};

struct EncodeOptions {
  bool add_bos = true;        ///< as the model's file says it wants (BOS and EOS rules)
  bool parse_special = true;  ///< control tokens written in the text ("<|im_end|>") become those tokens
  std::span<const TextRange> plain = {};  ///< rising ranges; a control token that would touch one stays text
};

/// Immutable and thread safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Reads tokenizer.ggml.*; throws Error naming the file and key. Kinds: "llama" (SentencePiece BPE), "gpt2" (BPE,
  /// pre-tokenizer by name), "t5" (Unigram), "bert" (WordPiece), "rwkv" (longest match).
  static std::shared_ptr<const Tokenizer> from_gguf(const Gguf& gguf);
  /// A Hugging Face folder: tokenizer.json, else tokenizer.model (SentencePiece or tiktoken), *.tiktoken, or
  /// vocab.json with merges.txt, or vocab.txt; and what tokenizer_config.json, generation_config.json and the template
  /// files say about it. Throws Error naming the file and key.
  static TextFolder load_folder(const std::string& folder);
  /// Whether any file that load_folder takes a vocabulary from is there.
  static bool folder_has_one(const std::string& folder);
  /// A folder, or a file of any of the kinds above; the files beside it are not read.
  static std::shared_ptr<const Tokenizer> load(const std::string& path);

  /// Bytes for which a byte-level vocabulary has no token are left out, as the models' own tokenizers do. The text may
  /// be any bytes. O(n log n).
  virtual std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;
  /// The bytes a token stands for, exactly as they follow in a text (not necessarily whole UTF-8 characters).
  /// Control tokens give "" unless `special`. Throws Error for an id outside the vocabulary.
  virtual std::string piece(int32_t token, bool special = false) const = 0;
  /// All pieces joined, as the model's tokenizer joins a whole text: the space before the first word is dropped.
  virtual std::string decode(std::span<const int32_t> tokens, bool special = false) const = 0;

  virtual int vocab() const = 0;
  virtual std::string_view kind() const = 0;                     ///< "llama", "gpt2", "t5", "bert", "rwkv"
  virtual std::string_view token_text(int32_t token) const = 0;  ///< as the vocabulary spells it
  virtual bool is_control(int32_t token) const = 0;
  /// Exact text of a control or user-defined token to its id; -1 if there is none.
  virtual int32_t find(std::string_view token_text) const = 0;
  int32_t bos() const { return bos_; }  ///< -1 when there is none
  int32_t eos() const { return eos_; }
  bool adds_bos() const { return add_bos_; }
  bool adds_eos() const { return add_eos_; }
  /// Any token that ends a generation: EOS, EOT, and the known end-of-turn tokens by text.
  bool is_end(int32_t token) const;

 protected:
  int32_t bos_ = -1, eos_ = -1;
  bool add_bos_ = false, add_eos_ = false;
  std::vector<int32_t> end_tokens_;
};

/// What a Hugging Face folder says about text.
struct TextFolder {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::string chat_template;  ///< the default one; "" when there is none
  std::vector<std::pair<std::string, std::string>> chat_templates;  ///< others, by name ("tool_use")
};

/// Holds back the bytes of a character that is not complete yet.
class Utf8Stream {
 public:
  /// Appends bytes and returns the longest prefix that is whole characters (invalid bytes become U+FFFD).
  std::string push(std::string_view bytes);
  /// What is left at the end; an incomplete character becomes U+FFFD.
  std::string flush();

 private:
  std::string pending_;
};

}  // namespace nibble::models
