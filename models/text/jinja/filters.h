// SPDX-License-Identifier: Apache-2.0
// Internal to the built-ins: their lists.
#pragma once

#include <span>

#include "models/text/jinja/arguments.h"

namespace nibble::models::jinja {

std::span<const NamedBuiltin> text_filters();
std::span<const NamedBuiltin> list_filters();

}  // namespace nibble::models::jinja
