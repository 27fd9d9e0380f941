// SPDX-License-Identifier: Apache-2.0
// nibble --list: the architectures, as a table for people or for README.
#include <cstdio>
#include <string>
#include <vector>

#include "apps/command.h"
#include "apps/terminal.h"
#include "models/catalog.h"
#include "tensor/text_table.h"

namespace nibble::cli {

namespace {

const std::vector<std::string> header = {"architecture", "models", "GGUF", "folder", "GPTQ", "AWQ", "proved by"};

std::vector<std::string> cells(const models::Arch& arch) {
  const models::Sources from = models::sources(arch);
  std::vector<std::string> row = {std::string(arch.name), std::string(arch.examples)};
  for (bool yes : {from.gguf, from.folder, from.gptq, from.awq}) row.emplace_back(yes ? "yes" : "-");
  row.emplace_back(arch.proof);
  return row;
}

std::string markdown_row(const std::vector<std::string>& row) {
  std::string line = "|";
  for (const std::string& cell : row) line += " " + cell + " |";
  return line + "\n";
}

}  // namespace

int print_list(bool markdown) {
  std::string text;
  if (markdown) {
    text = markdown_row(header) + "|";
    for (size_t i = 0; i < header.size(); ++i) text += "---|";
    text += "\n";
    for (const models::Arch& arch : models::all_archs()) text += markdown_row(cells(arch));
  } else {
    TextTable table(header);
    for (const models::Arch& arch : models::all_archs()) table.row(cells(arch));
    text = table.text();
  }
  put(text);
  return 0;
}

}  // namespace nibble::cli
