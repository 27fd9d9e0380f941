// SPDX-License-Identifier: Apache-2.0
// A shared object that is no plugin.
extern "C" int nibble_nothing() { return 0; }
