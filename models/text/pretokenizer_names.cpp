// SPDX-License-Identifier: Apache-2.0
// The patterns are those of the tokenizer.json files of the named models (and, for "default", of llama.cpp).
#include "models/text/pretokenizer_names.h"

#include <algorithm>
#include <initializer_list>

#include "tensor/check.h"

namespace nibble::models {

namespace {

#define TRAILING "\\s+(?!\\S)|\\s+"
#define LINES "\\s*[\\r\\n]+|" TRAILING
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LEAD "[^\\r\\n\\p{L}\\p{N}]?"
#define SIGNS " ?[^\\s\\p{L}\\p{N}]+"
#define SIGNS_LINES SIGNS "[\\r\\n]*|" LINES
#define SIGNS_SLASH SIGNS "[\\r\\n/]*|" LINES
#define CASED(end) LEAD "[" UPPER "]*[" LOWER "]+" end "|" LEAD "[" UPPER "]+[" LOWER "]*" end "|"

constexpr const char* gpt2 = gpt2_pattern;
constexpr const char* llama3 = llama3_pattern;
constexpr const char* qwen2 = qwen2_pattern;
constexpr const char* kimi = kimi_pattern;
constexpr const char* jais2 = CONTRACTION "|" LEAD "\\p{L}+|\\p{N}{1,3}|" SIGNS "[\\r\\n]*|\\s*[\\r\\n]+|"
    "\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|"
    "\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}";
constexpr const char* qwen35 =
    CONTRACTION "|" LEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LINES;
constexpr const char* ufakzeka = LEAD "\\p{L}+|\\p{N}|" SIGNS_LINES;
constexpr const char* minicpm5 = CONTRACTION "|" LEAD "\\p{L}+|\\p{N}+|" SIGNS_LINES;
constexpr const char* tekken = CASED("") "\\p{N}|" SIGNS_SLASH;
constexpr const char* gpt4o = CASED(CONTRACTION "?") "\\p{N}{1,3}|" SIGNS_SLASH;
constexpr const char* youtu = CASED(CONTRACTION "?") "\\p{N}|" SIGNS_SLASH;
constexpr const char* youtu_scripts =
    "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}"
    "\\x{FF1A}\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|"
    "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+";
constexpr const char* seed_coder = CONTRACTION "|" LEAD "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" LINES;
constexpr const char* bailing =
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|" TRAILING;
constexpr const char* exaone_moe = CONTRACTION "|" LEAD "(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}|" SIGNS
                                               "[\\r\\n/]?|\\s*[\\r\\n]|" TRAILING;
constexpr const char* bloom = " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+";
#define DEEPSEEK_WORDS \
  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
constexpr const char* deepseek3 = DEEPSEEK_WORDS "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINES;
constexpr const char* spark = DEEPSEEK_WORDS "| ?[\\p{P}\\p{S}]+|[\\r\\n]|" TRAILING;
constexpr const char* deepseek_letters =
    "\\s?"
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
    "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+";
// `\s+$`, written so that a long run of spaces inside a line is tried once and not from each of its characters.
constexpr const char* deepseek_line_end = "(?<!\\s)\\s++\\z";
constexpr const char* deepseek_cjk = "[\\x{800}-\\x{9FA5}\\x{AC00}-\\x{D7FF}]+";
constexpr const char* deepseek3_cjk = "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+";
constexpr const char* afmoe_scripts =
    "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{30FF}\\x{FF65}-\\x{FF9F}"
    "\\x{2F00}-\\x{2FDF}\\x{E00}-\\x{E7F}\\x{E80}-\\x{EFF}\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}"
    "\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}\\x{1100}-\\x{11FF}]+";
constexpr const char* punctuation = "[\\p{P}$+<=>^~|]+";
constexpr const char* falcon_punctuation = "[\\p{P}$+<=>^~|`]+";
constexpr const char* whole_lines = "[^\\n]+|[\\n]+";
/// Not a pattern: groups of three digits from the right, which no pattern finds in linear time.
constexpr const char* digit_groups = "";
/// The same for `\d{1,3}(?=(?:\d{3})*\b)`, which asks for the end of a word after the digits.
constexpr const char* word_digit_groups = "#";

using Bits = unsigned;
constexpr Bits none = 0, whole_words = 1, adds_bos = 2, nfc = 4, adds_separator = 8, raw_text = 16, escapes_spaces = 32,
               drops_gaps = 64;

/// Each pattern cuts what the one before it left: matches and the gaps between them are both kept.
struct Family {
  std::initializer_list<std::string_view> names;
  std::initializer_list<const char*> patterns;
  Bits bits = none;
};

const Family families[] = {
    {{"default"}, {punctuation, gpt2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {{"gpt-2", "phi-2", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum", "exaone4", "jina-es",
      "jina-de", "jina-v2-es", "jina-v2-de"},
     {gpt2}},
    {{"mpt", "olmo", "modern-bert"}, {gpt2}, nfc},
    {{"jina-v1-en", "jina-v2-code", "roberta-bpe"}, {gpt2}, adds_separator},
    {{"starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"}, {"\\p{N}", gpt2}},
    {{"command-r"}, {"\\p{N}", gpt2}, nfc},
    {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
     {llama3},
     whole_words | adds_bos},
    {{"dbrx", "smaug-bpe", "chatglm-bpe"}, {llama3}},
    {{"glm4", "glm5"}, {llama3}, whole_words},
    {{"jais-2"}, {jais2}},
    {{"minicpm5"}, {"\\p{N}{1,3}", minicpm5}, whole_words},
    {{"qwen2", "deepseek-r1-qwen", "megrez", "kormo", "f2llmv2", "stablelm2"}, {qwen2}, nfc},
    {{"hunyuan", "solar-open", "grok-2"}, {qwen2}},
    {{"qwen35"}, {qwen35}, nfc},
    {{"ufakzeka"}, {ufakzeka}},
    {{"laguna"}, {whole_lines, qwen2}},
    {{"tekken"}, {tekken}, whole_words | adds_bos},
    {{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, {gpt4o}},
    {{"granite-embed-multi-97m"}, {gpt4o}, whole_words},
    {{"tiny_aya", "cohere2moe"}, {word_digit_groups, gpt4o}},
    {{"youtu"}, {youtu_scripts, youtu}, whole_words},
    {{"kimi-k2"}, {kimi}},
    {{"superbpe"}, {"\\p{N}+", digit_groups}},
    {{"falcon"}, {falcon_punctuation, gpt2, "[0-9][0-9][0-9]"}},
    {{"chameleon"},
     {"<sentinel:[0-9]+>", "(?:IMGIMG)[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", gpt2},
     adds_bos},
    {{"poro-chat", "bloom", "gpt3-finnish"}, {bloom}},
    {{"viking"}, {bloom, "\\p{N}"}},
    {{"seed-coder"}, {seed_coder}},
    {{"bailingmoe", "bailingmoe2", "llada-moe"}, {bailing}},
    {{"exaone-moe"}, {exaone_moe}},
    {{"deepseek-llm"},
     {"[\\r\\n]", deepseek_letters, deepseek_punctuation, deepseek_line_end, deepseek_cjk, "\\p{N}+"}},
    {{"deepseek-coder"}, {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", deepseek_cjk, "\\p{N}"}},
    {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, {"\\p{N}{1,3}", deepseek3_cjk, deepseek3}},
    {{"spark2_5"}, {"\\p{N}{1,3}", deepseek3_cjk, spark, "\\p{N}"}},
    {{"afmoe"}, {digit_groups, afmoe_scripts, deepseek3}},
    {{"gemma4", "granite-embed-multi-311m", "sarvam-moe"}, {whole_lines}, raw_text | escapes_spaces},
    {{"whitespace"}, {"\\S+"}, raw_text | drops_gaps},
};

const Family& find_family(std::string_view name) {
  std::string known;
  for (const Family& family : families)
    for (std::string_view other : family.names) {
      if (other == name) return family;
      known.append(known.empty() ? "" : ", ").append(other);
    }
  fail("unknown pre-tokenizer '", name.substr(0, 60), "'; known: ", known);
}

}  // namespace

NamedPreTokenizer named_pretokenizer(std::string_view name) {
  const Family& family = find_family(name);
  NamedPreTokenizer out;
  for (const char* pattern : family.patterns) {
    if (pattern == digit_groups || pattern == word_digit_groups)
      out.steps.add(DigitGroups{pattern == digit_groups});
    else
      out.steps.add(RegexSplit{Regex(pattern), SplitBehavior::isolated, false});
  }
  if (family.bits & drops_gaps) {
    out.steps = {};
    out.steps.add(RegexSplit{Regex(*family.patterns.begin()), SplitBehavior::removed, true});
  }
  out.prefers_whole_words = (family.bits & whole_words) != 0;
  out.adds_bos = (family.bits & adds_bos) != 0;
  out.nfc = (family.bits & nfc) != 0;
  out.adds_separator = (family.bits & adds_separator) != 0;
  out.byte_level = (family.bits & raw_text) == 0;
  out.escapes_spaces = (family.bits & escapes_spaces) != 0;
  const auto no_pattern = [](const char* pattern) { return pattern == digit_groups || pattern == word_digit_groups; };
  if (std::none_of(family.patterns.begin(), family.patterns.end(), no_pattern) && (family.bits & drops_gaps) == 0)
    out.patterns.assign(family.patterns.begin(), family.patterns.end());
  return out;
}

std::string_view pretokenizer_name_of(std::span<const std::string> patterns) {
  for (const Family& family : families)
    if ((family.bits & (raw_text | drops_gaps)) == 0 &&
        std::equal(patterns.begin(), patterns.end(), family.patterns.begin(), family.patterns.end()))
      return *family.names.begin();
  return "";
}

std::vector<std::string_view> pretokenizer_names() {
  std::vector<std::string_view> out;
  for (const Family& family : families) out.insert(out.end(), family.names);
  return out;
}

}  // namespace nibble::models
