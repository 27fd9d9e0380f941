// SPDX-License-Identifier: Apache-2.0
// Where the two syntaxes differ: \s, \w and \h are other sets, classes can be intersected and nested, an interval
// followed by + repeats instead of becoming possessive, (?m) is about the dot, and \u and long names of categories
// exist.
#include <utility>
#include <vector>

#include "models/text/regex.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

// For use inside a class. PCRE2's own \s has U+180E too, and its \w has no marks.
constexpr std::string_view spaces = "\\p{Z}\\t-\\r\\x{85}";
// The digits above ASCII but inside Latin-1 count as letters of words, other fractions and exponents do not.
constexpr std::string_view word =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";
constexpr std::string_view hex = "0-9a-fA-F";

constexpr std::pair<std::string_view, std::string_view> names[] = {
    {"letter", "L"},          {"uppercaseletter", "Lu"}, {"lowercaseletter", "Ll"},  {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"}, {"otherletter", "Lo"},     {"mark", "M"},              {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},    {"enclosingmark", "Me"},   {"number", "N"},            {"decimalnumber", "Nd"},
    {"digit", "Nd"},          {"letternumber", "Nl"},    {"othernumber", "No"},      {"punctuation", "P"},
    {"punct", "P"},           {"symbol", "S"},           {"mathsymbol", "Sm"},       {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"}, {"othersymbol", "So"},     {"separator", "Z"},         {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},  {"other", "C"},            {"control", "Cc"},          {"cntrl", "Cc"},
    {"format", "Cf"},         {"privateuse", "Co"},      {"unassigned", "Cn"},       {"connectorpunctuation", "Pc"},
    {"alpha", "Alphabetic"},  {"upper", "Uppercase"},    {"lower", "Lowercase"}};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    while (at_ < in_.size()) one();
    return std::move(out_);
  }

 private:
  char peek(size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }
  [[noreturn]] void refuse(const char* what) const {
    fail("pattern '", in_.substr(0, 200), "': ", what, " at ", at_);
  }

  void one() {
    const char c = peek();
    if (c == '\\') {
      atom_ = out_.size();
      escape(false);
    } else if (c == '[') {
      atom_ = out_.size();
      out_ += read_class(0);
    } else if (c == '(') {
      group();
    } else if (c == ')') {
      if (!groups_.empty()) {
        atom_ = groups_.back();
        groups_.pop_back();
      }
      out_ += in_[at_++];
    } else if (c == '{') {
      interval();
    } else if (c == '?' || c == '*' || c == '+') {
      out_ += in_[at_++];
    } else {
      atom_ = out_.size();
      out_ += in_[at_++];
      while (at_ < in_.size() && (static_cast<unsigned char>(in_[at_]) & 0xC0) == 0x80) out_ += in_[at_++];
    }
  }

  void group() {
    groups_.push_back(out_.size());
    out_ += in_[at_++];
    if (peek() != '?') return;
    out_ += in_[at_++];
    const char kind = peek();
    if (kind != '-' && (kind < 'a' || kind > 'z')) return;
    while (at_ < in_.size() && peek() != ':' && peek() != ')') {
      if (peek() == 'm')
        out_ += 's';
      else if (peek() == 'i' || peek() == 'x' || peek() == '-')
        out_ += peek();
      else
        refuse("an unknown option");
      ++at_;
    }
    if (peek() == ')') {  // an option up to the end of the group, not an atom
      groups_.pop_back();
      out_ += in_[at_++];
    }
  }

  void interval() {
    const size_t close = in_.find('}', at_);
    const bool is_interval =
        close != std::string_view::npos && close > at_ + 1 &&
        in_.substr(at_ + 1, close - at_ - 1).find_first_not_of("0123456789,") == std::string_view::npos;
    if (!is_interval) {
      atom_ = out_.size();
      out_ += "\\{";
      ++at_;
      return;
    }
    const std::string_view text = in_.substr(at_ + 1, close - at_);
    out_.append(text.starts_with(',') ? "{0" : "{").append(text);
    at_ = close + 1;
    if (peek() != '+') return;
    const std::string atom = out_.substr(atom_);
    out_.resize(atom_);
    out_.append("(?:").append(atom).append(")+");
    ++at_;
  }

  std::string property() {
    const bool negated = peek(1) == 'P';
    at_ += 2;
    NIBBLE_CHECK(peek() == '{', "pattern '", in_.substr(0, 200), "': \\p without {} at ", at_);
    const size_t close = in_.find('}', at_);
    if (close == std::string_view::npos) refuse("\\p{ without }");
    std::string_view name = in_.substr(at_ + 1, close - at_ - 1);
    at_ = close + 1;
    const bool caret = name.starts_with('^');
    if (caret) name.remove_prefix(1);
    std::string plain;
    for (char c : name)
      if (c != '_' && c != ' ' && c != '-') plain += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    const std::string sign = negated != caret ? "\\P{" : "\\p{";
    if (plain == "space") return negated != caret ? "\\P{White_Space}" : "\\p{White_Space}";
    for (const auto& [longer, shorter] : names)
      if (plain == longer) return sign + std::string(shorter) + "}";
    return sign + std::string(name) + "}";
  }

  /// An escape outside of a class or (without its own brackets) inside of one.
  void escape(bool in_class) { out_ += read_escape(in_class); }

  std::string read_escape(bool in_class) {
    const char c = peek(1);
    const auto set = [&](std::string_view inside, bool negated) {
      at_ += 2;
      if (in_class && negated) refuse("a negated set inside a class");
      return in_class ? std::string(inside) : (negated ? "[^" : "[") + std::string(inside) + "]";
    };
    switch (c) {
      case '\0':
        refuse("a pattern that ends in a backslash");
      case 's':
        return set(spaces, false);
      case 'S':
        return in_class ? (at_ += 2, std::string("\\P{White_Space}")) : set(spaces, true);
      case 'w':
        return set(word, false);
      case 'W':
        return set(word, true);
      case 'h':
        return set(hex, false);
      case 'H':
        return set(hex, true);
      case 'p':
      case 'P':
        return property();
      case 'u': {
        const std::string_view digits = in_.substr(std::min(at_ + 2, in_.size()), 4);
        if (digits.size() < 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
          refuse("\\u without four hexadecimal digits");
        at_ += 6;
        return "\\x{" + std::string(digits) + "}";
      }
      case 'K':
      case 'C':
        refuse("an escape that is not supported");
      default: {
        std::string out(in_.substr(at_, 2));
        at_ += 2;
        while (at_ < in_.size() && (static_cast<unsigned char>(in_[at_]) & 0xC0) == 0x80) out += in_[at_++];
        return out;
      }
    }
  }

  /// From '[' to its ']'. `[a&&b]` becomes `(?:(?=[b])[a])`.
  std::string read_class(int depth) {
    if (depth > 8) refuse("classes nested too deeply");
    ++at_;
    const bool negated = peek() == '^';
    if (negated) ++at_;
    std::vector<std::string> parts(1);
    bool first = true;
    for (;; first = false) {
      if (at_ >= in_.size()) refuse("a class without ]");
      const char c = peek();
      std::string& part = parts.back();
      if (c == ']' && !first) {
        ++at_;
        break;
      }
      if (c == '&' && peek(1) == '&') {
        at_ += 2;
        parts.emplace_back();
      } else if (c == '\\') {
        part += read_escape(true);
      } else if (c == '[' && peek(1) == ':') {
        const size_t close = in_.find(":]", at_);
        if (close == std::string_view::npos) refuse("[: without :]");
        part += in_.substr(at_, close + 2 - at_);
        at_ = close + 2;
      } else if (c == '[') {
        part += nested(depth);
      } else {
        if (c == ']') part += '\\';
        part += c;
        ++at_;
      }
    }
    if (parts.size() == 1) return (negated ? "[^" : "[") + parts[0] + "]";
    std::string look;
    for (size_t i = 1; i < parts.size(); ++i) look += "(?=" + bracketed(parts[i]) + ")";
    const std::string both = look + bracketed(parts[0]);
    return negated ? "(?:(?!" + both + ")(?s:.))" : "(?:" + both + ")";
  }

  static std::string bracketed(const std::string& inside) {
    return inside.starts_with('\1') ? "[^" + inside.substr(1) + "]" : "[" + inside + "]";
  }

  /// A class inside a class: its members join; a negated one can only stand alone in an intersection.
  std::string nested(int depth) {
    const std::string inner = read_class(depth + 1);
    if (inner.starts_with("[^")) {
      const bool alone = in_.substr(at_).starts_with("&&") || peek() == ']';
      if (!alone) refuse("a negated class inside a class");
      return std::string(1, '\1').append(inner, 2, inner.size() - 3);
    }
    if (!inner.starts_with('[')) refuse("an intersection inside a class");
    return inner.substr(1, inner.size() - 2);
  }

  std::string_view in_;
  size_t at_ = 0, atom_ = 0;
  std::string out_;
  std::vector<size_t> groups_;
};

}  // namespace

std::string translate_pattern(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace nibble::models
