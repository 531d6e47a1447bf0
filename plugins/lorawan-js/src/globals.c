/* SPDX-License-Identifier: Apache-2.0 */
#include "globals.h"

#include <string.h>

#include "gw1.h"
#include "polyfill.h"
#include "script.h"
#include "value.h"

enum { LINE_BYTES = 512 }; /* what the host takes of a line of log */

static JSAtom recv_time_name;
static JSValue date, recv_time_getter;

/* ---- console ----------------------------------------------------------------------------------------------------- */

static JSValue console_say(JSContext *ctx, JSValueConst this_value, int count, JSValueConst *args, int level) {
    static char line[LINE_BYTES];
    size_t len = 0;
    for (int i = 0; i < count && len < LINE_BYTES; i++) {
        if (i) line[len++] = ' ';
        len += value_show(ctx, line + len, LINE_BYTES - len, args[i]);
    }
    gw_log(level, line, (uint32_t)len);
    return JS_UNDEFINED;
}

static JSValue make_console(JSContext *ctx) {
    static const struct {
        const char *name;
        int level;
    } methods[] = {{"log", SCRIPT_INFO},     {"info", SCRIPT_INFO},   {"debug", SCRIPT_DEBUG},
                   {"warn", SCRIPT_WARNING}, {"error", SCRIPT_ERROR}, {"trace", SCRIPT_DEBUG}};
    JSValue console = JS_NewObject(ctx);
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        JSValue say =
            JS_NewCFunctionMagic(ctx, console_say, methods[i].name, 1, JS_CFUNC_generic_magic, methods[i].level);
        JS_SetPropertyStr(ctx, console, methods[i].name, say);
    }
    return console;
}

/* ---- Math.random: the host's randomness, fetched in pages because asking costs more than a decode ---------------- */

static JSValue math_random(JSContext *ctx, JSValueConst this_value, int count, JSValueConst *args) {
    static uint64_t page[64];
    static size_t left;
    if (!left) {
        gw_random(page, sizeof page);
        left = sizeof page / sizeof *page;
    }
    return JS_NewFloat64(ctx, (double)(page[--left] >> 11) * 0x1p-53);
}

/* ---- recvTime ---------------------------------------------------------------------------------------------------- */

static JSValue get_recv_time(JSContext *ctx, JSValueConst input, int count, JSValueConst *args) {
    JSValue now = JS_CallConstructor(ctx, date, 0, NULL);
    if (JS_IsException(now)) return now;
    if (JS_DefinePropertyValue(ctx, input, recv_time_name, JS_DupValue(ctx, now), JS_PROP_C_W_E) < 0) {
        JS_FreeValue(ctx, now);
        return JS_EXCEPTION;
    }
    return now;
}

bool globals_define_recv_time(JSContext *ctx, JSValueConst input) {
    int flags = JS_PROP_HAS_GET | JS_PROP_HAS_CONFIGURABLE | JS_PROP_CONFIGURABLE;
    flags |= JS_PROP_HAS_ENUMERABLE | JS_PROP_ENUMERABLE;
    return JS_DefineProperty(ctx, input, recv_time_name, JS_UNDEFINED, recv_time_getter, JS_UNDEFINED, flags) >= 0;
}

/* ---- All of them ------------------------------------------------------------------------------------------------- */

bool globals_start(JSContext *ctx) {
    JSValue global = JS_GetGlobalObject(ctx);
    recv_time_name = JS_NewAtom(ctx, "recvTime");
    date = JS_GetPropertyStr(ctx, global, "Date");
    recv_time_getter = JS_NewCFunction(ctx, get_recv_time, "recvTime", 0);
    JSValue math = JS_GetPropertyStr(ctx, global, "Math");
    JS_SetPropertyStr(ctx, math, "random", JS_NewCFunction(ctx, math_random, "random", 0));
    JS_FreeValue(ctx, math);
    JS_SetPropertyStr(ctx, global, "console", make_console(ctx));
    JS_FreeValue(ctx, global);
    JSValue done = JS_Eval(ctx, polyfill, sizeof polyfill - 1, "<globals>", JS_EVAL_TYPE_GLOBAL);
    bool defined = !JS_IsException(done);
    JS_FreeValue(ctx, done);
    return defined;
}

void globals_stop(JSContext *ctx) {
    JS_FreeAtom(ctx, recv_time_name);
    JS_FreeValue(ctx, recv_time_getter);
    JS_FreeValue(ctx, date);
}
