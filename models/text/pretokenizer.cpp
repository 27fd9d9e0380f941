// SPDX-License-Identifier: Apache-2.0
// The patterns are those of the tokenizer.json files of the named models (and, for "default", of llama.cpp).
#include "models/text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "models/text/utf8.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

// Unicode's White_Space, for use inside a class: PCRE2's own \s has U+180E too, which the models' tokenizers have not.
#define SPACES "\\p{Z}\\t-\\r\\x{85}"
#define SPACE "[" SPACES "]"
#define TRAILING_SPACE SPACE "+(?![^" SPACES "])|" SPACE "+"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define NOT_WORD "[^\\r\\n\\p{L}\\p{N}]?"

constexpr const char* gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACES "\\p{L}\\p{N}]+|" TRAILING_SPACE;
constexpr const char* llama3 = CONTRACTION "|" NOT_WORD "\\p{L}+|\\p{N}{1,3}| ?[^" SPACES
                                           "\\p{L}\\p{N}]+[\\r\\n]*|" SPACE "*[\\r\\n]+|" TRAILING_SPACE;
constexpr const char* qwen2 =
    CONTRACTION "|" NOT_WORD "\\p{L}+|\\p{N}| ?[^" SPACES "\\p{L}\\p{N}]+[\\r\\n]*|" SPACE "*[\\r\\n]+|" TRAILING_SPACE;
constexpr const char* qwen35 = CONTRACTION "|" NOT_WORD "[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACES
                                           "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACE "*[\\r\\n]+|" TRAILING_SPACE;
constexpr const char* tekken = NOT_WORD UPPER "*" LOWER "+|" NOT_WORD UPPER "+" LOWER "*|\\p{N}| ?[^" SPACES
                                              "\\p{L}\\p{N}]+[\\r\\n/]*|" SPACE "*[\\r\\n]+|" TRAILING_SPACE;
constexpr const char* gpt4o =
    NOT_WORD UPPER "*" LOWER "+" CONTRACTION "?|" NOT_WORD UPPER "+" LOWER "*" CONTRACTION "?|\\p{N}{1,3}| ?[^" SPACES
                   "\\p{L}\\p{N}]+[\\r\\n/]*|" SPACE "*[\\r\\n]+|" TRAILING_SPACE;
constexpr const char* seed_coder =
    CONTRACTION "|" NOT_WORD "\\p{L}+|\\p{N}| ?[^" SPACES "\\p{L}\\p{N}\\r\\n]+|" SPACE "*[\\r\\n]+|" TRAILING_SPACE;
constexpr const char* bailing = "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^" SPACES
                                "\\p{L}\\p{N}]++[\\r\\n]*|" SPACE "*[\\r\\n]|" TRAILING_SPACE;
constexpr const char* bloom = " ?[^(" SPACES "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+";
constexpr const char* deepseek3 =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACE "*[\\r\\n]+|" TRAILING_SPACE;
constexpr const char* deepseek_letters = SPACE
    "?"
    "[A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-"
    "\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-"
    "\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-"
    "\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}"
    "\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-"
    "\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}"
    "\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-"
    "\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}"
    "\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}"
    "\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}"
    "\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-"
    "\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}"
    "\\x{1E900}-\\x{1E943}]+";
constexpr const char* deepseek_punctuation =
    SPACE "?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+";
// `\s+$`, written so that a long run of spaces inside a line is tried once and not from each of its characters.
constexpr const char* deepseek_line_end = "(?<!" SPACE ")" SPACE "++\\z";
constexpr const char* deepseek_cjk = "[\\x{800}-\\x{9FA5}\\x{AC00}-\\x{D7FF}]+";
constexpr const char* deepseek3_cjk = "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+";
constexpr const char* punctuation = "[\\p{P}$+<=>^~|]+";
constexpr const char* falcon_punctuation = "[\\p{P}$+<=>^~|`]+";

/// Each pattern cuts what the one before it left: matches and the gaps between them are both kept.
struct Family {
  std::initializer_list<std::string_view> names;
  std::initializer_list<const char*> patterns;
  bool prefers_whole_words = false, adds_bos = false;
};

const Family families[] = {
    {{"default"}, {punctuation, gpt2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {{"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum",
      "exaone4", "modern-bert", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code",
      "roberta-bpe"},
     {gpt2}},
    {{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"}, {"\\p{N}", gpt2}},
    {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"}, {llama3}, true, true},
    {{"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, {llama3}},
    {{"qwen2", "stablelm2", "hunyuan", "megrez", "deepseek-r1-qwen", "solar-open", "grok-2"}, {qwen2}},
    {{"qwen35"}, {qwen35}},
    {{"tekken"}, {tekken}, true, true},
    {{"gpt-4o", "llama4", "kanana2", "minimax-m2"}, {gpt4o}},
    {{"falcon"}, {falcon_punctuation, gpt2, "[0-9][0-9][0-9]"}},
    {{"poro-chat", "bloom", "gpt3-finnish"}, {bloom}},
    {{"viking"}, {bloom, "\\p{N}"}},
    {{"seed-coder"}, {seed_coder}},
    {{"bailingmoe", "bailingmoe2", "llada-moe"}, {bailing}},
    {{"deepseek-llm"},
     {"[\\r\\n]", deepseek_letters, deepseek_punctuation, deepseek_line_end, deepseek_cjk, "\\p{N}+"}},
    {{"deepseek-coder"}, {"[\\r\\n]", SPACE "?\\p{L}+", SPACE "?\\p{P}+", deepseek_cjk, "\\p{N}"}},
    {{"deepseek-v3", "hunyuan-dense", "joyai-llm"}, {"\\p{N}{1,3}", deepseek3_cjk, deepseek3}},
};

const Family& find_family(std::string_view name) {
  std::string known;
  for (const Family& family : families)
    for (std::string_view other : family.names) {
      if (other == name) return family;
      known += (known.empty() ? "" : ", ") + std::string(other);
    }
  fail("unknown pre-tokenizer '", name, "'; known: ", known);
}

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
using Code = std::unique_ptr<pcre2_code, FreeCode>;

Code compile(const char* pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error,
                          &offset, nullptr));
  NIBBLE_CHECK(code, "pre-tokenizer pattern '", pattern, "': PCRE2 error ", error, " at ", offset);
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // without it the same matches come from the interpreter
  return code;
}

/// One pass over a text: the state that threads cannot share.
struct Cutter {
  const std::vector<Code>& codes;
  std::vector<std::string_view>& words;
  std::unique_ptr<pcre2_match_context, FreeContext> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_match_data, FreeMatch> data{pcre2_match_data_create(1, nullptr)};

  Cutter(const std::vector<Code>& patterns, std::vector<std::string_view>& out, size_t bytes)
      : codes(patterns), words(out) {
    NIBBLE_CHECK(context && data, "pre-tokenizer: out of memory");
    // Honest patterns look at a character of a run a few times; whatever needs more is stopped.
    const size_t steps = 10'000'000 + 16 * bytes;
    pcre2_set_match_limit(context.get(), static_cast<uint32_t>(std::min<size_t>(steps, UINT32_MAX)));
  }

  void cut(std::string_view text, size_t stage) {
    if (text.empty()) return;
    if (stage == codes.size()) {
      words.push_back(text);
      return;
    }
    size_t at = 0;
    while (at < text.size()) {
      const int found = pcre2_match(codes[stage].get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                    PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, data.get(), context.get());
      if (found == PCRE2_ERROR_NOMATCH) break;
      NIBBLE_CHECK(found >= 0, "pre-tokenizer: PCRE2 error ", found, " in a text of ", text.size(), " bytes");
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
      const size_t begin = range[0], end = range[1];  // the next stage matches into the same data
      cut(text.substr(at, begin - at), stage + 1);
      cut(text.substr(begin, end - begin), stage + 1);
      at = end;
    }
    cut(text.substr(at), stage + 1);
  }
};

}  // namespace

struct PreTokenizer::Impl {
  const Family& family;
  std::vector<Code> codes;
};

PreTokenizer::PreTokenizer(std::string_view name) {
  const Family& family = find_family(name);
  std::vector<Code> codes;
  for (const char* pattern : family.patterns) codes.push_back(compile(pattern));
  impl_.reset(new Impl{family, std::move(codes)});
}

PreTokenizer::~PreTokenizer() = default;
bool PreTokenizer::prefers_whole_words() const { return impl_->family.prefers_whole_words; }
bool PreTokenizer::adds_bos() const { return impl_->family.adds_bos; }

void PreTokenizer::split(std::string_view text, std::vector<std::string_view>& words) const {
  Cutter cutter(impl_->codes, words, text.size());
  while (!text.empty()) {
    size_t valid = 0;
    while (valid < text.size()) {
      const Utf8Char front = utf8_front(text.substr(valid));
      if (front.kind != Utf8Char::Kind::valid) break;
      valid += front.length;
    }
    cutter.cut(text.substr(0, valid), 0);
    text.remove_prefix(valid);
    if (text.empty()) break;
    const size_t invalid = utf8_front(text).length;
    words.push_back(text.substr(0, invalid));
    text.remove_prefix(invalid);
  }
}

}  // namespace nibble::models
