/* SPDX-License-Identifier: Apache-2.0
 *
 * The window of samples: a list of numbers, little-endian doubles as bytes, or rows [at, value] of a history.
 */
#include "fft.h"

/* Beyond it the square of a sum of samples would overflow. */
#define SAMPLE_MOST 1e100
#define RATE_MOST 1e9
/* Rows are evenly spaced where no gap is longer than this many mean ones. */
#define GAP_MOST 1.5

static bool is_sample(double v) { return v >= -SAMPLE_MOST && v <= SAMPLE_MOST; }
static int32_t bad_sample(const char *key, uint32_t i) {
    return gw_bad_item(key, i, "must be a finite number of at most 1e100");
}

static int32_t read_bytes(samples *s, gw_value v) {
    if (v.len % 8 || v.len / 8 > SAMPLES_MOST)
        return gw_bad_arg("samples", "as bytes must be little-endian doubles of 8 bytes, at most 65536");
    s->count = v.len / 8;
    for (uint32_t i = 0; i < s->count; i++) {
        s->value[i] = gw_le_f64((const uint8_t *)v.text + 8 * (size_t)i);
        if (!is_sample(s->value[i])) return bad_sample("samples", i);
    }
    return GW_WRITTEN;
}

static int32_t read_list(samples *s, const gw_args *args) {
    gw_in items;
    GW_TRY(gw_arg_list(args, "samples", SAMPLES_MOST, &items, &s->count));
    for (uint32_t i = 0; i < s->count; i++) {
        gw_value v = gw_next(&items);
        if (!gw_is_number(v) || !is_sample(v.f64)) return bad_sample("samples", i);
        s->value[i] = v.f64;
    }
    return GW_WRITTEN;
}

/* Rows must be in the order of time and evenly spaced; where the rate is not given they tell it. */
static int32_t read_rows(samples *s, const gw_args *args) {
    gw_in items;
    double first = 0, last = 0, widest = 0;
    uint32_t behind_widest = 0;
    GW_TRY(gw_arg_list(args, "rows", SAMPLES_MOST, &items, &s->count));
    for (uint32_t i = 0; i < s->count; i++) {
        gw_value row = gw_next(&items), at = {0}, v = {0};
        if (row.type == GW_T_ARRAY && row.len == 2) {
            at = gw_next(&items);
            v = gw_next(&items);
        }
        if (!gw_is_number(at) || !is_sample(at.f64) || !gw_is_number(v))
            return gw_bad_item("rows", i, "must be [epoch ms, number]");
        if (!is_sample(v.f64)) return bad_sample("rows", i);
        if (i && at.f64 <= last) return gw_bad_item("rows", i, "is not later than the one before: sort rows by time");
        if (i && at.f64 - last > widest) {
            widest = at.f64 - last;
            behind_widest = i;
        }
        if (!i) first = at.f64;
        last = at.f64;
        s->value[i] = v.f64;
    }
    if (s->count < 2) return GW_WRITTEN;
    double mean = (last - first) / (s->count - 1);
    if (widest > GAP_MOST * mean)
        return gw_bad_item("rows", behind_widest, "comes after a gap: give evenly spaced rows");
    s->rate_hz = 1000 / mean;
    return s->rate_hz <= RATE_MOST ? GW_WRITTEN : gw_bad_arg("rows", "are closer than a nanosecond");
}

int32_t read_samples(samples *s, const gw_args *args) {
    gw_value given = gw_arg_value(args, "samples");
    const char *key = given.type == GW_T_END ? "rows" : "samples";
    bool in_rows = given.type == GW_T_END && gw_arg_value(args, "rows").type != GW_T_END;
    s->rate_hz = 0;
    if (in_rows) GW_TRY(read_rows(s, args));
    else if (given.type == GW_T_BIN || given.type == GW_T_STR) GW_TRY(read_bytes(s, given));
    else GW_TRY(read_list(s, args));
    if (s->count < SAMPLES_LEAST) return gw_bad_arg(key, "must hold at least 2 samples");
    if (in_rows) return gw_arg_number_or(args, "rate_hz", 1e-9, RATE_MOST, "samples a second, above 0", &s->rate_hz);
    return gw_arg_number(args, "rate_hz", 1e-9, RATE_MOST, "samples a second, above 0", &s->rate_hz);
}
