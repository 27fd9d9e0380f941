// SPDX-License-Identifier: Apache-2.0
// Questions with given endings: which does the model expect most?
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/decoder.h"

namespace nibble::models {

struct ChoiceTask {
  std::string context;
  std::vector<std::string> endings;  ///< two or more
  size_t answer = 0;                 ///< the right ending
};

/// llama.cpp's text form of HellaSwag, six lines a task: context, number of the right ending from 0, four endings.
/// Throws Error naming `file` and the line.
std::vector<ChoiceTask> read_hellaswag(std::string_view text, const std::string& file);
/// One JSON object a line: {"question": "...", "choices": ["...", "..."], "answer": 0}; empty lines are skipped. Throws
/// Error naming `file` and the line.
std::vector<ChoiceTask> read_multiple_choice(std::string_view text, const std::string& file);

/// `count` tasks at random (0 or more than there are: all): of HellaSwag those that llama.cpp's tool draws, in its
/// order.
std::vector<ChoiceTask> draw_tasks(std::vector<ChoiceTask> tasks, size_t count);

struct ChoiceResult {
  int tasks = 0, correct = 0;
  double accuracy = 0, low = 0, high = 0;  ///< with the 95 % interval (Wilson)
};

/// The mean log-probability of each ending's tokens, given context and a space; tokens that all endings begin with
/// count as context. Throws Error naming the task that does not fit the engine's context.
std::vector<double> score_endings(Engine& engine, const ChoiceTask& task, int number);

/// How often the ending with the highest score is the right one.
ChoiceResult score_choices(Engine& engine, std::span<const ChoiceTask> tasks,
                           const std::function<void(const ChoiceResult&)>& on_task = {});

}  // namespace nibble::models
