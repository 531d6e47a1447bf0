/* SPDX-License-Identifier: Apache-2.0
 *
 * port.h - what the JavaScript engine expects of a platform and WebAssembly does not have.
 *
 * Included ahead of every source file (`-include`), the engine's own too, so that those compile as they are. Owns the
 * names; port.c holds the code.
 */
#ifndef LORAWAN_JS_PORT_H
#define LORAWAN_JS_PORT_H

#include <fenv.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Big integers in limbs of 64 bits, though pointers have 32: with limbs of 32 bits the engine makes 2^63 and above from
 * the wrong bits (a shift by the width of a limb). */
#pragma push_macro("INTPTR_MAX")
#undef INTPTR_MAX
#define INTPTR_MAX INT64_MAX
#include "libbf.h"
#pragma pop_macro("INTPTR_MAX")

/* Numbers to text. The libc computes in software with 128 bits, and rounds a tie to even, around which the engine works
 * by the modes of a floating-point unit that has none here. port_snprintf rounds a tie away from zero, as JavaScript
 * does. */
#undef FE_DOWNWARD
#undef FE_UPWARD
#define FE_DOWNWARD FE_TONEAREST
#define FE_UPWARD FE_TONEAREST
#define snprintf port_snprintf
int port_snprintf(char *to, size_t room, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Text to numbers: the same 128 bits. */
#define strtod port_strtod
double port_strtod(const char *text, char **end);

/* Nobody reads what the engine prints to debug itself. A broken assertion ends the instance. */
#define printf(...) ((void)0)
#define fprintf(...) ((void)0)
#define __assert_fail port_assert_fail
_Noreturn void port_assert_fail(const char *condition, const char *file, int line, const char *function);

size_t malloc_usable_size(const void *block); /* the libc has it, and no header says so */

#endif
