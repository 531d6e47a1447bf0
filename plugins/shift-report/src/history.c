/* SPDX-License-Identifier: Apache-2.0
 *
 * The rows of the history, in the order of time, and the figures of a span of them.
 */
#include "report.h"

/* Times that a double holds exactly; far beyond any calendar. */
#define AT_MOST 9007199254740992.0

typedef struct { int64_t at; double value; } row;

static row rows[ROWS_MOST];
static uint32_t held;

/* Numbers, and truth values as 1 and 0. */
static bool is_value(gw_value v, double *to) {
    if (v.type == GW_T_BOOL) *to = (double)v.uint;
    else if (gw_is_number(v) && v.f64 >= -VALUE_MOST && v.f64 <= VALUE_MOST) *to = v.f64;
    else return false;
    return true;
}

int32_t read_rows(const gw_args *args, uint32_t *ignored) {
    gw_in items;
    uint32_t count;
    held = *ignored = 0;
    GW_TRY(gw_arg_list(args, "rows", ROWS_MOST, &items, &count));
    for (uint32_t i = 0; i < count; i++) {
        gw_value head = gw_next(&items);
        if (head.type != GW_T_ARRAY || head.len != 2) return gw_bad_item("rows", i, "must be [epoch ms, value]");
        gw_value at = gw_next(&items), v = gw_next(&items);
        if (!gw_is_number(at) || !(at.f64 >= -AT_MOST && at.f64 <= AT_MOST))
            return gw_bad_item("rows", i, "must begin with epoch milliseconds");
        row *one = &rows[held];
        one->at = (int64_t)at.f64;
        if (v.type == GW_T_NIL) {
            ++*ignored;
            continue;
        }
        if (!is_value(v, &one->value))
            return gw_bad_item("rows", i, "must end with a finite number of at most 1e100, true, false or nil");
        if (held && one->at < one[-1].at)
            return gw_bad_item("rows", i, "is earlier than one before it: sort rows by time");
        held++;
    }
    return GW_WRITTEN;
}

uint32_t rows_held(void) { return held; }

/* The first row that is not before a time. */
static uint32_t first_from(int64_t at) {
    uint32_t low = 0, high = held;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (rows[middle].at < at) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Neumaier's summation: the sum does not depend on how many small terms follow a large one. */
static void add_to_sum(figures *f, double v) {
    double sum = f->sum + v;
    double big = f->sum < 0 ? -f->sum : f->sum, size = v < 0 ? -v : v;
    f->lost += big >= size ? f->sum - sum + v : v - sum + f->sum;
    f->sum = sum;
}

/* What a counter counted from one reading to the next. A counter that fell began anew at 0, or ran over. */
static double counted(const rules *r, figures *f, double before, double now) {
    if (now >= before) return now - before;
    f->resets++;
    double rest = now > 0 ? now : 0;
    return r->rollover > before ? r->rollover - before + rest : rest;
}

static void add_reading(const rules *r, figures *f, double v, const row *before) {
    if (!f->count++) f->min = f->max = f->first = v;
    if (v < f->min) f->min = v;
    if (v > f->max) f->max = v;
    f->last = v;
    add_to_sum(f, v);
    if (before) f->delta += counted(r, f, before->value, v);
}

/* A reading holds until the next one, but no longer than hold_ms. */
static void add_time(const rules *r, figures *f, uint32_t i, int64_t begin, int64_t end) {
    int64_t from = rows[i].at, to = from + r->hold_ms;
    if (i + 1 < held && rows[i + 1].at < to) to = rows[i + 1].at;
    if (from < begin) from = begin;
    if (to > end) to = end;
    if (to <= from) return;
    f->covered_ms += to - from;
    f->weighted += rows[i].value * (double)(to - from);
    if (rows[i].value > r->threshold) f->above_ms += to - from;
}

/* The span is [begin, end). The reading before it still holds in it, and is what its first one is counted from. */
figures measure(const rules *r, int64_t begin, int64_t end) {
    figures f = {0};
    uint32_t low = first_from(begin), high = first_from(end);
    if (low) add_time(r, &f, low - 1, begin, end);
    for (uint32_t i = low; i < high; i++) {
        add_reading(r, &f, rows[i].value, i ? &rows[i - 1] : NULL);
        add_time(r, &f, i, begin, end);
    }
    return f;
}

void add_figures(figures *to, const figures *later) {
    if (later->count) {
        if (!to->count || later->min < to->min) to->min = later->min;
        if (!to->count || later->max > to->max) to->max = later->max;
        if (!to->count) to->first = later->first;
        to->last = later->last;
    }
    to->count += later->count;
    to->resets += later->resets;
    add_to_sum(to, later->sum);
    to->lost += later->lost;
    to->delta += later->delta;
    to->covered_ms += later->covered_ms;
    to->above_ms += later->above_ms;
    to->weighted += later->weighted;
}
