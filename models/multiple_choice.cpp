// SPDX-License-Identifier: Apache-2.0
#include "models/multiple_choice.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "models/io/json_text.h"
#include "models/perplexity.h"
#include "models/text/json_reader.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

ChoiceResult with_interval(int tasks, int correct) {
  constexpr double z = 1.95996398454;  // 95 % of a normal distribution
  const double n = tasks, p = correct / n, part = z * z / n;
  const double half = part * std::sqrt(n * (4 * p * (1 - p) + part)) / (2 * z);
  return {tasks, correct, p, (p + part / 2 - half) / (1 + part), (p + part / 2 + half) / (1 + part)};
}

}  // namespace

std::vector<ChoiceTask> read_hellaswag(std::string_view text, const std::string& file) {
  constexpr size_t lines_per_task = 6;
  const std::vector<std::string_view> lines = lines_of(text);
  NIBBLE_CHECK(!lines.empty() && lines.size() % lines_per_task == 0, file, ": expected ", lines_per_task,
               " lines for each task, found ", lines.size(), " in all");
  std::vector<ChoiceTask> tasks;
  for (size_t at = 0; at < lines.size(); at += lines_per_task) {
    const std::string_view number = lines[at + 1];
    NIBBLE_CHECK(number.size() == 1 && number[0] >= '0' && number[0] <= '3', file, ", line ", at + 2,
                 ": expected the number of the right ending, 0 to 3, found '", number, "'");
    ChoiceTask& task = tasks.emplace_back();
    task.context = lines[at];
    task.answer = static_cast<size_t>(number[0] - '0');
    for (size_t i = 2; i < lines_per_task; ++i) {
      NIBBLE_CHECK(!lines[at + i].empty(), file, ", line ", at + i + 1, ": expected an ending, found an empty line");
      task.endings.emplace_back(lines[at + i]);
    }
  }
  return tasks;
}

std::vector<ChoiceTask> read_multiple_choice(std::string_view text, const std::string& file) {
  std::vector<ChoiceTask> tasks;
  size_t number = 0;
  for (const std::string_view line : lines_of(text)) {
    ++number;
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    const std::string where = message(file, ", line ", number);
    const nlohmann::json json = parse_json(line, where);
    const JsonView view(json, where, "");
    ChoiceTask& task = tasks.emplace_back();
    task.context = view.need("question").text();
    const JsonView choices = view.need("choices");
    choices.check_array();
    if (choices.size() < 2) choices.refuse("expected two or more choices, found ", choices.size());
    for (size_t i = 0; i < choices.size(); ++i) {
      task.endings.push_back(choices.at(i).text());
      if (task.endings.back().empty()) choices.at(i).refuse("expected a text, found an empty one");
    }
    task.answer = static_cast<size_t>(view.need("answer").integer(0, static_cast<int64_t>(choices.size()) - 1));
  }
  NIBBLE_CHECK(!tasks.empty(), file, ": expected a JSON object on each line, found none");
  return tasks;
}

std::vector<ChoiceTask> draw_tasks(std::vector<ChoiceTask> tasks, size_t count) {
  std::mt19937 random(1);
  std::vector<size_t> left(tasks.size());
  for (size_t i = 0; i < left.size(); ++i) left[i] = i;
  if (count == 0 || count > tasks.size()) count = tasks.size();
  std::vector<ChoiceTask> drawn;
  while (drawn.size() < count) {
    const size_t index = std::uniform_int_distribution<size_t>(0, left.size() - 1)(random);
    drawn.push_back(std::move(tasks[left[index]]));
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(index));
  }
  return drawn;
}

std::vector<double> score_endings(Engine& engine, const ChoiceTask& task, int number) {
  std::vector<std::vector<int32_t>> texts;
  for (const std::string& ending : task.endings)
    texts.push_back(engine.model().tokenizer->encode(task.context + " " + ending, {.parse_special = false}));
  size_t prefix = texts[0].size(), longest = 0;
  for (const std::vector<int32_t>& text : texts) {
    const auto apart = std::mismatch(text.begin(), text.end(), texts[0].begin(), texts[0].end()).first;
    // an ending that the others go on from still has a token of its own
    prefix = std::min({prefix, static_cast<size_t>(apart - text.begin()), text.size() - 1});
    longest = std::max(longest, text.size());
  }
  NIBBLE_CHECK(prefix >= 1, "task ", number, ": its endings have no token of the context in common");
  NIBBLE_CHECK(longest <= static_cast<size_t>(engine.context()), "task ", number, " has ", longest,
               " tokens; the context is ", engine.context());
  std::vector<Row> rows;
  for (size_t i = 0; i < prefix; ++i) rows.push_back({texts[0][i], static_cast<int32_t>(i), 0, i + 1 == prefix});
  const std::span<const float> before = engine.run(rows);
  const double before_sum = log_sum_exp(before);
  const auto vocab = before.size();
  std::vector<double> scores;
  for (const std::vector<int32_t>& text : texts) scores.push_back(double{before[text[prefix]]} - before_sum);
  for (size_t t = 0; t < texts.size(); ++t) {
    const std::vector<int32_t>& text = texts[t];
    rows.clear();
    for (size_t i = prefix; i + 1 < text.size(); ++i) rows.push_back({text[i], static_cast<int32_t>(i), 0, true});
    if (!rows.empty()) {
      const std::span<const float> logits = engine.run(rows);
      for (size_t i = 0; i < rows.size(); ++i) {
        const std::span<const float> row = logits.subspan(i * vocab, vocab);
        scores[t] += double{row[text[prefix + i + 1]]} - log_sum_exp(row);
      }
    }
    scores[t] /= static_cast<double>(text.size() - prefix);
  }
  return scores;
}

ChoiceResult score_choices(Engine& engine, std::span<const ChoiceTask> tasks,
                           const std::function<void(const ChoiceResult&)>& on_task) {
  NIBBLE_CHECK(engine.model().tokenizer != nullptr, "multiple choice: the model has no tokenizer");
  ChoiceResult result;
  for (const ChoiceTask& task : tasks) {
    const std::vector<double> scores = score_endings(engine, task, result.tasks + 1);
    const auto best = static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    result = with_interval(result.tasks + 1, result.correct + (best == task.answer ? 1 : 0));
    if (on_task) on_task(result);
  }
  return result;
}

}  // namespace nibble::models
