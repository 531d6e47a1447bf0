/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call may ask: {key, value, ...} a reading, {key, rows, ...} many, {key, reset: true} to forget.
 */
#include "kalman.h"

typedef struct { double at, value; bool timed; } reading;

static reading readings[ROWS_MOST];

typedef struct {
    gw_value key; /* GW_T_END: rows on a filter of their own */
    noise noise;
    uint32_t count;
    bool many, reset;
} request;

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

static bool is_ours(double v) { return v >= -NUMBER_MOST && v <= NUMBER_MOST; }

static int32_t read_key(request *r, const gw_args *args) {
    r->key = gw_arg_value(args, "key");
    if (r->key.type == GW_T_END && r->many) return GW_WRITTEN;
    if (r->key.type != GW_T_STR || r->key.len < 1 || r->key.len > KEY_MOST || !gw_is_utf8(r->key.text, r->key.len))
        return gw_unwanted_arg(args, "key", "text of 1 to 128 bytes, such as \"device/property\"");
    return GW_WRITTEN;
}

static int32_t read_noise(request *r, const gw_args *args) {
    GW_TRY(gw_arg_number(args, "process_noise", 0, NUMBER_MOST, "a variance of 0 or more", &r->noise.process));
    return gw_arg_number(args, "measurement_noise", 1e-100, NUMBER_MOST, "a variance above 0", &r->noise.measurement);
}

static int32_t read_value(request *r, const gw_args *args) {
    reading *one = &readings[0];
    *one = (reading){.timed = gw_arg_value(args, "at").type != GW_T_END};
    r->count = 1;
    GW_TRY(gw_arg_number(args, "value", -NUMBER_MOST, NUMBER_MOST, "a finite number of at most 1e100", &one->value));
    return gw_arg_number_or(args, "at", -NUMBER_MOST, NUMBER_MOST, "epoch milliseconds", &one->at);
}

static int32_t read_rows(request *r, const gw_args *args) {
    gw_in items;
    GW_TRY(gw_arg_list(args, "rows", ROWS_MOST, &items, &r->count));
    for (uint32_t i = 0; i < r->count; i++) {
        gw_value row = gw_next(&items), at = {0}, value = {0};
        if (row.type == GW_T_ARRAY && row.len == 2) {
            at = gw_next(&items);
            value = gw_next(&items);
        }
        if (!gw_is_number(value) || !is_ours(value.f64))
            return gw_bad_item("rows", i, "must be [epoch ms or nil, finite number of at most 1e100]");
        if (at.type != GW_T_NIL && (!gw_is_number(at) || !is_ours(at.f64)))
            return gw_bad_item("rows", i, "must be [epoch ms or nil, finite number of at most 1e100]");
        readings[i] = (reading){.at = at.f64, .value = value.f64, .timed = at.type != GW_T_NIL};
    }
    return GW_WRITTEN;
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

static void write_number(gw_out *out, const char *name, bool known, double v) {
    gw_cstr(out, name);
    if (known) gw_f64(out, v);
    else gw_nil(out);
}

static void write_step(gw_out *out, bool known, step s) {
    write_number(out, "estimate", known, s.estimate);
    write_number(out, "variance", known, s.variance);
    write_number(out, "innovation", known, s.innovation);
    write_number(out, "gain", known, s.gain);
}

static int32_t filter(gw_out *out, const request *r) {
    track own = {0};
    const track *kept = r->key.type == GW_T_STR && !r->reset ? find_track(r->key.text, r->key.len) : NULL;
    if (kept) own = *kept;
    step s = {.estimate = own.estimate, .variance = own.variance};
    gw_map(out, r->many ? 5 : 4);
    if (r->many) {
        gw_key(out, "estimates");
        gw_array(out, r->count);
    }
    for (uint32_t i = 0; i < r->count; i++) {
        s = advance(&own, r->noise, readings[i].value, readings[i].timed, readings[i].at);
        if (r->many) gw_f64(out, s.estimate);
    }
    write_step(out, own.known, s);
    if (r->key.type == GW_T_STR && own.known) *take_track(r->key.text, r->key.len) = own;
    return GW_WRITTEN;
}

static int32_t forget(gw_out *out, const request *r) {
    bool known = drop_track(r->key.text, r->key.len);
    gw_map(out, 1);
    gw_key(out, "forgotten"); gw_bool(out, known);
    return GW_WRITTEN;
}

static int32_t call(gw_out *out, gw_in in, uint32_t aux) {
    gw_args args;
    request r = {0};
    GW_TRY(gw_args_read(&args, in));
    gw_value reset = gw_arg_value(&args, "reset");
    if (reset.type != GW_T_END && reset.type != GW_T_BOOL) return gw_bad_arg("reset", "must be true or false");
    r.reset = reset.uint != 0;
    r.many = gw_arg_value(&args, "rows").type != GW_T_END;
    GW_TRY(read_key(&r, &args));
    if (r.reset && !r.many && gw_arg_value(&args, "value").type == GW_T_END) return forget(out, &r);
    GW_TRY(read_noise(&r, &args));
    GW_TRY(r.many ? read_rows(&r, &args) : read_value(&r, &args));
    return filter(out, &r);
}

GW_CALLER(call)
GW_STATE(save_state, load_state)
