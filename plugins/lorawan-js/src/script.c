/* SPDX-License-Identifier: Apache-2.0 */
#include "script.h"

#include <stdio.h>
#include <string.h>

#include "globals.h"
#include "value.h"

#define FILE_NAME "codec.js"
#define ERROR_BYTES 512 /* what the ABI carries of an error's text */
#define MOST_TEXTS 8    /* of a list of errors or warnings */

/* Of the shadow stack, which grows with the machine's own stack at about a third of its speed or more: so deep a
 * recursion ends as an exception before the sandbox's own limit ends the instance. */
#define STACK_BYTES (48 * 1024)

static script the_script;
static const char *the_source;
static size_t the_len;
static bool for_downlink, exhausted;
static char error_text[ERROR_BYTES];

/* ---- Memory: the sandbox's; an allocation that fails is an exception to the script ------------------------------- */

enum { BLOCK_OVERHEAD = 8 };

static void *counted(JSMallocState *state, void *block) {
    if (block) {
        state->malloc_count++;
        state->malloc_size += malloc_usable_size(block) + BLOCK_OVERHEAD;
    } else {
        exhausted = true;
    }
    return block;
}

static void uncount(JSMallocState *state, void *block) {
    if (!block) return;
    state->malloc_count--;
    state->malloc_size -= malloc_usable_size(block) + BLOCK_OVERHEAD;
}

static void *allocate(JSMallocState *state, size_t size) { return counted(state, malloc(size)); }

static void release(JSMallocState *state, void *block) {
    uncount(state, block);
    free(block);
}

static void *resize(JSMallocState *state, void *block, size_t size) {
    if (!size) {
        release(state, block);
        return NULL;
    }
    size_t before = block ? malloc_usable_size(block) : 0;
    void *moved = realloc(block, size);
    if (!block || !moved) return counted(state, moved);
    state->malloc_size += malloc_usable_size(moved) - before;
    return moved;
}

static const JSMallocFunctions memory = {allocate, release, resize, malloc_usable_size};

/* ---- Life -------------------------------------------------------------------------------------------------------- */

static void stop(script *s) {
    if (!s->ctx) return;
    JSRuntime *engine = JS_GetRuntime(s->ctx);
    JS_FreeValue(s->ctx, s->decoder);
    JS_FreeValue(s->ctx, s->converter);
    JS_FreeValue(s->ctx, s->validator);
    JS_FreeValue(s->ctx, s->encoder);
    value_stop(s->ctx);
    globals_stop(s->ctx);
    JS_FreeContext(s->ctx);
    JS_FreeRuntime(engine);
    s->ctx = NULL;
}

/* A function of the script by name, wherever published codecs leave one; undefined where there is none. */
static JSValue function_named(JSContext *ctx, const char *name) {
    char source[160];
    int len = snprintf(source, sizeof source,
                       "typeof %s==='function'?%s:(typeof module==='object'&&module&&module.exports||{}).%s", name,
                       name, name);
    JSValue found = JS_Eval(ctx, source, (size_t)len, FILE_NAME, JS_EVAL_TYPE_GLOBAL);
    if (JS_IsException(found)) JS_FreeValue(ctx, JS_GetException(ctx));
    else if (JS_IsFunction(ctx, found)) return found;
    else JS_FreeValue(ctx, found);
    return JS_UNDEFINED;
}

typedef struct {
    const char *name;
    script_style style;
} convention;

static JSValue first_of(JSContext *ctx, const convention *known, size_t count, script_style *style) {
    for (size_t i = 0; i < count; i++) {
        JSValue found = function_named(ctx, known[i].name);
        if (!JS_IsUndefined(found)) {
            *style = known[i].style;
            return found;
        }
    }
    return JS_UNDEFINED;
}

static void find_functions(script *s) {
    static const convention decoders[] = {
        {"decodeUplink", STYLE_INPUT}, {"Decode", STYLE_FPORT}, {"Decoder", STYLE_PORT_LAST}};
    static const convention downlink_decoders[] = {{"decodeDownlink", STYLE_INPUT}};
    static const convention encoders[] = {
        {"encodeDownlink", STYLE_INPUT}, {"Encode", STYLE_FPORT}, {"Encoder", STYLE_PORT_LAST}};
    s->decoder = for_downlink ? first_of(s->ctx, downlink_decoders, 1, &s->decoder_style)
                              : first_of(s->ctx, decoders, 3, &s->decoder_style);
    s->encoder = first_of(s->ctx, encoders, 3, &s->encoder_style);
    s->converter = function_named(s->ctx, "Converter");
    s->validator = function_named(s->ctx, "Validator");
}

/* Let promises go on. */
static void run_jobs(JSContext *ctx) {
    JSContext *of_job;
    while (JS_ExecutePendingJob(JS_GetRuntime(ctx), &of_job)) {}
}

static int32_t start(script *s) {
    JSRuntime *engine = JS_NewRuntime2(&memory, NULL);
    if (!engine) return gw_error(GW_BAD_CONFIG, FILE_NAME ": no memory for the engine");
    JS_SetMaxStackSize(engine, STACK_BYTES);
    s->ctx = JS_NewContext(engine);
    if (!s->ctx) {
        JS_FreeRuntime(engine);
        return gw_error(GW_BAD_CONFIG, FILE_NAME ": no memory for the engine");
    }
    s->decoder = s->converter = s->validator = s->encoder = JS_UNDEFINED;
    JSValue done = JS_EXCEPTION;
    if (value_start(s->ctx) && globals_start(s->ctx))
        done = JS_Eval(s->ctx, the_source, the_len, FILE_NAME, JS_EVAL_TYPE_GLOBAL);
    if (JS_IsException(done)) return script_thrown(s, GW_BAD_CONFIG);
    JS_FreeValue(s->ctx, done);
    run_jobs(s->ctx);
    exhausted = false;
    find_functions(s);
    /* Some vendors publish decoder and encoder as two scripts. */
    if (!JS_IsUndefined(s->decoder) || !JS_IsUndefined(s->encoder)) return 0;
    return gw_error(GW_BAD_CONFIG, FILE_NAME ": " SCRIPT_NO_DECODER " and " SCRIPT_NO_ENCODER);
}

int32_t script_load(const char *source, size_t len, bool downlink) {
    the_source = source;
    the_len = len;
    for_downlink = downlink;
    int32_t code = start(&the_script);
    if (code) the_script.ctx = NULL; /* the host discards the instance */
    return code;
}

script *script_ready(void) {
    if (the_script.ctx) return &the_script;
    gw_error(GW_UNSUPPORTED, "no script");
    return NULL;
}

void script_finish(script *s) {
    run_jobs(s->ctx);
    if (!exhausted) return;
    stop(s);
    /* It ran before: what is left of the memory is in pieces too small. Only a new instance helps. */
    if (start(s)) __builtin_trap();
}

/* ---- Errors as text ---------------------------------------------------------------------------------------------- */

/* "codec.js:12" for an error that was thrown there, "codec.js" where that is not known. */
static size_t put_place(JSContext *ctx, JSValueConst error, char *to, size_t room) {
    size_t len = sizeof FILE_NAME - 1;
    memcpy(to, FILE_NAME, len);
    JSValue stack = JS_IsError(ctx, error) ? JS_GetPropertyStr(ctx, error, "stack") : JS_UNDEFINED;
    const char *lines = JS_IsString(stack) ? JS_ToCString(ctx, stack) : NULL;
    const char *place = lines ? strstr(lines, FILE_NAME ":") : NULL;
    if (place) {
        to[len] = place[len];
        for (len++; len < room && place[len] >= '0' && place[len] <= '9'; len++) to[len] = place[len];
    }
    if (lines) JS_FreeCString(ctx, lines);
    if (JS_IsException(stack)) JS_FreeValue(ctx, JS_GetException(ctx));
    JS_FreeValue(ctx, stack);
    return len;
}

int32_t script_thrown(script *s, int32_t code) {
    JSValue error = JS_GetException(s->ctx);
    size_t len = put_place(s->ctx, error, error_text, ERROR_BYTES / 2);
    error_text[len++] = ':';
    error_text[len++] = ' ';
    size_t said = exhausted ? 0 : value_show(s->ctx, error_text + len, ERROR_BYTES - len, error);
    if (!said) {
        const char *words = exhausted ? "InternalError: out of memory" : "an exception that cannot be shown";
        said = strlen(words);
        memcpy(error_text + len, words, said);
    }
    JS_FreeValue(s->ctx, error);
    gw_log(SCRIPT_ERROR, error_text, (uint32_t)(len + said));
    return gw_error_n(code, error_text, len + said);
}

void script_said(script *s, int32_t level, const char *what, JSValueConst texts) {
    size_t len = (size_t)snprintf(error_text, ERROR_BYTES, FILE_NAME ": %s:", what);
    bool is_list = JS_IsArray(s->ctx, texts) == 1;
    for (uint32_t i = 0; i < (is_list ? MOST_TEXTS : 1) && len + 2 < ERROR_BYTES; i++) {
        JSValue text = is_list ? JS_GetPropertyUint32(s->ctx, texts, i) : JS_DupValue(s->ctx, texts);
        if (JS_IsException(text)) JS_FreeValue(s->ctx, JS_GetException(s->ctx));
        if (JS_IsUndefined(text) || JS_IsException(text)) break;
        if (i) error_text[len++] = ';';
        error_text[len++] = ' ';
        len += value_show(s->ctx, error_text + len, ERROR_BYTES - len, text);
        JS_FreeValue(s->ctx, text);
    }
    gw_log(level, error_text, (uint32_t)len);
    gw_error_n(GW_OWN, error_text, len);
}
