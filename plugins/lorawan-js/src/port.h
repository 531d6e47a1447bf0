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
#include <stdio.h>
#include <stdlib.h>

/* Numbers to text. The engine asks the floating-point unit to round digits up or down, which here rounds to nearest
 * only; and the libc computes in software with 128 bits. */
#undef FE_DOWNWARD
#undef FE_UPWARD
#define FE_DOWNWARD 0x400
#define FE_UPWARD 0x800
#define fesetround port_set_rounding
#define snprintf port_snprintf
int port_set_rounding(int mode);
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
