// SPDX-License-Identifier: Apache-2.0
#include "jit/jit.h"

namespace nibble::jit {}
