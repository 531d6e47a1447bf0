/* SPDX-License-Identifier: Apache-2.0
 *
 * globals.h - what a script finds beside the language: console, module, Math.random, Buffer and friends.
 */
#ifndef LORAWAN_JS_GLOBALS_H
#define LORAWAN_JS_GLOBALS_H

#include <stdbool.h>

#include "quickjs.h"

/* Define the globals. False: an exception is pending. */
bool globals_start(JSContext *ctx);
void globals_stop(JSContext *ctx);

/* Give an input object its `recvTime`: a Date, made when it is first looked at, since the clock is the host's. */
bool globals_define_recv_time(JSContext *ctx, JSValueConst input);

#endif
