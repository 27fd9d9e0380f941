// SPDX-License-Identifier: Apache-2.0
// The version, for CMake too, which reads it here.
#pragma once

#define NIBBLE_VERSION "0.1.0"
