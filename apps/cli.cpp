// SPDX-License-Identifier: Apache-2.0
#include "apps/cli.h"

namespace nibble::cli {}
