// SPDX-License-Identifier: Apache-2.0
#include "models/text/jinja/lexer.h"

#include <algorithm>
#include <charconv>

#include "models/text/jinja/text.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool begins_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<uint8_t>(c) >= 0x80;
}

/// Every kind of line end becomes a line feed, and the last one goes.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)), text_(source_) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) {
      const size_t tag = next_tag();
      if (tag == std::string_view::npos) {
        add_data(text_.substr(at_));
        at_ = text_.size();
        break;
      }
      const char kind = text_[tag + 1];
      const char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
      const bool keeps = sign == '+', strips = sign == '-';
      add_data(before_tag(text_.substr(at_, tag - at_), strips, kind != '{' && !keeps));
      at_ = tag + 2 + (keeps || strips ? 1 : 0);
      line_starting_ = false;
      if (kind == '#')
        skip_comment();
      else if (kind == '%' && !raw_block())
        inside(Token::Kind::block_begin, Token::Kind::block_end, '%');
      else if (kind == '{')
        inside(Token::Kind::print_begin, Token::Kind::print_end, '}');
    }
    tokens_.push_back({Token::Kind::end, line_, ""});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { fail("line ", line_, ": ", what); }

  size_t next_tag() const {
    for (size_t at = text_.find('{', at_); at != std::string_view::npos; at = text_.find('{', at + 1))
      if (at + 1 < text_.size() && (text_[at + 1] == '{' || text_[at + 1] == '%' || text_[at + 1] == '#')) return at;
    return std::string_view::npos;
  }

  /// `strips`: "{%-". `to_line_start`: white space since the start of the line goes, if there is nothing else.
  std::string_view before_tag(std::string_view data, bool strips, bool to_line_start) {
    trailing_ = data;
    if (strips) {
      const Text text = stripped(Text{std::string(data)}, Side::right);
      return data.substr(0, text.bytes.size());
    }
    if (!to_line_start) return data;
    const size_t feed = data.rfind('\n');
    const size_t start = feed == std::string_view::npos ? 0 : feed + 1;
    if (start == 0 && !line_starting_) return data;
    for (size_t i = start; i < data.size(); i += char_length(data, i))
      if (!is_space(code_point(data, i))) return data;
    return data.substr(0, start);
  }

  void add_data(std::string_view data) {
    if (!data.empty()) tokens_.push_back({Token::Kind::data, line_, std::string(data)});
    count_lines(trailing_.empty() ? data : trailing_);
    trailing_ = {};
  }
  void count_lines(std::string_view passed) {
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
  }

  void skip_space() {
    while (at_ < text_.size() && is_space(code_point(text_, at_))) {
      if (text_[at_] == '\n') ++line_;
      at_ += char_length(text_, at_);
    }
  }

  /// After the end of a tag that was at `end`, `length` long, with the sign in front of it.
  void close(size_t length, char sign, bool trims) {
    at_ += length;
    if (sign == '-') {
      skip_space();
    } else if (trims && sign != '+' && at_ < text_.size() && text_[at_] == '\n') {
      ++line_;
      ++at_;
    }
    line_starting_ = at_ > 0 && text_[at_ - 1] == '\n';
  }

  void skip_comment() {
    const size_t end = text_.find("#}", at_);
    if (end == std::string_view::npos) refuse("a comment has no end");
    const char sign = end > at_ && (text_[end - 1] == '-' || text_[end - 1] == '+') ? text_[end - 1] : '\0';
    count_lines(text_.substr(at_, end - at_));
    at_ = end;
    close(2, sign, true);
  }

  /// Position after `word` as a tag's only content, and the sign of its end; 0: it is something else.
  size_t tag_end(size_t at, std::string_view word, char& sign) const {
    const auto spaces = [&] {
      while (at < text_.size() && is_space(code_point(text_, at))) at += char_length(text_, at);
    };
    spaces();
    if (!text_.substr(at).starts_with(word)) return 0;
    at += word.size();
    spaces();
    sign = at < text_.size() && (text_[at] == '-' || text_[at] == '+') ? text_[at] : '\0';
    if (sign != '\0') ++at;
    return text_.substr(at).starts_with("%}") ? at + 2 : 0;
  }

  bool raw_block() {
    char sign = '\0';
    const size_t begin = tag_end(at_, "raw", sign);
    if (begin == 0) return false;
    count_lines(text_.substr(at_, begin - at_));
    at_ = begin;
    close(0, sign, false);
    for (size_t at = text_.find("{%", at_); at != std::string_view::npos; at = text_.find("{%", at + 1)) {
      const char open = at + 2 < text_.size() ? text_[at + 2] : '\0';
      const size_t end = tag_end(at + 2 + (open == '-' || open == '+' ? 1 : 0), "endraw", sign);
      if (end == 0) continue;
      add_data(before_tag(text_.substr(at_, at - at_), open == '-', open != '+'));
      count_lines(text_.substr(at, end - at));
      at_ = end;
      close(0, sign, true);
      return true;
    }
    refuse("a raw block has no end");
  }

  /// The tokens of a tag up to its end.
  void inside(Token::Kind begin, Token::Kind end, char mark) {
    tokens_.push_back({begin, line_, ""});
    std::string open;
    const int first_line = line_;
    while (true) {
      skip_space();
      if (at_ >= text_.size()) fail("line ", first_line, ": a tag has no end");
      if (open.empty()) {
        const bool sign = text_[at_] == '-' || (mark == '%' && text_[at_] == '+');
        const size_t at = at_ + (sign ? 1 : 0);
        if (at + 1 < text_.size() && text_[at] == mark && text_[at + 1] == '}') {
          tokens_.push_back({end, line_, ""});
          const char kind = sign ? text_[at_] : '\0';
          at_ = at;
          close(2, kind, mark == '%');
          return;
        }
      }
      next_token(open);
    }
  }

  void next_token(std::string& open) {
    const char c = text_[at_];
    if (c == '\'' || c == '"')
      read_text(c);
    else if (is_digit(c))
      read_number();
    else if (begins_name(c))
      read_name();
    else
      read_operator(open);
  }

  void read_name() {
    const size_t begin = at_;
    while (at_ < text_.size() && (begins_name(text_[at_]) || is_digit(text_[at_]))) ++at_;
    tokens_.push_back({Token::Kind::name, line_, std::string(text_.substr(begin, at_ - begin))});
  }

  void read_operator(std::string& open) {
    constexpr std::string_view longer[] = {"//", "**", "==", "!=", "<=", ">="};
    std::string_view op = text_.substr(at_, 1);
    for (std::string_view two : longer)
      if (text_.substr(at_).starts_with(two)) op = two;
    if (std::string_view("+-*/%~()[]{}<>=.,:|").find(op[0]) == std::string_view::npos && op.size() == 1)
      refuse(message("unexpected character ", in_quotes(op)));
    if (op == "(" || op == "[" || op == "{") open += op == "(" ? ')' : op == "[" ? ']' : '}';
    if (op == ")" || op == "]" || op == "}") {
      if (open.empty() || open.back() != op[0]) refuse(message("unexpected '", op, "'"));
      open.pop_back();
    }
    tokens_.push_back({Token::Kind::op, line_, std::string(op)});
    at_ += op.size();
  }

  /// Digits of `base` with single underscores between them, without those.
  std::string digits(int base) {
    std::string out;
    const auto fits = [&](size_t at) {
      if (at >= text_.size()) return false;
      const char c = static_cast<char>(text_[at] | 0x20);
      return is_digit(text_[at]) ? text_[at] - '0' < base : base == 16 && c >= 'a' && c <= 'f';
    };
    while (fits(at_) || (at_ < text_.size() && text_[at_] == '_' && fits(at_ + 1))) {
      if (text_[at_] != '_') out += text_[at_];
      ++at_;
    }
    return out;
  }

  void read_number() {
    Token token{Token::Kind::integer, line_, ""};
    const char prefix = at_ + 1 < text_.size() && text_[at_] == '0' ? static_cast<char>(text_[at_ + 1] | 0x20) : '\0';
    const int base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
    if (base != 10) at_ += 2;
    token.bytes = digits(base);
    const auto next = [&](size_t ahead) { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; };
    if (base == 10 && next(0) == '.' && is_digit(next(1))) {
      ++at_;
      token.bytes.append(".").append(digits(10));
      token.kind = Token::Kind::real;
    }
    const bool sign = next(1) == '+' || next(1) == '-';
    if (base == 10 && (next(0) | 0x20) == 'e' && is_digit(next(sign ? 2 : 1))) {
      token.bytes += "e";
      if (sign) token.bytes += next(1);
      at_ += sign ? 2 : 1;
      token.bytes += digits(10);
      token.kind = Token::Kind::real;
    }
    const char *first = token.bytes.data(), *last = first + token.bytes.size();
    const auto result = token.kind == Token::Kind::real ? std::from_chars(first, last, token.real_value)
                                                        : std::from_chars(first, last, token.integer_value, base);
    if (result.ec != std::errc() || result.ptr != last) refuse(message("the number ", token.bytes, " is out of range"));
    tokens_.push_back(std::move(token));
  }

  void read_text(char quote) {
    Token token{Token::Kind::text, line_, ""};
    for (++at_; at_ < text_.size() && text_[at_] != quote; ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] == '\\')
        read_escape(token.bytes);
      else
        token.bytes += text_[at_];
    }
    if (at_ >= text_.size()) fail("line ", token.line, ": a text has no closing quote");
    ++at_;
    tokens_.push_back(std::move(token));
  }

  /// at_ is on the backslash and ends on the last character of the escape.
  void read_escape(std::string& out) {
    if (++at_ >= text_.size()) return;
    const char c = text_[at_];
    constexpr std::string_view names = "ntrfvba\\'\"", values = "\n\t\r\f\v\b\a\\'\"";
    if (const size_t known = names.find(c); known != std::string_view::npos) {
      out += values[known];
    } else if (c == '\n') {
      ++line_;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      read_hex(out, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else if (c >= '0' && c <= '7') {
      int code = 0, count = 0;
      for (; count < 3 && at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '7'; ++count, ++at_)
        code = code * 8 + (text_[at_] - '0');
      --at_;
      append_code_point(out, code);
    } else {
      (out += '\\') += c;
    }
  }

  void read_hex(std::string& out, size_t count) {
    uint32_t code = 0;
    const std::string_view digits = text_.substr(at_ + 1, count);
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != count || result.ptr != digits.data() + count || code > 0x10ffff)
      refuse(message("a text has a broken \\", text_[at_], " escape"));
    append_code_point(out, static_cast<int32_t>(code));
    at_ += count;
  }

  std::string source_;
  std::string_view text_, trailing_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace nibble::models::jinja
