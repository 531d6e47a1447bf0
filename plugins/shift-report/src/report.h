/* SPDX-License-Identifier: Apache-2.0
 *
 * report.h - figures of a property's history by day and shift: what the source files share.
 */
#ifndef REPORT_H
#define REPORT_H

#define GW_IN_BYTES (16u * 1024u * 1024u)
#define GW_OUT_BYTES (2u * 1024u * 1024u)
#include "gw1_args.h"

enum {
    ROWS_MOST = 200000,
    SHIFTS_MOST = 24,
    LINES_MOST = 4096, /* a year of 11 shifts a day */
    NAME_MOST = 64,
    DATE_CHARS = 10,
    TIME_CHARS = 25
};

#define MINUTE_MS 60000
#define DAY_MS (1440ll * MINUTE_MS)
#define HOUR_MS 3600000.0
/* Beyond it the sum of all rows' squares would still not overflow, and no sensor measures. */
#define VALUE_MOST 1e100

/* calendar.c: days and times of day. Days count from 1970-01-01. */
int64_t day_of(int64_t local_ms);
bool read_time_of_day(gw_value text, int32_t *minutes);
void format_date(char to[DATE_CHARS], int64_t day);
void format_time(char to[TIME_CHARS], int64_t at, int32_t offset_min);

/* history.c: the rows, and what is to be told of a span of them */
typedef struct {
    int64_t hold_ms;  /* how long a reading counts when no other follows */
    double threshold; /* "above" it is running; NaN: not asked */
    double rollover;  /* where a counter goes back to 0; NaN: it only does when it is reset */
} rules;

typedef struct {
    uint32_t count, resets;
    double min, max, first, last;
    double sum, lost; /* the sum, and what rounding took from it */
    double delta;
    int64_t covered_ms, above_ms;
    double weighted; /* value times milliseconds */
} figures;

int32_t read_rows(const gw_args *args, uint32_t *ignored);
uint32_t rows_held(void);
figures measure(const rules *r, int64_t begin, int64_t end);
void add_figures(figures *to, const figures *later);

#endif
