// SPDX-License-Identifier: Apache-2.0
#include "models/text/pretokenizer.h"

#include <algorithm>

#include "models/text/pretokenizer_names.h"
#include "models/text/unicode.h"

namespace nibble::models {

/// One pass over a text: the state that threads cannot share.
struct Cutter {
  const std::vector<PreTokenizer::Step>& steps;
  Words& words;
  RegexScan scan;

  struct Span {
    size_t begin, end;
    bool match;
  };

  void cut(std::string_view text, size_t stage, bool first) {
    if (text.empty()) return;
    if (stage == steps.size()) {
      words.list.push_back(text);
      return;
    }
    std::visit([&](const auto& step) { run(step, text, stage + 1, first); }, steps[stage]);
  }

  /// Gives spans that cover a text, in order, to the next stage as `behavior` says. One span is held back, because the
  /// next may join it.
  struct Joiner {
    Cutter& cutter;
    std::string_view text;
    size_t stage;
    bool first;
    SplitBehavior behavior;
    Span held{0, 0, false};
    bool holds = false;

    void flush() {
      if (holds && held.end > held.begin)
        cutter.cut(text.substr(held.begin, held.end - held.begin), stage, first && held.begin == 0);
      holds = false;
    }
    void push(Span span) {
      bool join = false;
      switch (behavior) {
        case SplitBehavior::removed:
          if (span.match) {
            flush();
            return;
          }
          break;
        case SplitBehavior::isolated:
          break;
        case SplitBehavior::merged_with_previous:
          join = holds && span.match && !held.match;
          break;
        case SplitBehavior::merged_with_next:
          join = holds && !span.match && held.match;
          break;
        case SplitBehavior::contiguous:
          join = holds && span.match == held.match;
          break;
      }
      if (join) {
        // A match that took something in, or was taken in, is taken in no further.
        held.end = span.end;
        held.match = behavior == SplitBehavior::contiguous ? span.match
                                                           : behavior == SplitBehavior::merged_with_previous;
        return;
      }
      flush();
      held = span;
      holds = true;
    }
  };

  void run(const RegexSplit& split, std::string_view text, size_t stage, bool first) {
    Joiner joiner{*this, text, stage, first, split.behavior};
    size_t done = 0, from = 0, last = std::string_view::npos;
    RegexScan::Match match{};
    while (from <= text.size() && scan.find(split.pattern, text, from, match)) {
      if (match.begin == match.end && match.end == last) {
        from += from < text.size() ? front_code_point(text.substr(from)).length : 1;
        continue;
      }
      if (match.begin > done) joiner.push({done, match.begin, split.invert});
      joiner.push({match.begin, match.end, !split.invert});
      done = from = last = match.end;
    }
    if (done < text.size()) joiner.push({done, text.size(), split.invert});
    joiner.flush();
  }

  void run(const ClassSplit& split, std::string_view text, size_t stage, bool first) {
    Joiner joiner{*this, text, stage, first, split.behavior};
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = front_code_point(text.substr(at));
      if (split.is(c.value)) {
        if (at > done) joiner.push({done, at, false});
        done = at + c.length;
        joiner.push({at, done, true});
      }
      at += c.length;
    }
    if (done < text.size()) joiner.push({done, text.size(), false});
    joiner.flush();
  }

  void run(const WordSplit&, std::string_view text, size_t stage, bool first) {
    enum class Kind { space, word, other };
    size_t begin = 0;
    Kind kind = Kind::space;
    for (size_t at = 0; at <= text.size();) {
      const bool end = at == text.size();
      const CodePoint c = end ? CodePoint{' ', 1, true} : front_code_point(text.substr(at));
      const Kind next = is_white_space(c.value) ? Kind::space : is_word(c.value) ? Kind::word : Kind::other;
      if (next != kind || end) {
        if (kind != Kind::space) cut(text.substr(begin, at - begin), stage, first && begin == 0);
        begin = at;
        kind = next;
      }
      at += c.length;
    }
  }

  void run(const MetaspaceSplit& split, std::string_view text, size_t stage, bool first) {
    std::string& marked = words.texts.emplace_back();
    marked.reserve(text.size() + text.size() / 2 + split.replacement.size());
    using Prefix = MetaspaceSplit::Prefix;
    const bool wanted = split.prefix == Prefix::always || (split.prefix == Prefix::first && first);
    if (wanted && !text.starts_with(' ') && !text.starts_with(split.replacement)) marked.append(split.replacement);
    for (char byte : text) {
      if (byte == ' ')
        marked += split.replacement;
      else
        marked += byte;
    }
    const std::string_view all = marked;
    if (!split.split) {
      cut(all, stage, first);
      return;
    }
    for (size_t at = 0; at < all.size();) {
      const size_t end = std::min(all.find(split.replacement, at + 1), all.size());
      cut(all.substr(at, end - at), stage, first && at == 0);
      at = end;
    }
  }

  void run(const SpacePrefix&, std::string_view text, size_t stage, bool first) {
    if (!text.starts_with(' ')) text = words.texts.emplace_back(std::string(1, ' ').append(text));
    cut(text, stage, first);
  }

  void run(const DigitGroups& groups, std::string_view text, size_t stage, bool first) {
    size_t begin = 0;
    const auto give = [&](size_t end) {
      cut(text.substr(begin, end - begin), stage, first && begin == 0);
      begin = end;
    };
    for (size_t at = 0; at < text.size();) {
      size_t end = at;
      std::vector<size_t> digits;
      while (end < text.size()) {
        const CodePoint c = front_code_point(text.substr(end));
        if (!is_number(c.value)) break;
        digits.push_back(end);
        end += c.length;
      }
      if (digits.empty()) {
        at += front_code_point(text.substr(at)).length;
        continue;
      }
      const bool in_word = end < text.size() && is_word(front_code_point(text.substr(end)).value);
      if (in_word && !groups.before_words_too) {
        at = end;
        continue;
      }
      give(at);
      for (size_t i = 1; i < digits.size(); ++i)
        if ((digits.size() - i) % 3 == 0) give(digits[i]);
      give(end);
      at = end;
    }
    give(text.size());
  }
};

void PreTokenizer::add(Step step) { steps_.push_back(std::move(step)); }

PreTokenizer::PreTokenizer(std::string_view name) { *this = std::move(named_pretokenizer(name).steps); }

void PreTokenizer::split(std::string_view text, bool first, Words& words) const {
  Cutter cutter{steps_, words, {}};
  while (!text.empty()) {
    const size_t valid = valid_prefix(text);
    cutter.cut(text.substr(0, valid), 0, first);
    text.remove_prefix(valid);
    if (text.empty()) break;
    const size_t bad = front_code_point(text).length;
    words.list.push_back(text.substr(0, bad));
    text.remove_prefix(bad);
    first = false;
  }
}

void PreTokenizer::split(std::string_view text, std::vector<std::string_view>& words) const {
  Words all;
  split(text, true, all);
  words.insert(words.end(), all.list.begin(), all.list.end());
}

}  // namespace nibble::models
