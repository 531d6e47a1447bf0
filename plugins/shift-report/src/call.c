/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call may ask, and the lines of the report: one for each day and shift that the span from..to touches.
 */
#include "report.h"

/* Years 1 to 9999 with two days to spare for shifts and offsets. */
#define FROM_LEAST (-62135596800000ll + 2 * DAY_MS)
#define TO_MOST (253402300800000ll - 2 * DAY_MS)

typedef struct {
    gw_value name;
    int32_t start, end; /* minutes of the day; the end may lie on the next */
    figures total;
} shift;

typedef struct {
    gw_value property, unit;
    int64_t from, to;
    int32_t offset_min;
    uint32_t shifts, ignored;
    rules rules;
} request;

static shift shifts[SHIFTS_MOST];

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

static bool is_name(gw_value v) {
    return v.type == GW_T_STR && v.len && v.len <= NAME_MOST && gw_is_utf8(v.text, v.len);
}

static int32_t read_shift(shift *s, gw_in in, uint32_t i) {
    gw_args map;
    if (gw_args_read(&map, in) != GW_WRITTEN) return gw_bad_item("shifts", i, "must be {name, start, end}");
    *s = (shift){.name = gw_arg_value(&map, "name")};
    if (!is_name(s->name)) return gw_bad_item("shifts", i, "must have a name of 1 to 64 bytes");
    if (!read_time_of_day(gw_arg_value(&map, "start"), &s->start) || s->start == 1440)
        return gw_bad_item("shifts", i, "must have a start from \"00:00\" to \"23:59\"");
    if (!read_time_of_day(gw_arg_value(&map, "end"), &s->end))
        return gw_bad_item("shifts", i, "must have an end from \"00:00\" to \"24:00\"");
    if (s->end <= s->start) s->end += 1440;
    return GW_WRITTEN;
}

static int32_t read_shifts(request *r, const gw_args *args) {
    gw_in items;
    GW_TRY(gw_arg_list(args, "shifts", SHIFTS_MOST, &items, &r->shifts));
    if (!r->shifts) return gw_bad_arg("shifts", "must hold at least one {name, start, end}");
    for (uint32_t i = 0; i < r->shifts; i++) {
        GW_TRY(read_shift(&shifts[i], items, i));
        gw_skip(&items);
    }
    return GW_WRITTEN;
}

static int32_t read_span(request *r, const gw_args *args) {
    double from, to, offset;
    GW_TRY(gw_arg_number(args, "from", FROM_LEAST, TO_MOST, "epoch milliseconds", &from));
    GW_TRY(gw_arg_number(args, "to", FROM_LEAST, TO_MOST, "epoch milliseconds", &to));
    GW_TRY(gw_arg_number(args, "timezone_offset_min", -1080, 1080, "minutes from -1080 to 1080", &offset));
    r->from = (int64_t)from;
    r->to = (int64_t)to;
    r->offset_min = (int32_t)offset;
    if (r->from >= r->to) return gw_bad_arg("to", "must be later than from");
    return GW_WRITTEN;
}

static int32_t read_rules(request *r, const gw_args *args) {
    double hold_s = 3600;
    r->rules.threshold = r->rules.rollover = __builtin_nan(""); /* nothing is above it: not asked for */
    GW_TRY(gw_arg_number_or(args, "hold_s", 1, 1e9, "seconds, 1 or more", &hold_s));
    GW_TRY(gw_arg_number_or(args, "threshold", -VALUE_MOST, VALUE_MOST, "a finite number", &r->rules.threshold));
    GW_TRY(gw_arg_number_or(args, "rollover_at", 1e-9, VALUE_MOST, "a number above 0", &r->rules.rollover));
    r->rules.hold_ms = (int64_t)(hold_s * 1000);
    return GW_WRITTEN;
}

static int32_t read_request(request *r, const gw_args *args) {
    r->property = gw_arg_value(args, "property");
    r->unit = gw_arg_value(args, "unit");
    if (!is_name(r->property)) return gw_unwanted_arg(args, "property", "text of 1 to 64 bytes");
    if (r->unit.type != GW_T_END && !is_name(r->unit)) return gw_unwanted_arg(args, "unit", "text of 1 to 64 bytes");
    GW_TRY(read_span(r, args));
    GW_TRY(read_shifts(r, args));
    GW_TRY(read_rules(r, args));
    return read_rows(args, &r->ignored);
}

/* ---- The answer -------------------------------------------------------------------------------------------------- */

static void write_number(gw_out *out, bool known, double v) {
    if (known) gw_f64(out, v);
    else gw_nil(out);
}
static void write_time(gw_out *out, int64_t at, int32_t offset_min) {
    char text[TIME_CHARS];
    format_time(text, at, offset_min);
    gw_str(out, text, TIME_CHARS);
}

enum { LINE_KEYS = 4, FIGURES = 12 };
static const char *const columns[LINE_KEYS + FIGURES] = {
    "day", "shift", "start", "end", "count", "min", "max", "mean", "sum", "first", "last", "delta", "resets",
    "time_weighted_mean", "covered_h", "hours_above"};

static void write_figure(gw_out *out, const request *r, const figures *f, uint32_t i) {
    bool any = f->count > 0;
    double sum = f->sum + f->lost;
    switch (i) {
    case 0: gw_uint(out, f->count); break;
    case 1: write_number(out, any, f->min); break;
    case 2: write_number(out, any, f->max); break;
    case 3: write_number(out, any, sum / f->count); break;
    case 4: write_number(out, any, sum); break;
    case 5: write_number(out, any, f->first); break;
    case 6: write_number(out, any, f->last); break;
    case 7: write_number(out, any, f->delta); break;
    case 8: gw_uint(out, f->resets); break;
    case 9: write_number(out, f->covered_ms > 0, f->weighted / (double)f->covered_ms); break;
    case 10: gw_f64(out, (double)f->covered_ms / HOUR_MS); break;
    default: write_number(out, r->rules.threshold == r->rules.threshold, (double)f->above_ms / HOUR_MS);
    }
}

static void write_line(gw_out *out, const request *r, shift *s, int64_t day, int64_t begin, int64_t end) {
    char date[DATE_CHARS];
    figures f = measure(&r->rules, begin, end);
    add_figures(&s->total, &f);
    format_date(date, day);
    gw_array(out, LINE_KEYS + FIGURES);
    gw_str(out, date, DATE_CHARS);
    gw_str(out, s->name.text, s->name.len);
    write_time(out, begin, r->offset_min);
    write_time(out, end, r->offset_min);
    for (uint32_t i = 0; i < FIGURES; i++) write_figure(out, r, &f, i);
}

/* The part of a day's shift that lies inside the span; false where none does. */
static bool clip(const request *r, const shift *s, int64_t day, int64_t *begin, int64_t *end) {
    int64_t midnight = day * DAY_MS - (int64_t)r->offset_min * MINUTE_MS;
    *begin = midnight + (int64_t)s->start * MINUTE_MS;
    *end = midnight + (int64_t)s->end * MINUTE_MS;
    if (*begin < r->from) *begin = r->from;
    if (*end > r->to) *end = r->to;
    return *begin < *end;
}

static void write_lines(gw_out *out, const request *r, int64_t first_day, int64_t last_day) {
    uint32_t lines = 0;
    int64_t begin, end;
    uint8_t *head = gw_array_open(out);
    for (int64_t day = first_day; day <= last_day; day++)
        for (uint32_t i = 0; i < r->shifts; i++)
            if (clip(r, &shifts[i], day, &begin, &end)) {
                write_line(out, r, &shifts[i], day, begin, end);
                lines++;
            }
    gw_close(out, head, lines);
}

static void write_figures(gw_out *out, const request *r, const figures *f) {
    for (uint32_t i = 0; i < FIGURES; i++) {
        gw_cstr(out, columns[LINE_KEYS + i]);
        write_figure(out, r, f, i);
    }
}

static void write_text(gw_out *out, const char *name, gw_value text) {
    gw_cstr(out, name);
    if (text.type == GW_T_STR) gw_str(out, text.text, text.len);
    else gw_nil(out);
}

static void write_summary(gw_out *out, const request *r) {
    figures all = measure(&r->rules, r->from, r->to);
    gw_map(out, 7 + FIGURES);
    write_text(out, "property", r->property);
    write_text(out, "unit", r->unit);
    gw_key(out, "from"); write_time(out, r->from, r->offset_min);
    gw_key(out, "to"); write_time(out, r->to, r->offset_min);
    gw_key(out, "rows"); gw_uint(out, rows_held());
    gw_key(out, "ignored"); gw_uint(out, r->ignored);
    write_figures(out, r, &all);
    gw_key(out, "shifts"); gw_array(out, r->shifts);
    for (uint32_t i = 0; i < r->shifts; i++) {
        gw_map(out, 1 + FIGURES);
        write_text(out, "shift", shifts[i].name);
        write_figures(out, r, &shifts[i].total);
    }
}

static int32_t call(gw_out *out, gw_in in, uint32_t aux) {
    gw_args args;
    request r = {0};
    GW_TRY(gw_args_read(&args, in));
    GW_TRY(read_request(&r, &args));
    /* The day before, too: its night shift may reach into the span. */
    int64_t first_day = day_of(r.from + (int64_t)r.offset_min * MINUTE_MS) - 1;
    int64_t last_day = day_of(r.to + (int64_t)r.offset_min * MINUTE_MS);
    if ((last_day - first_day + 1) * r.shifts > LINES_MOST)
        return gw_bad_arg("to", "makes more than 4096 lines of days and shifts: ask for fewer days");
    gw_map(out, 3);
    gw_key(out, "columns"); gw_array(out, LINE_KEYS + FIGURES);
    for (uint32_t i = 0; i < LINE_KEYS + FIGURES; i++) gw_cstr(out, columns[i]);
    gw_key(out, "rows"); write_lines(out, &r, first_day, last_day);
    gw_key(out, "summary"); write_summary(out, &r);
    return GW_WRITTEN;
}

GW_CALLER(call)
