// SPDX-License-Identifier: Apache-2.0
// What the files beside a tokenizer say about it: tokenizer_config.json and its relatives.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/text/pipeline.h"

namespace nibble::models {

struct TextConfig {
  struct AddedToken {
    int32_t id = -1;  ///< -1: not given
    std::string text;
    bool special = true, normalized = false, single_word = false, lstrip = false, rstrip = false;
  };
  std::string tokenizer_class;
  std::optional<std::string> bos, eos, unknown;
  std::optional<bool> add_bos, add_eos, lowercase, add_prefix_space;
  std::vector<AddedToken> added;
  std::vector<int64_t> end_ids;
  std::string chat_template;
  std::vector<std::pair<std::string, std::string>> chat_templates;
};

/// Reads whatever of the files is there. Throws Error naming the file and key.
TextConfig read_text_config(const std::string& folder);
/// Adds the tokens that the vocabulary lacks, with their flags.
void add_configured_tokens(const TextConfig& config, const std::string& file, Pipeline& parts);
/// Finds bos, eos and ends in the vocabulary, and puts bos and eos around texts where the files say so.
void apply_text_config(const TextConfig& config, Pipeline& parts);

// Readers of single files; the configuration decides what the files leave open.
std::unique_ptr<Pipeline> read_tokenizer_json(const std::string& path);
/// `piece_scores` and `space_prefix`, where not null, get what the model says of its pieces, and whether a text gets a
/// space first.
std::unique_ptr<Pipeline> read_sentencepiece(const std::string& path, const TextConfig& config,
                                             std::vector<float>* piece_scores = nullptr, bool* space_prefix = nullptr);
std::unique_ptr<Pipeline> read_tiktoken(const std::string& path, const TextConfig& config);
std::unique_ptr<Pipeline> read_gpt2_files(const std::string& vocab, const std::string& merges,
                                          const TextConfig& config);
std::unique_ptr<Pipeline> read_bert_vocabulary(const std::string& path, const TextConfig& config);
/// Whether the bytes of a tokenizer.model are tiktoken's text and not SentencePiece's protobuf.
bool looks_like_tiktoken(std::string_view bytes);

}  // namespace nibble::models
