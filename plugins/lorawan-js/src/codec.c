/* SPDX-License-Identifier: Apache-2.0
 *
 * codec.c - the exports of ABI gw1: frames to a JavaScript decoder, its answers to items, commands to its encoder.
 *
 * Owns the settings and the envelope around a LoRaWAN payload. Knows no vendor.
 */
#include <stdlib.h>
#include <string.h>

#include "globals.h"
#include "gw1.h"
#include "script.h"
#include "value.h"

enum { CODE_REPORTED = GW_OWN, CODE_THROWN = GW_OWN + 1 };
enum { EUI_BYTES = 8, MOST_FPORT = 255, DEFAULT_FPORT = 1 };

typedef enum { FPORT_AUX, FPORT_FIRST_BYTE, FPORT_FIXED } fport_source;

static struct {
    fport_source fport_from;
    uint32_t fport;       /* of FPORT_FIXED */
    bool has_eui;         /* a frame begins with its DevEUI */
    bool downlink;        /* frames are what the network sends to devices */
    const uint8_t *variables; /* msgpack, or NULL */
    uint32_t variables_len;
} settings;

/* ---- Settings ---------------------------------------------------------------------------------------------------- */

static int32_t set_fport(gw_value value) {
    if (gw_is(value, "aux")) settings.fport_from = FPORT_AUX;
    else if (gw_is(value, "first_byte")) settings.fport_from = FPORT_FIRST_BYTE;
    else if (value.type == GW_T_UINT && value.uint <= MOST_FPORT) {
        settings.fport_from = FPORT_FIXED;
        settings.fport = (uint32_t)value.uint;
    } else return gw_error(GW_BAD_CONFIG, "config: `fport` must be \"aux\", \"first_byte\" or a number from 0 to 255");
    return 0;
}

static int32_t set_device(gw_value value) {
    settings.has_eui = gw_is(value, "prefix8");
    if (settings.has_eui || gw_is(value, "none")) return 0;
    return gw_error(GW_BAD_CONFIG, "config: `device` must be \"none\" or \"prefix8\"");
}

static int32_t set_direction(gw_value value) {
    settings.downlink = gw_is(value, "down");
    if (settings.downlink || gw_is(value, "up")) return 0;
    return gw_error(GW_BAD_CONFIG, "config: `direction` must be \"up\" or \"down\"");
}

/* The variables are kept as msgpack and read anew for each script. */
static int32_t set_variables(const uint8_t *from, const uint8_t *to) {
    gw_in in = {.at = from, .end = to};
    if (gw_next(&in).type != GW_T_MAP) return gw_error(GW_BAD_CONFIG, "config: `variables` must be a table");
    uint8_t *kept = malloc((size_t)(to - from));
    if (!kept) return gw_error(GW_BAD_CONFIG, "config: `variables` do not fit the memory");
    memcpy(kept, from, (size_t)(to - from));
    settings.variables = kept;
    settings.variables_len = (uint32_t)(to - from);
    return 0;
}

static int32_t set_one(gw_value key, gw_in *in) {
    gw_in value = *in;
    if (!gw_skip(in)) return gw_error(GW_BAD_CONFIG, "config: not msgpack");
    if (gw_is(key, "variables")) return set_variables(value.at, in->at);
    if (gw_is(key, "fport")) return set_fport(gw_next(&value));
    if (gw_is(key, "device")) return set_device(gw_next(&value));
    if (gw_is(key, "direction")) return set_direction(gw_next(&value));
    return gw_error(GW_BAD_CONFIG, "config: an unknown key; known are `fport`, `device`, `direction` and `variables`");
}

static int32_t configure(gw_in config) {
    gw_value map = gw_next(&config);
    if (map.type == GW_T_END || map.type == GW_T_NIL) return 0;
    if (map.type != GW_T_MAP) return gw_error(GW_BAD_CONFIG, "config: not a table");
    for (uint32_t i = 0; i < map.len; i++) {
        gw_value key = gw_next(&config);
        int32_t code = set_one(key, &config);
        if (code) return code;
    }
    return 0;
}

static int32_t init(gw_in start) {
    gw_in config = {0};
    gw_find(start, "config", &config);
    int32_t code = configure(config);
    gw_value source = gw_get(start, "script");
    if (code || source.type != GW_T_STR) return code;
    static const char mark[] = "\xef\xbb\xbf"; /* a byte order mark is no JavaScript */
    if (source.len >= 3 && memcmp(source.text, mark, 3) == 0) {
        source.text += 3;
        source.len -= 3;
    }
    char *kept = malloc((size_t)source.len + 1);
    if (!kept) return gw_error(GW_BAD_CONFIG, "codec.js: does not fit the memory; raise [limits] memory_mib");
    memcpy(kept, source.text, source.len);
    kept[source.len] = 0; /* the engine reads up to a zero */
    return script_load(kept, source.len, settings.downlink);
}
GW_INIT(init)

/* ---- Decoding ---------------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *eui; /* NULL: the frame names no device */
    uint32_t fport;
    const uint8_t *payload;
    uint32_t len;
} uplink;

static bool open_envelope(uplink *to, const uint8_t *frame, uint32_t len, uint32_t aux) {
    *to = (uplink){.fport = settings.fport_from == FPORT_FIXED ? settings.fport : aux};
    uint32_t head = (settings.has_eui ? EUI_BYTES : 0) + (settings.fport_from == FPORT_FIRST_BYTE ? 1 : 0);
    if (len < head) return false;
    if (settings.has_eui) to->eui = frame;
    if (settings.fport_from == FPORT_FIRST_BYTE) to->fport = frame[head - 1];
    to->payload = frame + head;
    to->len = len - head;
    return true;
}

static JSValue read_variables(JSContext *ctx) {
    if (!settings.variables) return JS_NewObject(ctx);
    gw_in in = {.at = settings.variables, .end = settings.variables + settings.variables_len};
    return value_read(ctx, &in);
}

/* Call with arguments that it frees; an exception among them is the result. */
static JSValue call(JSContext *ctx, JSValueConst function, int count, JSValue *args) {
    JSValue result = JS_UNDEFINED;
    for (int i = 0; i < count; i++)
        if (JS_IsException(args[i])) result = JS_EXCEPTION;
    if (!JS_IsException(result)) result = JS_Call(ctx, function, JS_UNDEFINED, count, args);
    for (int i = 0; i < count; i++) JS_FreeValue(ctx, args[i]);
    return result;
}

static bool define(JSContext *ctx, JSValueConst object, const char *name, JSValue value) {
    if (JS_IsException(value)) return false;
    return JS_DefinePropertyValueStr(ctx, object, name, value, JS_PROP_C_W_E) >= 0;
}

static JSValue make_input(JSContext *ctx, const uplink *frame) {
    JSValue input = JS_NewObject(ctx);
    if (JS_IsException(input)) return input;
    if (define(ctx, input, "bytes", value_bytes(ctx, frame->payload, frame->len)) &&
        define(ctx, input, "fPort", JS_NewInt32(ctx, (int32_t)frame->fport)) && globals_define_recv_time(ctx, input) &&
        define(ctx, input, "variables", read_variables(ctx)))
        return input;
    JS_FreeValue(ctx, input);
    return JS_EXCEPTION;
}

/* Decoder(bytes, port), then what else the script has of that convention; undefined, with a code set, if it refuses. */
static JSValue decode_port_last(script *s, const uplink *frame, int32_t *code) {
    JSContext *ctx = s->ctx;
    JSValue port = JS_NewInt32(ctx, (int32_t)frame->fport);
    JSValue result = call(ctx, s->decoder, 2, (JSValue[]){value_bytes(ctx, frame->payload, frame->len), port});
    if (JS_IsObject(result) && !JS_IsUndefined(s->converter))
        result = call(ctx, s->converter, 2, (JSValue[]){result, port});
    if (!JS_IsObject(result) || JS_IsUndefined(s->validator)) return result;
    JSValue valid = call(ctx, s->validator, 2, (JSValue[]){JS_DupValue(ctx, result), port});
    int is_valid = JS_IsException(valid) ? -1 : JS_ToBool(ctx, valid);
    JS_FreeValue(ctx, valid);
    if (is_valid > 0) return result;
    JS_FreeValue(ctx, result);
    if (is_valid < 0) return JS_EXCEPTION;
    *code = gw_error(CODE_REPORTED, "codec.js: Validator refused what Decoder gave");
    return JS_UNDEFINED;
}

static JSValue decode_by_style(script *s, const uplink *frame, int32_t *code) {
    JSContext *ctx = s->ctx;
    switch (s->decoder_style) {
    case STYLE_INPUT: return call(ctx, s->decoder, 1, (JSValue[]){make_input(ctx, frame)});
    case STYLE_FPORT: {
        JSValue fport = JS_NewInt32(ctx, (int32_t)frame->fport);
        JSValue bytes = value_bytes(ctx, frame->payload, frame->len);
        return call(ctx, s->decoder, 3, (JSValue[]){fport, bytes, read_variables(ctx)});
    }
    case STYLE_PORT_LAST: break;
    }
    return decode_port_last(s, frame, code);
}

/* Whether `errors` or `warnings` of an answer say something; -1: an exception. The value is the caller's to free. */
static int find_texts(JSContext *ctx, JSValueConst answer, const char *name, JSValue *texts) {
    *texts = JS_GetPropertyStr(ctx, answer, name);
    if (JS_IsException(*texts)) return -1;
    int is_list = JS_IsArray(ctx, *texts);
    if (is_list <= 0) return is_list < 0 ? -1 : JS_ToBool(ctx, *texts);
    JSValue first = JS_GetPropertyUint32(ctx, *texts, 0);
    int some = JS_IsException(first) ? -1 : !JS_IsUndefined(first);
    JS_FreeValue(ctx, first);
    return some;
}

/* Look at the errors and warnings of an answer: 0, or the code that it amounts to. `warnings` are the caller's to free
 * and undefined where there are none. */
static int32_t judge(script *s, JSValueConst answer, JSValue *warnings) {
    JSValue errors;
    *warnings = JS_UNDEFINED;
    int failed = find_texts(s->ctx, answer, "errors", &errors);
    if (failed > 0) script_said(s, SCRIPT_WARNING, "errors", errors);
    JS_FreeValue(s->ctx, errors);
    if (failed) return failed > 0 ? CODE_REPORTED : script_thrown(s, CODE_THROWN);
    int warned = find_texts(s->ctx, answer, "warnings", warnings);
    if (warned > 0) {
        script_said(s, SCRIPT_WARNING, "warnings", *warnings);
        return 0;
    }
    JS_FreeValue(s->ctx, *warnings);
    *warnings = JS_UNDEFINED;
    return warned ? script_thrown(s, CODE_THROWN) : 0;
}

/* The item for `data`: a report of its properties, and the same to show, with warnings. */
static int32_t write_report(script *s, gw_out *out, const uint8_t *eui, JSValueConst data, JSValueConst warnings) {
    uint32_t count = 0;
    gw_map(out, eui ? 4 : 3);
    gw_key(out, "kind");
    gw_lit(out, "report");
    if (eui) {
        gw_key(out, "device");
        gw_hex(out, eui, EUI_BYTES);
    }
    gw_key(out, "points");
    gw_array(out, 1);
    gw_map(out, 1);
    gw_key(out, "values");
    uint8_t *values = gw_mark(out);
    if (value_write_object(s->ctx, out, data, &count) == VALUE_THROWN) return script_thrown(s, CODE_THROWN);
    if (out->full) return GW_TOO_LARGE;
    if (!count) return GW_DROP;
    size_t pairs = (size_t)(gw_mark(out) - values) - 3; /* without the head that says how many */
    gw_key(out, "value");
    uint8_t *shown = gw_map_open(out);
    gw_raw(out, values + 3, pairs);
    if (!JS_IsUndefined(warnings)) {
        gw_key(out, "warnings");
        value_result result = value_write(s->ctx, out, warnings);
        if (result == VALUE_THROWN) return script_thrown(s, CODE_THROWN);
        if (result == VALUE_ABSENT) gw_nil(out);
        count++;
    }
    gw_close(out, shown, count);
    return GW_WRITTEN;
}

static int32_t report(script *s, gw_out *out, const uint8_t *eui, JSValueConst data, JSValueConst warnings) {
    if (JS_IsUndefined(data) || JS_IsNull(data)) return GW_DROP;
    if (JS_IsObject(data) && !JS_IsFunction(s->ctx, data) && JS_IsArray(s->ctx, data) == 0)
        return write_report(s, out, eui, data, warnings);
    JS_ThrowTypeError(s->ctx, "the decoded data is not an object");
    return script_thrown(s, CODE_THROWN);
}

/* An answer of the first convention: {data, warnings, errors}. */
static int32_t report_answer(script *s, gw_out *out, const uint8_t *eui, JSValueConst answer) {
    if (!JS_IsObject(answer)) return report(s, out, eui, answer, JS_UNDEFINED);
    JSValue warnings;
    int32_t code = judge(s, answer, &warnings);
    if (code) return code;
    JSValue data = JS_GetPropertyStr(s->ctx, answer, "data");
    code = JS_IsException(data) ? script_thrown(s, CODE_THROWN) : report(s, out, eui, data, warnings);
    JS_FreeValue(s->ctx, data);
    JS_FreeValue(s->ctx, warnings);
    return code;
}

static int32_t decode(gw_out *out, const uint8_t *bytes, uint32_t len, uint32_t aux) {
    script *s = script_ready();
    if (!s) return GW_UNSUPPORTED;
    if (JS_IsUndefined(s->decoder)) return gw_error(GW_UNSUPPORTED, "codec.js: " SCRIPT_NO_DECODER);
    uplink frame;
    if (!open_envelope(&frame, bytes, len, aux))
        return gw_error(GW_TRUNCATED, "the frame is shorter than its DevEUI and fPort");
    int32_t code = 0;
    JSValue answer = decode_by_style(s, &frame, &code);
    if (JS_IsException(answer)) code = script_thrown(s, CODE_THROWN);
    else if (!code && s->decoder_style == STYLE_INPUT) code = report_answer(s, out, frame.eui, answer);
    else if (!code) code = report(s, out, frame.eui, answer, JS_UNDEFINED);
    JS_FreeValue(s->ctx, answer);
    script_finish(s);
    return code;
}
GW_DECODER(decode)

/* ---- Encoding ---------------------------------------------------------------------------------------------------- */

static int32_t put_eui(gw_out *out, gw_value device) {
    uint8_t eui[EUI_BYTES];
    if (!gw_hex_bytes(device, eui, EUI_BYTES, false))
        return gw_error(GW_BAD_CONFIG, "`device` must be a DevEUI of 16 hex digits");
    gw_raw(out, eui, EUI_BYTES);
    return 0;
}

/* The command's arguments; an empty object where it has none. */
static JSValue read_args(JSContext *ctx, gw_in request) {
    gw_in args;
    if (!gw_find(request, "args", &args)) return JS_NewObject(ctx);
    JSValue data = value_read(ctx, &args);
    if (!JS_IsNull(data)) return data;
    return JS_NewObject(ctx);
}

static JSValue encode_by_style(script *s, gw_in request, JSValueConst data, uint32_t fport) {
    JSContext *ctx = s->ctx;
    JSValue port = JS_NewInt32(ctx, (int32_t)fport);
    if (s->encoder_style == STYLE_FPORT)
        return call(ctx, s->encoder, 3, (JSValue[]){port, JS_DupValue(ctx, data), read_variables(ctx)});
    if (s->encoder_style == STYLE_PORT_LAST) return call(ctx, s->encoder, 2, (JSValue[]){JS_DupValue(ctx, data), port});
    gw_value command = gw_get(request, "command");
    JSValue input = JS_NewObject(ctx);
    if (JS_IsException(input)) return input;
    JSValue name = command.type == GW_T_STR ? JS_NewStringLen(ctx, command.text, command.len) : JS_NULL;
    if (define(ctx, input, "command", name) && define(ctx, input, "data", JS_DupValue(ctx, data)) &&
        define(ctx, input, "fPort", port) && define(ctx, input, "variables", read_variables(ctx)))
        return call(ctx, s->encoder, 1, &input);
    JS_FreeValue(ctx, input);
    return JS_EXCEPTION;
}

/* The fPort that an answer names, else `otherwise`; -1 with an exception pending. */
static int64_t answered_fport(JSContext *ctx, JSValueConst answer, uint32_t otherwise) {
    int64_t fport = otherwise;
    JSValue value = JS_GetPropertyStr(ctx, answer, "fPort");
    if (JS_IsException(value)) return -1;
    bool named = !JS_IsUndefined(value) && !JS_IsNull(value);
    if (named && JS_ToInt64(ctx, &fport, value)) fport = -1;
    else if (fport < 0 || fport > MOST_FPORT) {
        JS_ThrowRangeError(ctx, "fPort is not a number from 0 to 255");
        fport = -1;
    }
    JS_FreeValue(ctx, value);
    return fport;
}

/* The envelope again, then the bytes. */
static int32_t write_downlink(script *s, gw_out *out, gw_in request, int64_t fport, JSValueConst bytes) {
    if (fport < 0) return script_thrown(s, CODE_THROWN);
    if (settings.has_eui) {
        int32_t code = put_eui(out, gw_get(request, "device"));
        if (code) return code;
    }
    if (settings.fport_from == FPORT_FIRST_BYTE) gw_byte(out, (uint8_t)fport);
    return value_write_raw(s->ctx, out, bytes) == VALUE_THROWN ? script_thrown(s, CODE_THROWN) : GW_WRITTEN;
}

static int32_t write_answer(script *s, gw_out *out, gw_in request, uint32_t fport, JSValueConst answer) {
    if (s->encoder_style != STYLE_INPUT || !JS_IsObject(answer)) return write_downlink(s, out, request, fport, answer);
    JSValue warnings;
    int32_t code = judge(s, answer, &warnings);
    JS_FreeValue(s->ctx, warnings);
    if (code) return code;
    JSValue bytes = JS_GetPropertyStr(s->ctx, answer, "bytes");
    if (JS_IsException(bytes)) return script_thrown(s, CODE_THROWN);
    code = write_downlink(s, out, request, answered_fport(s->ctx, answer, fport), bytes);
    JS_FreeValue(s->ctx, bytes);
    return code;
}

static int32_t encode(gw_out *out, gw_in request, uint32_t aux) {
    script *s = script_ready();
    if (!s) return GW_UNSUPPORTED;
    if (JS_IsUndefined(s->encoder)) return gw_error(GW_UNSUPPORTED, "codec.js: " SCRIPT_NO_ENCODER);
    uint32_t fport = settings.fport_from == FPORT_FIXED ? settings.fport : DEFAULT_FPORT;
    if (settings.fport_from == FPORT_AUX && aux && aux <= MOST_FPORT) fport = aux;
    JSValue data = read_args(s->ctx, request);
    JSValue answer = JS_IsException(data) ? JS_UNDEFINED : encode_by_style(s, request, data, fport);
    int32_t code;
    if (JS_IsException(data)) code = script_thrown(s, GW_BAD_CONFIG);
    else if (JS_IsException(answer)) code = script_thrown(s, CODE_THROWN);
    else code = write_answer(s, out, request, fport, answer);
    JS_FreeValue(s->ctx, data);
    JS_FreeValue(s->ctx, answer);
    script_finish(s);
    return code;
}
GW_ENCODER(encode)
